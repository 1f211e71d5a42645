"""The bookkeeping of slots, against a model and by rule."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.domain.endpoints import EndpointId
from webhook.domain.lanes import LaneLimits, Lanes

A, B, C = EndpointId("a"), EndpointId("b"), EndpointId("c")
STEPS = st.lists(st.tuples(st.sampled_from(["wait", "take", "begin", "end"]), st.sampled_from([A, B, C])), max_size=80)


@pytest.mark.rule("H2")
@given(STEPS)
def test_bounds_hold_and_nothing_is_lost_or_overtakes_its_own_kind(steps: list[tuple[str, EndpointId]]) -> None:
    """Whatever the order of events: bounds in all and per endpoint hold, what was taken in comes out once, in order,
    and whenever something waits for a free slot, `take` gives something."""
    lanes: Lanes[tuple[EndpointId, int]] = Lanes(LaneLimits(4, 2, 6, 3))
    waiting: dict[EndpointId, list[int]] = defaultdict(list)
    active: Counter[EndpointId] = Counter()

    for number, (step, endpoint) in enumerate(steps):
        match step:
            case "wait":
                has_room = len(waiting[endpoint]) < 3 and sum(map(len, waiting.values())) < 6
                assert lanes.has_room(endpoint) is has_room
                assert lanes.wait(endpoint, (endpoint, number)) is has_room
                if has_room:
                    waiting[endpoint].append(number)
            case "take":
                may = active.total() < 4 and any(waiting[key] and active[key] < 2 for key in (A, B, C))
                item = lanes.take()
                assert (item is not None) is may
                if item is not None:
                    assert waiting[item[0]].pop(0) == item[1]
                    active[item[0]] += 1
            case "begin":
                may = active.total() < 4 and active[endpoint] < 2 and not waiting[endpoint]
                assert lanes.begin(endpoint) is may
                active[endpoint] += may
            case "end" if active[endpoint]:
                lanes.end(endpoint)
                active[endpoint] -= 1
        assert lanes.active_count == active.total()
        assert all(lanes.active_of(key) == active[key] <= 2 for key in (A, B, C))

    assert sorted(lanes.drain()) == sorted((key, number) for key, line in waiting.items() for number in line)
    assert lanes.take() is None


@pytest.mark.rule("H2")
def test_endpoints_take_turns() -> None:
    """Of one with much and one with little waiting, the second does not wait for the end of the first's line."""
    lanes: Lanes[str] = Lanes(LaneLimits(10, 10, 100, 100))
    for number in range(4):
        lanes.wait(A, f"a{number}")
    lanes.wait(B, "b0")

    assert [lanes.take() for _ in range(5)] == ["a0", "b0", "a1", "a2", "a3"]
