"""What the audit service tells, and to whom, on fakes."""

import asyncio
from collections.abc import Sequence

import pytest

from audit.handlers.audit_service import AuditServicer
from audit.handlers.log_files import LogFiles
from chassis.auth import GATEWAY, Caller, set_caller
from contracts.scopes import AUDIT_READ
from shortener.audit.v1 import audit_service_pb2 as pb
from shortener.key.v1 import key_service_pb2 as key_pb
from tests.fakes.audit_ports import FakeEntryIndex, FakeLogStorage
from tests.fakes.link_events import event_of, make_link, record_of
from tests.unit.audit.world import TOPIC, World, consume, signer

VERSIONS = 5


def pages(user_id: str, short_code: str) -> Sequence[pb.ListEntriesResponse]:
    """The first two pages, of two entries each, of a link of ada's with five versions, as that account sees them."""

    async def scenario() -> Sequence[pb.ListEntriesResponse]:
        links = [make_link("adas", version=version) for version in range(1, VERSIONS + 1)]
        world = World([record_of(event_of(link), offset=offset) for offset, link in enumerate(links)])
        await consume(world, world.process(), lambda: VERSIONS)
        storage = FakeLogStorage(world.disk)
        servicer = AuditServicer(
            topic=TOPIC,
            storage=storage,
            open_log=lambda log: LogFiles(storage, log, signer(log)),
            index=FakeEntryIndex(world.database),
        )
        set_caller(Caller(GATEWAY, None))
        principal = key_pb.Principal(user_id=user_id, scopes=[AUDIT_READ])
        request = pb.ListEntriesRequest(principal=principal, short_code=short_code, page_size=2)
        first = await servicer.ListEntries(request, None)  # type: ignore[arg-type]  # the context is not looked at
        request.page_token = first.next_page_token
        return first, await servicer.ListEntries(request, None)  # type: ignore[arg-type]  # as above

    return asyncio.run(scenario())


@pytest.mark.parametrize(("short_code", "versions"), [("adas", [1, 2, 3, 4]), ("", [5, 4, 3, 2])])
def test_an_owner_pages_through_all_entries(short_code: str, versions: list[int]) -> None:
    """By link the oldest come first, by account the newest; a token leads on as long as there is more."""
    first, second = pages("ada", short_code)

    assert [entry.version for entry in (*first.entries, *second.entries)] == versions
    assert first.next_page_token
    assert second.next_page_token


def test_another_account_learns_nothing_of_a_link() -> None:
    """No entry, and no token either: it would tell that there are entries, when the last was made, and its event."""
    for page in pages("eve", "adas"):
        assert not page.entries
        assert page.next_page_token == ""
