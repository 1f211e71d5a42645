"""`linkmesh stats`, `top` and `reconcile`: what a person is shown of clicks."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from analytics.handlers.messages import instant
from chassis.clock import uuid7
from linkmesh.cli import reconcile as reconcile_command
from linkmesh.cli import stats as stats_command
from linkmesh.cli import top as top_command
from linkmesh.cli.main import app
from linkmesh.cli.terminal import NOT_FOUND, USAGE
from linkmesh.client import Client, Problem, Unreachable
from linkmesh.local.reconciling import Call, Figures, Reconciliation, add_up, reconcile
from shortener.analytics.v1 import analytics_service_pb2 as pb
from tests.unit.local.test_client import answering

OLD = uuid7(datetime(2026, 11, 20, 8, 30, tzinfo=UTC), bytes(10))
AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NEW = uuid7(datetime(2026, 11, 22, 9, 0, tzinfo=UTC), bytes(10))


def account(spool_id: str = NEW, partition: int = 0, **figures: int) -> pb.SpoolAccount:
    """What is known of a spool on a partition."""
    return pb.SpoolAccount(spool_id=spool_id, partition=partition, **figures)  # type: ignore[arg-type]  # its fields


def partition(
    number: int, *, owned: bool = False, without_spool: int = 0, counted_until: Timestamp | None = None
) -> pb.PartitionAccount:
    """A partition, counted until the look unless told otherwise."""
    return pb.PartitionAccount(
        partition=number,
        owned=owned,
        without_spool=without_spool,
        counted_until=counted_until or instant(int(AT.timestamp()) * 1000),
    )


@pytest.mark.rule("A10")
def test_a_difference_is_what_should_be_counted_and_is_not() -> None:
    """More recorded than counted, or a gap among what arrived; more that arrived than the books told last is none, nor
    are repeats, or clicks that had no room.
    """
    assert add_up([account(recorded=5, shipped=5, counted=5, repeats=9, dropped=3)]).difference == 0
    assert add_up([account(recorded=3, shipped=5, counted=5)]).difference == 0
    assert add_up([account(recorded=5, shipped=3, counted=3)]).difference == 2
    assert add_up([account(recorded=5, shipped=5, counted=4, missing=1, buried=1)]).difference == 1
    together = add_up([account(recorded=5, shipped=3, counted=3), account(partition=1, shipped=2, counted=1)])
    assert together == Figures(recorded=7, shipped=5, counted=4, difference=3)


@pytest.mark.rule("A10")
def test_the_table_has_a_row_for_each_spool_and_the_sums() -> None:
    """Over its partitions, newest first, with when it began; a spool is closed when all of its partitions are."""
    found = Reconciliation(
        [
            account(OLD, 0, recorded=4, shipped=4, counted=4, closed=True),
            account(OLD, 1, recorded=2, shipped=2, counted=2, repeats=6, closed=True),
            account(NEW, 0, recorded=7, shipped=6, counted=5, missing=1, closed=True),
            account(NEW, 1, dropped=3),
        ],
        [partition(0, owned=True, without_spool=8), partition(1)],
        AT,
    )

    lines = [line.split() for line in reconcile_command.text(found, everything=False).splitlines()]

    assert lines[1] == [NEW, "2026-11-22", "09:00", "open", "7", "6", "5", "0", "1", "0", "3", "2"]
    assert lines[2] == [OLD, "2026-11-20", "08:30", "closed", "6", "6", "6", "6", "0", "0", "0", "0"]
    assert lines[3] == ["2", "spools", "13", "12", "11", "6", "1", "0", "3", "2"]
    assert [" ".join(line) for line in lines[4:]] == [
        "8 clicks were counted without a spool",
        "nobody owns partitions 1: told by their last checkpoints",
        "3 clicks were answered and had no room in their spool: they are lost",
        "2 recorded clicks are not counted, 0 of them in dead letters",
        "counted until 2026-11-22 10:00:00 UTC",
    ]


@pytest.mark.rule("A10")
def test_what_nobody_can_tell_is_no_balance() -> None:
    """A partition whose log is not read up to the present hides what is wrong with it: it is waited for, then named,
    and the command ends with 1.
    """
    behind = partition(3, owned=True, counted_until=instant(int(AT.timestamp() - 61) * 1000))
    found = Reconciliation([account(recorded=1, shipped=1, counted=1)], [partition(0, owned=True), behind], AT)
    looks = [[behind], [behind], [partition(3, owned=True)]]

    async def call(request: pb.ReconcileClicksRequest) -> pb.ReconcileClicksResponse:
        told = looks.pop(0) if len(looks) > 1 else looks[0]
        now = instant(int(datetime.now(UTC).timestamp()) * 1000)
        return pb.ReconcileClicksResponse(
            partitions=[each if each is behind else partition(3, owned=True, counted_until=now) for each in told]
        )

    assert not found.balanced
    assert reconcile_command.text(found, everything=False).splitlines()[-2:] == [
        "partitions 3 are behind: what came since is not told of (linkmesh lag, linkmesh status)",
        "counted until 2026-11-22 09:58:59 UTC",
    ]
    assert asyncio.run(reconcile(call, wait_s=30)).balanced
    assert len(looks) == 1
    looks = [[behind]]
    assert asyncio.run(reconcile(call, wait_s=0)).late == [3]


def test_of_many_spools_the_old_ones_in_balance_are_left_out() -> None:
    """Those with a difference are always shown; `--all` shows every one."""
    spools = [uuid7(datetime(2026, 11, 1 + day, tzinfo=UTC), bytes(10)) for day in range(28)]
    found = Reconciliation([account(spool, recorded=1, shipped=1, counted=1) for spool in spools])
    found.accounts[0].recorded = 2

    short, whole = (reconcile_command.text(found, everything=everything) for everything in (False, True))

    assert spools[0] in short
    assert spools[1] not in short
    assert "7 older spools in balance are not shown (--all)" in short
    assert all(spool in whole for spool in spools)


@pytest.mark.rule("A10")
def test_what_is_on_its_way_is_waited_for() -> None:
    """As long as something differs all pages are read again, until the time is over."""
    looks: list[str] = []

    def call(counted: list[int]) -> Call:
        async def ask(request: pb.ReconcileClicksRequest) -> pb.ReconcileClicksResponse:
            looks.append(request.page_token)
            if not request.page_token:
                return pb.ReconcileClicksResponse(next_page_token="1/", spools=[account(recorded=1, counted=1)])
            now = counted.pop(0) if len(counted) > 1 else counted[0]
            return pb.ReconcileClicksResponse(spools=[account(partition=1, recorded=2, shipped=2, counted=now)])

        return ask

    waited = asyncio.run(reconcile(call([1, 1, 2]), wait_s=30))
    assert waited.sums == Figures(recorded=3, shipped=2, counted=3)
    assert looks == ["", "1/"] * 3
    assert asyncio.run(reconcile(call([1]), wait_s=0)).sums.difference == 1


def test_top_is_a_table_of_links() -> None:
    """With what had no room, and until when it is counted; the live one says what is new since the look before."""
    found = {
        "items": [{"short_code": "aB3dE7x", "clicks": 12}, {"short_code": "sale", "clicks": 3}],
        "other_clicks": 4,
        "counted_until": "2026-11-22T12:00:00Z",
        "next_page_token": "",
    }

    assert top_command.text(found).splitlines() == [
        "link     clicks", "aB3dE7x  12", "sale     3", "4 clicks on further links",
        "counted until 2026-11-22T12:00:00Z",
    ]  # fmt: skip
    assert top_command.text(found | {"items": [], "other_clicks": 0}).startswith("no clicks yet")
    links = top_command.links_of(found)
    assert top_command.news({"aB3dE7x": 10}, links) == {"aB3dE7x": 2, "sale": 3}
    assert top_command.news({}, links) == {}


def test_events_of_a_stream_are_read() -> None:
    """Name and data; comments, the time to come again and what has no data are none; a refusal is a Problem."""
    body = (
        b"retry: 3000\n\n: counted until now\n\nevent: click\ndata: {\"at\": \"t\"}\n\n"
        b"event: nothing\n\nevent:missed\ndata:{\"clicks\": 3}\n\n"
    )  # fmt: skip
    with answering(200, body) as (gateway, seen), Client(gateway, "k") as client:
        opened: list[bool] = []
        events = list(client.watch_clicks("a/b", lambda: opened.append(True)))
    assert opened == [True]
    assert events == [("click", {"at": "t"}), ("missed", {"clicks": 3})]
    assert seen == ["GET /api/links/a%2Fb/clicks/live"]
    refusal = b'{"code": "link_not_found", "detail": "None."}'
    with (
        answering(404, refusal) as (gateway, _),
        Client(gateway, "k") as client,
        pytest.raises(Problem, match="None"),
    ):
        next(client.watch_clicks("abc", lambda: opened.append(True)))
    assert opened == [True], "a refusal opens nothing"
    with Client("http://127.0.0.1:1", "k") as client, pytest.raises(Unreachable):
        next(client.watch_clicks("abc"))


def test_stats_of_groups_have_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question's fields reach the gateway, only those that were given; groups are drawn to scale."""
    body = {
        "clicks": {"total": 5, "human": 4, "bot": 1}, "unique_visitors": 2, "prefetches": 0, "counted_until": None,
        "series": [], "groups": [{"value": "DE", "clicks": 3}, {"value": "unknown", "clicks": 1}],
    }  # fmt: skip
    with answering(200, json.dumps(body).encode()) as (gateway, seen):
        monkeypatch.setenv("LINKMESH_GATEWAY", gateway)
        monkeypatch.setenv("LINKMESH_API_KEY", "k")
        answer = CliRunner().invoke(app, ["stats", "abc", "--group-by", "country", "--tz", "Europe/Berlin"])

    assert seen == ["GET /api/links/abc/stats?granularity=hour&group_by=country&tz=Europe%2FBerlin"]
    assert answer.stdout.splitlines()[-2:] == [f"  DE       3  {'█' * 30}", f"  unknown  1  {'█' * 10}"]


def test_a_watch_says_when_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that nobody follows shows nothing: a person must see that the watch is on; it is no output."""
    body = b'event: click\ndata: {"at": "t", "visitor_class": "human"}\n\n'
    with answering(200, body) as (gateway, _):
        monkeypatch.setenv("LINKMESH_GATEWAY", gateway)
        monkeypatch.setenv("LINKMESH_API_KEY", "k")
        given = ["stats", "abc", "--watch", "--limit", "1", "--json"]
        answer = CliRunner().invoke(app, given)

    assert answer.exit_code == 0
    assert answer.stderr == "watching abc from now on; Ctrl-C ends it\n"
    assert json.loads(answer.stdout)["event"] == "click"


def test_a_watch_that_is_cut_before_the_first_click_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway may start again while nobody follows the link; only one that never answered ends the command."""
    calls: list[str] = []

    def watch(_: Client, code: str, opened: Callable[[], None]) -> Iterator[tuple[str, dict[str, object]]]:
        calls.append(code)
        opened()
        if len(calls) == 1:
            raise Unreachable("cut off")
        yield "click", {"at": "t"}

    monkeypatch.setattr(Client, "watch_clicks", watch)
    monkeypatch.setattr(stats_command, "_AGAIN_S", 0.0)
    monkeypatch.setenv("LINKMESH_API_KEY", "k")

    answer = CliRunner().invoke(app, ["stats", "abc", "--watch", "--limit", "1", "--json"])

    assert (answer.exit_code, calls) == (0, ["abc", "abc"])


@pytest.mark.parametrize("command", [["reconcile"], ["rebuild", "--all"]])
def test_what_an_operator_asks_where_nothing_runs_any_more_ends_with_3(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder still says where the services were: that nobody runs them is no difference and no failure."""
    for name in ("LINKMESH_ANALYTICS", "LINKMESH_LINK_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dev.json").write_text('{"analytics": "127.0.0.1:1", "link_service": "127.0.0.1:1"}')

    answer = CliRunner().invoke(app, [*command, "--state", str(tmp_path)])

    assert answer.exit_code == NOT_FOUND
    assert f"no system runs in {tmp_path}" in answer.stderr


def test_a_limit_without_a_watch_is_wrong_usage() -> None:
    """It would be ignored."""
    assert CliRunner().invoke(app, ["stats", "abc", "--limit", "3"]).exit_code == USAGE
