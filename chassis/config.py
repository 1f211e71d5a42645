"""Configuration: the environment, parsed once into a frozen dataclass, every problem named at once.

Each process has one `Config(ProcessConfig)` with a field per knob. A field `kafka: str` is the variable LINKMESH_KAFKA.
A field whose name ends in `_file` names a file; `read_secret` reads it. Unknown variables under the prefix are errors:
a typo must not silently leave a default in force.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin, get_type_hints

PREFIX = "LINKMESH_"
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class ConfigError(Exception):
    """The environment does not make a configuration; `problems` has a sentence for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig:
    """What every process is told."""

    environment: Literal["development", "production"] = "production"  # development: reflection on, every trace kept
    host: str = "127.0.0.1"  # address the servers listen on; a container sets 0.0.0.0
    grpc_port: int  # health in all six; the service where there is one
    admin_port: int  # /livez /readyz /metrics
    instance: str = "0"  # tells instances of one service apart: static group membership, client ids
    otlp_endpoint: str = ""  # base URL of an OTLP/HTTP receiver; empty: no traces
    trace_ratio: float = 0.01  # share of new traces that are kept; the decision is the parent's where there is one
    grace_s: float = 25.0  # from SIGTERM to giving up; below Kubernetes' 30 s
    mesh_secret_file: Path | None = None  # who holds it is one of our own processes


C = TypeVar("C", bound=ProcessConfig)


def variables(config: type[ProcessConfig]) -> frozenset[str]:
    """The names of the environment variables that a configuration knows."""
    return frozenset(PREFIX + field.name.upper() for field in fields(config))


def load(config: type[C], environ: Mapping[str, str]) -> C:
    """The configuration that the environment describes; an empty variable counts as absent.

    Raises:
        ConfigError: names every variable that is missing, unknown or has a bad value.
    """
    problems = [
        f"{name} is not a setting of this process" for name in sorted(environ) if name.startswith(PREFIX)
        and name not in variables(config)
    ]  # fmt: skip
    hints = get_type_hints(config)
    values: dict[str, object] = {}
    for field in fields(config):
        name = PREFIX + field.name.upper()
        text = environ.get(name, "")
        if text:
            try:
                values[field.name] = _parse(hints[field.name], text)
            except ValueError as exc:
                problems.append(f"{name}: {exc}")
        elif field.default is MISSING:
            problems.append(f"{name} is missing")
    if problems:
        raise ConfigError(problems)
    return config(**values)  # type: ignore[arg-type]  # values are parsed by each field's own type


def read_secret(path: Path | None) -> bytes:
    """The content of a secret's file without surrounding white space; empty if no file is configured.

    Raises:
        ConfigError: the file cannot be read.
    """
    if path is None:
        return b""
    try:
        return path.read_bytes().strip()
    except OSError as exc:
        raise ConfigError([f"cannot read the secret in {path}: {exc.strerror}"]) from exc


def read_key(path: Path | None, *, length: int) -> bytes:
    """A key of `length` bytes, stored in its file as hex digits.

    Raises:
        ConfigError: no file, unreadable, not hex, or of another length.
    """
    text = read_secret(path)
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except (UnicodeDecodeError, ValueError) as exc:
        raise ConfigError([f"the key in {path} is not hex"]) from exc
    if len(key) != length:
        raise ConfigError([f"the key in {path} has {len(key)} bytes, not {length}"])
    return key


def _parse(kind: object, text: str) -> object:
    """The value of a text as a field's type; raises ValueError with a sentence."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"{text!r} is none of {', '.join(get_args(kind))}")
        return text
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() in _TRUE
    if kind is int or kind is float:
        try:
            return int(text) if kind is int else float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a number") from None
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return Path(text) if kind is Path else text
