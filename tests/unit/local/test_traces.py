"""A trace as a tree to read."""

from linkmesh.local.traces import Hop, place


def span(span_id: str, parent: str, start: int, **more: object) -> dict[str, object]:
    return {"id": span_id, "parentId": parent, "timestamp": start, "duration": 10, "name": span_id} | more


def test_children_follow_their_parents_in_the_order_of_time() -> None:
    """Depth first, by begin, times relative to the first span; spans may arrive in any order."""
    spans = [span("c", "b", 1400), span("d", "a", 1100), span("b", "a", 1300), span("a", "", 1000)]

    hops = place(spans)

    assert [(hop.name, hop.depth, hop.after_ms) for hop in hops] == [
        ("a", 0, 0),
        ("d", 1, 0.1),
        ("b", 1, 0.3),
        ("c", 2, 0.4),
    ]


def test_an_orphan_is_shown_as_a_root() -> None:
    """A span whose parent was not kept is not lost."""
    assert [(hop.name, hop.depth) for hop in place([span("x", "gone", 5), span("a", "", 1)])] == [("a", 0), ("x", 0)]


def test_a_hop_tells_service_kind_and_error() -> None:
    """What the reader needs: where, what, how long, and whether it failed."""
    raw = span("a", "", 1000, kind="CLIENT", localEndpoint={"serviceName": "writer"}, tags={"error": "Unavailable"})

    assert place([raw]) == (Hop(0, "writer", "a", "CLIENT", 0.0, 0.01, "Unavailable"),)


def test_no_spans_no_hops() -> None:
    """A trace that was not sampled is empty, not an error."""
    assert place([]) == ()
