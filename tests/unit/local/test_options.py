"""Ports: the usual ones, moved ones, free ones; never two alike."""

import pytest

from linkmesh.local.errors import LocalError
from linkmesh.local.options import PORTS, SERVICES, choose_ports


def test_the_usual_ports_are_the_contracts() -> None:
    """docs/CONTRACTS.md names them: users, docs and clients rely on the numbers."""
    ports = choose_ports()

    assert ports == PORTS
    assert ports["gateway"] == 8080
    assert [ports[f"{name}-grpc"] for name in SERVICES] == [7001, 7003, 7004, 7005, 7006, 7000]
    assert [ports[f"{name}-admin"] for name in SERVICES] == [9101, 9103, 9104, 9105, 9106, 9100]
    assert [ports[name] for name in ("kafka", "kafka-controller", "redis", "dynamodb", "zipkin", "otlp")] == [
        9092, 9093, 6379, 8000, 9411, 4318,
    ]  # fmt: skip


def test_ports_move_together_or_alone() -> None:
    """An offset moves all; a named move wins over it."""
    ports = choose_ports(moved={"kafka": 20_000}, offset=100)

    assert ports["kafka"] == 20_000
    assert all(ports[name] == usual + 100 for name, usual in PORTS.items() if name != "kafka")


def test_free_ports_are_all_different() -> None:
    """Two choices never share a port: each is reserved for this process."""
    first, second = choose_ports(free=True), choose_ports(free=True)

    assert len({*first.values(), *second.values()}) == 2 * len(PORTS)


@pytest.mark.parametrize(
    ("moved", "offset", "said"),
    [
        ({"kafak": 1}, 0, "no port named kafak"),
        ({"kafka": 8080}, 0, "8080"),
        ({"kafka": 80}, 0, "outside"),
        ({}, 60_000, "outside"),
    ],
)
def test_impossible_ports_are_one_clear_line(moved: dict[str, int], offset: int, said: str) -> None:
    """A wrong name, a double or a number out of range is said before anything starts."""
    with pytest.raises(LocalError, match=said) as caught:
        choose_ports(moved=moved, offset=offset)

    assert "\n" not in str(caught.value)
