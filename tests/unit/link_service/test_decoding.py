"""From messages to values: what an idempotency key is compared by."""

import pytest

from chassis.auth import Principal
from link_service.handlers.decoding import repeatable_of
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.link.v1 import link_service_pb2 as pb


@pytest.mark.rule("I1", "P6")
def test_a_repeat_may_come_under_another_key_of_the_account() -> None:
    """I1 compares what is asked for, not who states it: a new key, scope or plan between two tries changes nothing."""

    def body_hash(long_url: str, plan: "key_pb.Plan.ValueType") -> str:
        principal = key_pb.Principal(user_id="ada", scopes=["links:write"], plan=plan)
        request = pb.CreateLinkRequest(principal=principal, request_id="r-1", long_url=long_url)
        return repeatable_of(request, Principal("ada", frozenset())).body_hash

    first = body_hash("https://example.com/", key_pb.PLAN_FREE)

    assert body_hash("https://example.com/", key_pb.PLAN_PREMIUM) == first
    assert body_hash("https://example.org/", key_pb.PLAN_FREE) != first
