"""Updates, restores and history by link_service as it runs, on a real Redis and a real table."""

import asyncio

import pytest

from chassis.dynamodb import open_dynamodb
from chassis.errors import Aborted, FailedPrecondition, InvalidArgument, ServiceError, Unavailable
from contracts.link_codec import encode_event, timestamp
from contracts.link_rows import event_to_row, link_to_row
from contracts.tables import LINKS
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb
from tests.fakes.link_events import event_of, make_link
from tests.integration.link_service.running import Engines, Gateway, Play, ServiceProcess, until, works


async def update(caller: Gateway, code: str, *, if_version: int = 0, request_id: str = "", title: str) -> link_pb2.Link:
    """UpdateLink of the title."""
    request = pb.UpdateLinkRequest(
        principal=caller.principal, short_code=code, if_version=if_version, request_id=request_id, title=title
    )
    request.update_mask.paths.append("title")
    return (await caller.links.UpdateLink(request, timeout=5)).link


@pytest.mark.rule("R1", "P3")
def test_of_concurrent_updates_each_is_a_version_or_is_told_that_it_is_stale(play: Play) -> None:
    """R1: without If-Match all are applied, one after the other; with it exactly one; what is answered is what is."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        code = (await caller.create()).link.short_code
        async with asyncio.TaskGroup() as tasks:
            free = [tasks.create_task(update(caller, code, title=f"t{number}")) for number in range(8)]
        links = [task.result() for task in free]
        assert sorted(link.version for link in links) == list(range(2, 10))
        newest = max(links, key=lambda link: link.version)
        assert (await caller.resolve(code)).link == newest

        async def attempt(number: int) -> str:
            try:
                return (await update(caller, code, if_version=9, title=f"u{number}")).title
            except Aborted as exc:
                return exc.reason

        async with asyncio.TaskGroup() as tasks:
            bound = [tasks.create_task(attempt(number)) for number in range(8)]
        told = [task.result() for task in bound]

        assert told.count("version_conflict") == 7
        assert (await caller.resolve(code)).link.title in told

    play(scenario)


@pytest.mark.rule("P1", "I1", "P6")
def test_a_change_outlives_a_kill_and_is_not_made_twice(play: Play) -> None:
    """P1, P6: killed right behind the answer, the next process has the change, and knows the repeat as one."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        code = (await caller.create()).link.short_code
        first = await update(caller, code, request_id="u-1", title="One")
        await caller.delete(code)
        restore = pb.RestoreLinkRequest(principal=caller.principal, short_code=code, request_id="r-1")
        restored = (await caller.links.RestoreLink(restore, timeout=5)).link
        service.kill()
        await service.start()
        await until(works(lambda: caller.resolve(code)))

        assert (await caller.resolve(code)).link == restored
        assert restored.state == link_pb2.LINK_STATE_ACTIVE
        assert await update(caller, code, request_id="u-1", title="One") == first
        assert (await caller.links.RestoreLink(restore, timeout=5)).link == restored
        with pytest.raises(InvalidArgument):
            await update(caller, code, request_id="u-1", title="Two")
        assert (await caller.resolve(code)).link == restored

    play(scenario)


@pytest.mark.rule("R2", "R5", "W3")
def test_a_link_of_the_table_is_changed_and_looked_back_on(play: Play, engines: Engines) -> None:
    """R5: evicted from Redis, a link is changed on what the table has; history and time travel read its event rows."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        versions = [make_link("stored-1", version=version) for version in (1, 2, 3)]
        async with open_dynamodb(engines.dynamodb.endpoint) as db:
            await db.put_item(TableName=LINKS.name, Item=link_to_row(versions[-1]))
            for link in versions:
                event = event_of(link)
                await db.put_item(TableName=LINKS.name, Item=event_to_row(event, encode_event(event)))
        changed = await update(caller, "stored-1", if_version=3, title="New")
        assert changed.version == 4
        ask = pb.ListLinkEventsRequest(principal=caller.principal, short_code="stored-1", page_size=2)

        page = await caller.links.ListLinkEvents(ask, timeout=5)
        ask.page_token = page.next_page_token
        rest = await caller.links.ListLinkEvents(ask, timeout=5)

        assert [event.version for event in (*page.events, *rest.events)] == [1, 2, 3]
        assert rest.current_version == 4  # whose row is not there: nobody writes here
        await update(caller, "stored-1", title="Newer")
        at = pb.GetLinkAtRequest(principal=caller.principal, short_code="stored-1")
        for link in versions[:2]:
            at.at.CopyFrom(timestamp(link.updated_at))
            assert (await caller.links.GetLinkAt(at, timeout=5)).link.long_url == link.long_url
        at.at.CopyFrom(changed.updated_at)
        with pytest.raises(Unavailable):
            await caller.links.GetLinkAt(at, timeout=5)
        await caller.delete("stored-1")
        with pytest.raises(FailedPrecondition) as caught:
            await update(caller, "stored-1", title="Late")
        assert caught.value.reason == "state_conflict"

    play(scenario)


@pytest.mark.rule("P5", "R7")
def test_without_redis_nothing_is_changed_or_guessed(play: Play, engines: Engines) -> None:
    """Redis killed: changes and histories are 503, and afterwards the link is as it was."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        made = (await caller.create()).link
        await caller.resolve(made.short_code)
        engines.valkey.kill()
        ask = pb.ListLinkEventsRequest(principal=caller.principal, short_code=made.short_code)
        with pytest.raises(ServiceError) as refused:
            await update(caller, made.short_code, title="Lost")
        assert isinstance(refused.value, Unavailable)
        with pytest.raises(Unavailable):
            await caller.links.ListLinkEvents(ask, timeout=5)
        await engines.valkey.start()

        await until(works(lambda: caller.resolve(made.short_code)))
        assert (await caller.resolve(made.short_code)).link == made

    play(scenario)
