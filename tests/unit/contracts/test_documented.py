"""docs/CONTRACTS.md and the code say the same."""

import importlib
import re
from pathlib import Path

from prometheus_client import REGISTRY

from contracts.reasons import Reason
from contracts.topics import TOPICS

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


def test_the_metrics_exist() -> None:
    """Each documented metric is registered by one of the processes."""
    for service in ("gateway", "link_service", "writer", "analytics", "webhook", "audit"):
        importlib.import_module(f"{service}.app")
    known = {family.name + suffix for family in REGISTRY.collect() for suffix in ("", "_total")}

    documented = set(re.findall(r"`(\w+)`", section("Metrics")))

    assert documented
    assert documented <= known, documented - known
