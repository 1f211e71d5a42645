"""Which peers may be named."""

from pathlib import Path

import pytest

from bench.peers import parse


def test_a_peer_is_a_name_and_a_program(tmp_path: Path) -> None:
    """`name=script`; the script is found from wherever the bench runs it."""
    script = tmp_path / "start=it"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)

    assert parse(f"golink={script}") == ("golink", script)


@pytest.mark.parametrize("text", ["", "golink", "golink=", "=/bin/sh", "golink=/no/such/file"])
def test_anything_else_is_refused_before_the_long_run(text: str) -> None:
    """With a sentence that repeats it."""
    with pytest.raises(ValueError, match="--peer"):
        parse(text)
