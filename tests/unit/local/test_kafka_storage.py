"""Formatted storage: the tool runs once, every copy is a broker of its own, and half a copy is none."""

import asyncio
import sys
from pathlib import Path

import pytest

from linkmesh.local.engines.kafka_storage import format_storage
from linkmesh.local.errors import LocalError

# Stands in for StorageTool, which is called `… format -t ID -c FILE`: writes where the file's last log.dirs says.
TOOL = """
import pathlib, sys
*_, verb, _, cluster, _, config = sys.argv
settings = dict(line.split("=", 1) for line in pathlib.Path(config).read_text().splitlines() if "=" in line)
folder = pathlib.Path(settings["log.dirs"])
(folder / "__cluster_metadata-0").mkdir(parents=True)
(folder / "__cluster_metadata-0" / "x.checkpoint").write_text("features")
(folder / "meta.properties").write_text(f"cluster.id={cluster}\\ndirectory.id=abc\\nnode.id=1\\n")
with (pathlib.Path(sys.argv[1])).open("a") as runs: runs.write(verb + "\\n")
"""


def formatted(tmp_path: Path, name: str, tool: str = TOOL) -> dict[str, str]:
    """Format a directory and return its meta.properties."""
    log_dirs = tmp_path / name / "logs"
    log_dirs.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-S", "-c", tool, str(tmp_path / "runs")]
    asyncio.run(
        format_storage(log_dirs, template=tmp_path / "cache" / "t", tool=command, properties=f"log.dirs={log_dirs}\n")
    )
    assert (log_dirs / "__cluster_metadata-0" / "x.checkpoint").read_text() == "features"
    return dict(line.split("=", 1) for line in (log_dirs / "meta.properties").read_text().splitlines())


def test_the_tool_runs_once_and_each_broker_has_its_own_ids(tmp_path: Path) -> None:
    """Two brokers from one template are two clusters: only what is the same for all is copied."""
    first, second = formatted(tmp_path, "one"), formatted(tmp_path, "two")

    assert (tmp_path / "runs").read_text() == "format\n"
    assert first["node.id"] == second["node.id"] == "1"
    assert len({first["cluster.id"], second["cluster.id"], first["directory.id"], second["directory.id"]}) == 4
    assert {len(meta[name]) for meta in (first, second) for name in ("cluster.id", "directory.id")} == {22}


def test_half_a_format_is_done_again(tmp_path: Path) -> None:
    """A directory without meta.properties was never a broker's: what a crash left there gives way."""
    (tmp_path / "one" / "logs").mkdir(parents=True)
    (tmp_path / "one" / "logs" / "rest").write_text("")

    formatted(tmp_path, "one")

    assert not (tmp_path / "one" / "logs" / "rest").exists()


def test_a_tool_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Its words reach the person; neither template nor storage is left half made."""
    with pytest.raises(LocalError, match="no room"):
        formatted(tmp_path, "one", tool="raise SystemExit('no room')")

    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "one" / "logs").exists()
