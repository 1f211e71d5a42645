"""Configuration from the environment."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from chassis.config import ConfigError, ProcessConfig, load, read_key, variables


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ProcessConfig):
    """One field of each kind."""

    kafka: str
    limit: int = 3
    ratio: float = 0.5
    enabled: bool = False
    hosts: tuple[str, ...] = ()
    key_file: Path | None = None


REQUIRED = {"LINKMESH_GRPC_PORT": "7000", "LINKMESH_ADMIN_PORT": "9100", "LINKMESH_KAFKA": "127.0.0.1:9092"}


def test_every_kind_of_value_is_parsed_and_other_variables_are_left_alone() -> None:
    """Numbers, truth values, lists and paths come from text; what is not set keeps its default."""
    environ = REQUIRED | {
        "LINKMESH_LIMIT": "7",
        "LINKMESH_RATIO": "0.25",
        "LINKMESH_ENABLED": "yes",
        "LINKMESH_HOSTS": "a, b,",
        "LINKMESH_KEY_FILE": "/keys/k",
        "LINKMESH_ENVIRONMENT": "development",
        "LINKMESH_INSTANCE": "",
        "PATH": "/bin",
    }

    config = load(Config, environ)

    assert (config.limit, config.ratio, config.enabled) == (7, 0.25, True)
    assert (config.hosts, config.key_file, config.environment) == (("a", "b"), Path("/keys/k"), "development")
    assert (config.instance, config.grace_s) == ("0", 25.0)


def test_every_problem_is_named_at_once() -> None:
    """A missing, an unknown and two bad variables make one error with four sentences."""
    environ = {
        "LINKMESH_GRPC_PORT": "seven",
        "LINKMESH_ADMIN_PORT": "9100",
        "LINKMESH_ENVIRONMENT": "staging",
        "LINKMESH_KAFKAA": "x",
    }

    with pytest.raises(ConfigError) as caught:
        load(Config, environ)

    assert sorted(problem.split()[0].rstrip(":") for problem in caught.value.problems) == [
        "LINKMESH_ENVIRONMENT",
        "LINKMESH_GRPC_PORT",
        "LINKMESH_KAFKA",
        "LINKMESH_KAFKAA",
    ]


def test_the_variables_are_the_fields() -> None:
    """The supervisor gives each process exactly the variables that it knows."""
    assert {"LINKMESH_KAFKA", "LINKMESH_GRPC_PORT"} <= variables(Config)
    assert "LINKMESH_KAFKA" not in variables(ProcessConfig)


@pytest.mark.parametrize("content", ["", "zz", "00" * 31, "00" * 33])
def test_a_key_of_the_wrong_form_is_refused(tmp_path: Path, content: str) -> None:
    """A key file holds exactly so many bytes as hex; anything else stops the process."""
    path = tmp_path / "key"
    path.write_text(content)

    with pytest.raises(ConfigError):
        read_key(path, length=32)


def test_a_key_is_read_from_its_file(tmp_path: Path) -> None:
    """White space around the digits does not matter; a file that is not there does."""
    path = tmp_path / "key"
    path.write_text("ab" * 32 + "\n")

    assert read_key(path, length=32) == b"\xab" * 32
    with pytest.raises(ConfigError):
        read_key(tmp_path / "none", length=32)
