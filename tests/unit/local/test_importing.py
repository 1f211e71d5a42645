"""`linkmesh link import`: every line makes exactly one link, whatever cuts it off, and whoever is wrong is told."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from linkmesh.cli import terminal
from linkmesh.cli.main import app
from linkmesh.client import Json, Problem, Unreachable
from linkmesh.local.import_lines import ImportProblem, Line, lines_of
from linkmesh.local.importing import Imported, Importer, Journal, Refusal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(Exception):
    """The process ends here."""


@dataclass
class Gateway:
    """Makes a link of each URL, once under each key and place. `fate`: what becomes of a call, by its number."""

    fate: Callable[[int], str] = lambda _: "answered"
    made: list[str] = field(default_factory=list)
    known: dict[tuple[str, int], Json] = field(default_factory=dict)
    calls: int = 0

    def create(self, links: Sequence[Json], key: str) -> Sequence[Json]:
        """As the client's."""
        self.calls += 1
        fate = self.fate(self.calls)
        if fate == "crash before":
            raise Crash
        if fate == "away":
            raise Unreachable("the gateway does not answer")
        if fate == "forbidden":
            raise Problem(403, "permission_denied", "No.")
        results = [self._one(link, key, place, full=fate == "full") for place, link in enumerate(links)]
        if fate == "crash behind":
            raise Crash
        if fate == "lost":
            raise Unreachable("the answer got lost")
        return results

    def _one(self, link: Json, key: str, place: int, *, full: bool) -> Json:
        url = str(link["long_url"])
        if full and place % 2:
            return {"problem": {"status": 503, "code": "unavailable", "detail": "Full."}}
        if url.startswith("bad"):
            return {"problem": {"status": 422, "code": "invalid_field", "detail": "No URL.", "errors": []}}
        if (key, place) not in self.known:
            self.made.append(url)
            self.known[key, place] = {"link": {"short_code": f"c{len(self.made)}"}}
        return self.known[key, place]


@dataclass
class Desk:
    """A person with a file, who repeats the command."""

    folder: Path
    gateway: Gateway = field(default_factory=Gateway)
    now: datetime = NOW
    slept_s: list[float] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    advanced: int = 0

    def write(self, *urls: str) -> None:
        """The file."""
        text = "".join(json.dumps({"long_url": url}) + "\n" for url in urls)
        (self.folder / "links.jsonl").write_text(text)

    def run(self) -> Imported:
        """The command."""
        self.refused, self.advanced = [], 0
        with Journal(self.folder / "journal") as journal:
            return Importer(
                create=self.gateway.create,
                journal=journal,
                refuse=self.refused.append,
                advance=self._advance,
                now=lambda: self.now,
                sleep=self.slept_s.append,
            ).run(lines_of(self.folder / "links.jsonl"))

    def _advance(self, count: int) -> None:
        self.advanced += count


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk of its own."""
    return Desk(tmp_path)


URLS = [f"https://example.org/{number}" for number in range(250)]


@pytest.mark.rule("I1")
@pytest.mark.parametrize("fate", ["crash before", "crash behind"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_repeat_after_a_crash_makes_what_is_missing(desk: Desk, fate: str, call: int) -> None:
    """The process may die before a request arrives or before its answer is written down: no line makes two links."""
    desk.write(*URLS)
    desk.gateway.fate = lambda number: fate if number == call else "answered"
    with pytest.raises(Crash):
        desk.run()

    done = desk.run()

    assert sorted(desk.gateway.made) == sorted(URLS)
    assert (done.made + done.skipped, done.refused) == (250, 0)
    assert desk.advanced == 250
    assert desk.run() == Imported(skipped=250)


@pytest.mark.rule("I1")
def test_a_journal_that_was_cut_off_within_a_line_is_read(desk: Desk) -> None:
    """What was only half written down was not sent; where the file ends earlier, less was."""
    desk.write(*URLS[:150])
    desk.run()
    whole = (desk.folder / "journal").read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]

    for cut in [*(end - 1 for end in ends), *(end + 10 for end in ends[:-1])]:
        (desk.folder / "journal").write_bytes(whole[:cut])
        desk.run()

    assert set(desk.gateway.made) == set(URLS[:150])


@pytest.mark.parametrize("fate", ["away", "lost", "full"])
def test_what_passes_is_waited_for(desk: Desk, fate: str) -> None:
    """No answer, a lost one, and 503 for some of a batch: the same request again, with longer and longer pauses."""
    desk.write(*URLS[:10])
    desk.gateway.fate = lambda number: fate if number <= 2 else "answered"

    assert desk.run() == Imported(made=10)

    assert sorted(desk.gateway.made) == sorted(URLS[:10])
    assert desk.slept_s == [0.5, 1.0]


def test_what_does_not_pass_ends_the_import_and_can_be_gone_on_with(desk: Desk) -> None:
    """After some tries it stops and says where; what the API key may not do is told at once."""
    desk.write(*URLS[:150])
    desk.gateway.fate = lambda number: "answered" if number == 1 else "away"
    with pytest.raises(ImportProblem, match="stopped before line 101"):
        desk.run()
    desk.gateway.fate = lambda _: "forbidden"
    with pytest.raises(Problem):
        desk.run()
    desk.gateway.fate = lambda _: "answered"

    assert desk.run() == Imported(made=50, skipped=100)
    assert len(desk.gateway.made) == 150


def test_lines_that_were_mended_are_made_and_those_around_them_are_not_made_again(desk: Desk) -> None:
    """A line is known by what it says, not by where it stands; several that say the same are several links."""
    desk.write(URLS[0], "bad", URLS[1], URLS[1])
    assert desk.run() == Imported(made=3, refused=1)
    assert [(refusal.number, refusal.code) for refusal in desk.refused] == [(2, "invalid_field")]

    desk.write("https://example.org/mended", URLS[0], URLS[1], URLS[1])

    assert desk.run() == Imported(made=1, skipped=3)
    assert desk.gateway.made.count(URLS[1]) == 2


def test_an_answer_that_got_lost_a_day_ago_is_a_persons_to_judge(desk: Desk) -> None:
    """The idempotency key is forgotten by then: to send it again could make each link twice."""
    desk.write(URLS[0])
    desk.gateway.fate = lambda _: "crash behind"
    with pytest.raises(Crash):
        desk.run()
    desk.gateway.fate = lambda _: "answered"
    desk.now += timedelta(hours=24)

    with pytest.raises(ImportProblem, match="too long ago"):
        desk.run()

    assert desk.gateway.made == [URLS[0]]


def test_one_import_at_a_time(desk: Desk) -> None:
    """A second one with the same journal would send everything once more."""
    desk.write(URLS[0])
    with Journal(desk.folder / "journal"), pytest.raises(ImportProblem, match="another import"):
        desk.run()


def _read(folder: Path, name: str, text: str) -> list[Line]:
    (folder / name).write_text(text)
    return list(lines_of(folder / name))


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    """Cells that are empty are left out; tags share a cell; a number is a number."""
    csv = 'long_url,title,tags,redirect_status\nhttps://a.example/,"A, b",x; y,301\nhttps://b.example/,,,\n'
    objects = (
        '{"long_url": "https://a.example/", "title": "A, b", "tags": ["x", "y"], "redirect_status": 301}\n\n'
        '{"long_url": "https://b.example/"}\n'
    )

    found = [[line.link for line in _read(tmp_path, *file)] for file in (("a.csv", csv), ("a.jsonl", objects))]

    assert found[0] == found[1]


def test_lines_that_are_nothing_are_told(tmp_path: Path) -> None:
    """What is no object, and a row with too many cells, by their numbers; the others go on."""
    lines = _read(tmp_path, "a.jsonl", '{"long_url": "https://a.example/"}\nnothing\n[1]\n')
    rows = _read(tmp_path, "a.csv", "long_url\nhttps://a.example/\nhttps://b.example/,more\n")

    assert [(line.number, line.link is None) for line in lines] == [(1, False), (2, True), (3, True)]
    assert [(line.number, line.link is None) for line in rows] == [(2, False), (3, True)]


def test_a_line_that_no_request_can_carry_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    """It would be in the journal as sent, and end this call and every later one."""
    texts = ["NaN", "1e999", '"https://a.example/\\ud800"', f'"https://a.example/{"x" * 400_000}"', "[" * 50_000, '"ä"']

    lines = _read(tmp_path, "a.jsonl", "".join(f'{{"long_url": {text}}}\n' for text in texts))

    assert [line.link is None for line in lines] == [True, True, True, True, True, False]
    assert all(line.wrong for line in lines[:-1])
    assert httpx.Request("POST", "http://gateway", json={"links": [lines[-1].link]}).content


@pytest.mark.parametrize("text", ["", "url\nhttps://a.example/\n", "long_url,colour\nhttps://a.example/,red\n", "\xff"])
def test_a_file_that_is_none_is_wrong_usage(tmp_path: Path, text: str) -> None:
    """A head without the URL, a column that nothing is known of, no text: nothing is sent."""
    path = tmp_path / "links.csv"
    path.write_bytes(text.encode("latin-1"))

    answer = CliRunner().invoke(app, ["link", "import", str(path), "--state", str(tmp_path)])

    assert answer.exit_code == terminal.USAGE
    assert [found.name for found in tmp_path.iterdir()] == ["links.csv"]


def test_the_file_itself_is_no_place_for_errors(tmp_path: Path) -> None:
    """It would be deleted."""
    path = tmp_path / "links.jsonl"
    path.write_text("{}\n")

    assert CliRunner().invoke(app, ["link", "import", str(path), "--errors", str(path)]).exit_code == terminal.USAGE
    assert path.exists()


def test_a_batch_is_what_the_gateway_takes(desk: Desk) -> None:
    """At most 100 links and less than half a megabyte."""
    sizes: list[tuple[int, int]] = []
    create = desk.gateway.create

    def noting(links: Sequence[Json], key: str) -> Sequence[Json]:
        sizes.append((len(links), len(json.dumps(links))))
        return create(links, key)

    desk.gateway.create = noting  # type: ignore[method-assign]  # a wrapper of this test's own
    desk.write(*URLS, *(f"https://example.org/{'x' * 20_000}{number}" for number in range(60)))

    desk.run()

    assert max(count for count, _ in sizes) == 100
    assert max(size for _, size in sizes) < 512 * 1024
    assert len(desk.gateway.made) == 310


def test_what_is_no_line_is_told_in_the_same_form_as_a_refusal(desk: Desk) -> None:
    """A program that reads the errors finds a list of fields in each, empty where none is to blame."""
    (desk.folder / "links.jsonl").write_text("nonsense\n")

    assert desk.run() == Imported(refused=1)
    told = json.loads(json.dumps(asdict(desk.refused[0])))
    assert (told["number"], told["code"], told["errors"]) == (1, "malformed_request", [])
