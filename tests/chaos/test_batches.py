"""What clients of a batch write down for what they were told."""

from collections.abc import Mapping, Sequence

from tests.chaos.batches import Batch, create
from tests.chaos.history import Kind, Operation, Outcome


def batch_of(count: int, *, code: str = "") -> Batch:
    """A batch that was sent and not answered yet; the first may have a chosen code."""
    items = [
        create("ada", 0, mark=f"m{n}", url=f"https://e.example/{n}", code="" if n else code, key="k")
        for n in range(count)
    ]
    return Batch(items, Operation(Kind.CREATE, "ada", 0, key="k"))


def made(number: int, code: str, **other: object) -> Mapping[str, object]:
    """A link."""
    link = {"short_code": code, "user_id": "ada", "long_url": f"https://e.example/{number}", "version": 1}
    return {"link": link | other}


def problem(status: int, code: str) -> Mapping[str, object]:
    """No link."""
    return {"problem": {"status": status, "code": code}}


def tell(batch: Batch, *results: Mapping[str, object]) -> None:
    """An answer."""
    batch.call.status = 200
    batch.note({"results": list(results)})


def outcomes(batch: Batch) -> Sequence[Outcome]:
    """What is known of each."""
    return [one.outcome for one in batch.items]


def test_each_is_told_alone() -> None:
    """Made, refused for good, refused for now, unknown: side by side in one answer."""
    batch = batch_of(4)
    tell(batch, made(0, "a"), problem(422, "x"), problem(503, "unavailable"), problem(503, "outcome_unknown"))

    assert outcomes(batch) == [Outcome.DONE, Outcome.REFUSED, Outcome.REFUSED, Outcome.UNKNOWN]
    assert [one.code for one in batch.items] == ["a", "", "", ""]
    assert not batch.is_settled


def test_what_was_uncertain_once_is_certain_by_a_definite_answer_only() -> None:
    """An answer that got lost may have made all of them; 503 afterwards does not say that it did not."""
    batch = batch_of(3)
    batch.call.status, batch.call.reason = 0, "ServerDisconnectedError"
    batch.note(None)
    assert outcomes(batch) == [Outcome.UNKNOWN] * 3

    tell(batch, made(0, "a"), problem(503, "unavailable"), problem(409, "custom_code_taken"))

    assert outcomes(batch) == [Outcome.DONE, Outcome.UNKNOWN, Outcome.REFUSED]


def test_a_request_that_was_never_sent_made_nothing() -> None:
    """Nor did one that was refused as a whole."""
    batch = batch_of(2)
    batch.call.status, batch.call.reason = 0, "not sent: ClientConnectorError"
    batch.note(None)
    assert outcomes(batch) == [Outcome.REFUSED] * 2

    batch.call.status, batch.call.reason = 503, "unavailable"
    batch.note({})
    assert outcomes(batch) == [Outcome.REFUSED] * 2


def test_what_cannot_be_is_a_complaint() -> None:
    """Another link for a repeat, somebody else's, another code than the chosen one, results that are missing, a 500."""
    repeated, strange, chosen = batch_of(1), batch_of(1), batch_of(1, code="mine")
    short, failed = batch_of(2), batch_of(1)
    tell(repeated, made(0, "a"))
    tell(repeated, made(0, "b"))
    tell(strange, made(0, "a", user_id="eve"))
    tell(chosen, made(0, "a"))
    tell(short, made(0, "a"))
    tell(failed, problem(500, "internal"))

    assert all(batch.items[0].complaint for batch in (repeated, strange, chosen, short, failed))
    assert repeated.items[0].code == "a"
    assert outcomes(short) == [Outcome.UNKNOWN] * 2
