"""What each service is told: exactly what its Config knows, and the user's own settings where they are known."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from chassis import config
from linkmesh.local.composition import addresses_of_engines, needed_ports
from linkmesh.local.errors import LocalError
from linkmesh.local.options import PORTS, SERVICES, Options
from linkmesh.local.secret_files import make_secrets
from linkmesh.local.services import config_of, environments


def told(tmp_path: Path, **options: object) -> Mapping[str, Mapping[str, str]]:
    """The LINKMESH_* part of each service's environment."""
    chosen = Options(state=tmp_path, **options)  # type: ignore[arg-type]  # the tests' own keywords
    return {
        service: {name: value for name, value in environment.items() if name.startswith("LINKMESH_")}
        for service, environment in environments(chosen, make_secrets(tmp_path / "secrets")).items()
    }


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_accepts_what_it_is_told(tmp_path: Path, service: str) -> None:
    """The real Config of each service loads from its environment: nothing missing, nothing unknown."""
    loaded = config.load(config_of(service), told(tmp_path)[service])

    assert (loaded.grpc_port, loaded.admin_port) == (PORTS[f"{service}-grpc"], PORTS[f"{service}-admin"])
    assert (loaded.environment, loaded.host, loaded.trace_ratio) == ("development", "127.0.0.1", 1.0)
    assert loaded.mesh_secret_file is not None


def test_the_users_settings_pass_where_they_are_known(tmp_path: Path) -> None:
    """A setting of one service reaches that service and no other; it wins over our default."""
    environment = told(tmp_path, settings={"LINKMESH_SWEEP_INTERVAL_S": "7", "LINKMESH_TRACE_RATIO": "0.5"})

    assert {name for name in SERVICES if "LINKMESH_SWEEP_INTERVAL_S" in environment[name]} == {"webhook"}
    assert {environment[name]["LINKMESH_TRACE_RATIO"] for name in SERVICES} == {"0.5"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LINKMESH_KAFAK", "no service has such a setting"),
        ("LINKMESH_KAFKA", "decides it"),
        ("LINKMESH_GRPC_PORT", "decides it"),
        ("LINKMESH_CODE_KEY_FILE", "decides it"),
    ],
)
def test_a_setting_without_effect_is_an_error(tmp_path: Path, name: str, said: str) -> None:
    """A typo, or a setting that the supervisor decides, must not silently do nothing."""
    with pytest.raises(LocalError, match=said):
        told(tmp_path, settings={name: "1"})


def test_settings_of_the_command_line_are_no_services_business(tmp_path: Path) -> None:
    """The key and gateway that commands use may be set while `up` runs."""
    environment = told(tmp_path, settings={"LINKMESH_API_KEY": "lk_live_x", "LINKMESH_GATEWAY": "http://x"})

    assert not [name for name in SERVICES if "LINKMESH_API_KEY" in environment[name]]


def test_external_engines_are_where_the_user_says(tmp_path: Path) -> None:
    """With --engines external the user's addresses go to the services, and only our own ports must be free."""
    settings = {"LINKMESH_KAFKA": "k:9092", "LINKMESH_REDIS": "redis://r:6379/0", "LINKMESH_DYNAMODB": "http://d:8000"}
    options = Options(state=tmp_path, engines="external", settings=settings, traces=False)

    environment = told(tmp_path, engines="external", settings=settings, traces=False)

    assert environment["writer"]["LINKMESH_KAFKA"] == "k:9092"
    assert environment["writer"].get("LINKMESH_OTLP_ENDPOINT", "") == ""
    assert addresses_of_engines(options) == ("k:9092", "http://d:8000")
    assert not {"kafka", "redis", "dynamodb", "zipkin", "otlp"} & set(needed_ports(options))


def test_external_engines_must_be_named(tmp_path: Path) -> None:
    """Without an address there is nothing to connect to: one clear line."""
    with pytest.raises(LocalError, match="LINKMESH_KAFKA"):
        addresses_of_engines(Options(state=tmp_path, engines="external"))
