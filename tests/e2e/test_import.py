"""Links that come from a file, by a person's command, on a system at work."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from linkmesh.cli.main import app
from tests.system import RunningSystem, started_system


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system of this module's own, without what making links does not need."""
    with started_system(
        tmp_path_factory.mktemp("imported"), services=("link_service", "writer", "gateway"), traces=False
    ) as running:
        yield running


@pytest.mark.rule("I1")
def test_a_file_of_links_is_imported_once(own: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line makes one link with all it says; bad ones are told with their line; a repeat makes none; and when the
    answer to a batch was not written down, the repeat gets the same links."""
    monkeypatch.setenv("LINKMESH_GATEWAY", own.gateway)
    monkeypatch.setenv("LINKMESH_API_KEY", own.api_key)
    file = tmp_path / "links.csv"
    rows = [f"https://example.org/{number},Title {number},a; b,{307 if number % 2 else ''}" for number in range(130)]
    rows[7] = "ftp://example.org/,bad,,"
    rows[8] = "https://example.org/8,chosen,,nothing"
    file.write_text("\n".join(["long_url,title,tags,redirect_status", *rows]))

    first = told(["link", "import", str(file), "--json"], code=1)
    errors = [json.loads(line) for line in (tmp_path / "links.csv.errors.jsonl").read_text().splitlines()]
    journal = tmp_path / "links.csv.progress.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    again = told(["link", "import", str(file), "--json"], code=1)
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries[:-1]))  # the last answer got lost
    after_a_loss = told(["link", "import", str(file), "--json"], code=1)
    last = [json.loads(line) for line in journal.read_text().splitlines()]

    assert (first["made"], first["refused"]) == (128, 2)
    assert [(error["number"], error["code"]) for error in errors] == [(9, "invalid_long_url"), (10, "invalid_field")]
    assert (again["made"], again["skipped"], again["refused"]) == (0, 128, 2)
    assert (after_a_loss["made"], after_a_loss["refused"]) == (30, 2)
    made = [entry["made"] for entry in entries if "made" in entry]
    assert made[-1] in [entry.get("made") for entry in last], "the same links as before"
    with own.client() as client:
        link = client.get_link(next(iter(made[-1].values())))
    assert str(link["long_url"]).startswith("https://example.org/1")
    assert link["tags"] == ["a", "b"]


def told(arguments: Sequence[str], *, code: int) -> dict[str, object]:
    """What a command prints as JSON."""
    answer = CliRunner().invoke(app, list(arguments))
    assert answer.exit_code == code, answer.output
    found = json.loads(answer.stdout)
    assert isinstance(found, dict)
    return found
