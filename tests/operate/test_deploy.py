"""What can be known of a deployment without a cluster: schemas, policies, settings, alerts."""

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from chassis.config import load

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "deploy" / "base"
ALERTS = ROOT / "deploy" / "alerts"
SERVICES = ("gateway", "link_service", "writer", "analytics", "webhook", "audit")
TOOLS = Path(sys.executable).parent

Manifest = Mapping[str, Any]  # a Kubernetes object, as YAML gives it


def manifests() -> Iterator[Manifest]:
    """Every object of the base."""
    for path in sorted(BASE.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


def workload(service: str) -> Manifest:
    """The Deployment or StatefulSet of a service."""
    name = service.replace("_", "-")
    kinds = ("Deployment", "StatefulSet")
    return next(item for item in manifests() if item["kind"] in kinds and item["metadata"]["name"] == name)


def run(*command: str) -> None:
    """Runs a checker; its output is the failure's message."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_manifest_is_valid_and_listed() -> None:
    """Strict schemas of Kubernetes 1.36 accept each file, and the kustomization names each file once."""
    files = sorted(path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())

    assert sorted(kustomization["resources"]) == files
    for name in files:
        run(str(TOOLS / "kubernetes-validate"), "--strict", "-k", "1.36", str(BASE / name))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_understands_the_settings_it_is_given(service: str) -> None:
    """The variables of the container make a configuration: none is unknown, none is missing, none has a bad value."""
    [container] = workload(service)["spec"]["template"]["spec"]["containers"]
    config = importlib.import_module(f"{service}.config").Config

    settings = load(config, {item["name"]: item.get("value") or "from-the-cluster" for item in container["env"]})

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert (settings.grpc_port, settings.admin_port) == (ports["grpc"], ports["admin"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for item in container["env"]:
        if item["name"].endswith(("_FILE", "_DIR")):
            assert any(item["value"].startswith(mount) for mount in mounts), item


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_no_rights_it_does_not_need(service: str) -> None:
    """Non-root, read-only root, no capabilities, no token, bounded memory, three probes, labels that match."""
    spec = workload(service)["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    security = container["securityContext"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container["resources"]["limits"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert pod["terminationGracePeriodSeconds"] > 25


def test_the_secret_files_that_are_mounted_are_the_ones_that_are_named() -> None:
    """Every file setting points at a key of the Secret that its volume really projects."""
    for service in SERVICES:
        pod = workload(service)["spec"]["template"]["spec"]
        projected = {
            item["path"] for volume in pod["volumes"] if volume["name"] == "keys" for item in volume["secret"]["items"]
        }
        named = {
            Path(item["value"]).name
            for item in pod["containers"][0]["env"]
            if item.get("value", "").startswith("/run/secrets/")
        }
        assert named == projected, service


def test_the_dockerfile_is_clean() -> None:
    """hadolint finds nothing."""
    run(str(TOOLS / "hadolint"), str(ROOT / "deploy" / "Dockerfile"))


def test_the_dockerfile_copies_every_package() -> None:
    """What pyproject.toml packages, the image builds from."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    for package in ("chassis", "contracts", *SERVICES, "linkmesh", "protos/gen"):
        assert f"COPY {package}/ {package}/" in text, package
    for service in SERVICES:
        assert (ROOT / "requirements" / f"{service}.txt").exists(), service


def test_the_alerts_fire_when_they_should() -> None:
    """promtool accepts the rules, and each fires on the figures that it is for and not short of them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    run(promtool, "check", "rules", str(ALERTS / "linkmesh.rules.yaml"))
    run(promtool, "test", "rules", str(ALERTS / "linkmesh.rules.test.yaml"))


def test_the_alerts_speak_of_metrics_that_exist() -> None:
    """Each metric of ours in an expression is registered by the code, and each runbook anchor is in the docs."""
    for service in SERVICES:
        importlib.import_module(f"{service}.app")
    known = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    known |= {family.name + suffix for family in REGISTRY.collect() for suffix in ("", "_total")}
    operations = (ROOT / "docs" / "OPERATIONS.md").read_text()
    rules = yaml.safe_load((ALERTS / "linkmesh.rules.yaml").read_text())

    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        names = set(re.findall(r"\b[a-z][a-z_]+_(?:seconds|total|ratio|bytes|bytes_max|restored)\b", rule["expr"]))
        assert names <= known, (rule["alert"], names - known)
        anchor = rule["annotations"]["runbook"].partition("#")[2]
        assert f"## {anchor.replace('-', ' ')}" in operations.lower(), anchor
