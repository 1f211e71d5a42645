"""docs/CONTRACTS.md and the code say the same."""

import importlib
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Counter
from prometheus_client.metrics import MetricWrapperBase

from chassis.config import PREFIX, ProcessConfig
from contracts.reasons import Reason
from contracts.topics import TOPICS

SERVICES = ("gateway", "link_service", "writer", "analytics", "webhook", "audit")
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "CONTRACTS.md").read_text()


def section(title: str) -> str:
    """The text below a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_reasons_are_the_documented_ones() -> None:
    """Every reason stands in the table with its status, and no other."""
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", section("Errors"), re.MULTILINE))

    assert documented == {reason.code: str(reason.http_status) for reason in Reason}
    assert all(reason.name == reason.code.upper() for reason in Reason)


def test_the_topics_are_the_documented_ones() -> None:
    """Names, partitions and groups."""
    rows = re.findall(r"^\| `([\w-]+)` \| [\w ]+ \| (\d+) \| [\w ]+ \|(.*)\|$", section("Topics"), re.MULTILINE)

    assert {(name, int(partitions), tuple(re.findall(r"`([\w-]+)`", groups))) for name, partitions, groups in rows} == {
        (topic.name, topic.partitions, topic.groups) for topic in TOPICS
    }


def test_the_metrics_are_the_documented_ones() -> None:
    """Each metric that a process registers stands in the table with its labels, and no other."""
    for service in SERVICES:
        importlib.import_module(f"{service}.app")
    rows = re.findall(r"^\| `(\w+)(?:\{([\w,]+)\})?` \|", section("Metrics"), re.MULTILINE)

    assert {(name, tuple(labels.split(",")) if labels else ()) for name, labels in rows} == set(registered_metrics())


@pytest.mark.parametrize("service", ["every process", *SERVICES])
def test_the_settings_are_the_documented_ones(service: str) -> None:
    """Each LINKMESH_ variable of a process stands in its table with its default, and no other."""
    shared = {field.name for field in fields(ProcessConfig)}
    known = fields(ProcessConfig)
    if service in SERVICES:
        config = importlib.import_module(f"{service}.config").Config
        known = tuple(field for field in fields(config) if field.name not in shared)
    table = section("Settings").partition(f"### {service}\n")[2].partition("\n### ")[0]

    documented = re.findall(r"^\| `(LINKMESH_\w+)` \| (.+?) \|", table, re.MULTILINE)

    assert documented == [(PREFIX + field.name.upper(), default_text(field.default)) for field in known]


def registered_metrics() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names as they are scraped, and labels, of what our own processes register."""
    for collector in list(REGISTRY._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            suffix = "_total" if isinstance(collector, Counter) else ""
            yield collector._name + suffix, tuple(collector._labelnames)


def default_text(default: object) -> str:
    """A default as the page writes it."""
    match default:
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case None | "" | ():
            return "none"
    return "required" if default is MISSING else str(default)
