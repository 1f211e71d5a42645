"""Coroutines as automata: the product's own code, taken apart at every call of a port.

A coroutine whose ports are `Remote` stops at each call of theirs. What it does next depends on the replies alone, so
the replies so far *are* its state: any state is reached again by running the coroutine anew with these replies. Two
such histories that left the same frames behind (code, place, variables) are one node, so that loops come to an end.

Assumed, and checked by `Automata.doubtful_merges`: nothing that matters is kept outside of the variables of the frames
and of what `Program.hidden` tells. Not looked at are variables named `_`, which count the rounds of a loop: that a loop
gives up after so many rounds is found by `outlast` alone.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, NamedTuple

from chassis.errors import ServiceError, Unavailable

Work = Coroutine[Any, Any, Any]


class Call(NamedTuple):
    """A call of a port that waits for its reply."""

    port: str
    name: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()


class Fault(NamedTuple):
    """A reply that is not one: Unavailable for this reason."""

    reason: str

    def error(self) -> Unavailable:
        """What the caller sees."""
        return Unavailable(self.reason, "Nobody answers.", retry_after_s=1)


@dataclass(frozen=True)
class Ended:
    """How a coroutine ended: by a value, or by an error of this kind and reason."""

    value: Any = None
    error: str = ""
    reason: str = ""


class _Asked(Awaitable[Any]):
    def __init__(self, call: Call) -> None:
        self.call = call

    def __await__(self) -> Generator[Call, Any, Any]:
        return (yield self.call)


class Remote:
    """A port: every method of it asks and waits."""

    def __init__(self, port: str) -> None:
        self._port = port

    def ask(self, name: str, *args: object, **kwargs: object) -> _Asked:
        """Asks for this method."""
        named = tuple(sorted((key, frozen(value)) for key, value in kwargs.items()))
        return _Asked(Call(self._port, name, tuple(frozen(item) for item in args), named))

    def __getattr__(self, name: str) -> Callable[..., _Asked]:
        return partial(self.ask, name)


@dataclass(frozen=True, eq=False)
class Program:
    """A coroutine that can be begun again and again, each time alike. `hidden`: its state outside of its frames."""

    name: str
    begin: Callable[[], Work]
    hidden: Callable[[], Hashable] = tuple


class Pool:
    """Gives each distinct item a small number, the same one whenever it is met."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._ids: dict[Any, int] = {}

    def id_of(self, item: Hashable) -> int:
        """The number of an item; True is not 1."""
        key = (type(item), item)
        number = self._ids.get(key)
        if number is None:
            number = self._ids[key] = len(self.items)
            self.items.append(item)
        return number


More = Callable[[int, Call], int | None]  # the reply to a call that comes after so many replies; None: none


class _Node(NamedTuple):
    program: Program
    replies: tuple[int, ...]


class Automata:
    """The nodes of all programs, found as they are reached. Calls and replies are numbers in `calls` and `replies`."""

    def __init__(self) -> None:
        self.calls = Pool()
        self.replies = Pool()
        self.call_of: list[int] = []  # by node: the call it waits in, -1 when it has ended
        self.end_of: list[Ended | None] = []
        self.doubtful_merges = 0  # nodes that were reached in two ways, and asked for different things
        self._nodes: list[_Node] = []
        self._other_ways: dict[int, _Node] = {}
        self._known: dict[Hashable, int] = {}
        self._next: dict[tuple[int, int], int] = {}
        self._outlasted: dict[tuple[int, ...], int] = {}
        self._starts: dict[Program, int] = {}

    def start(self, program: Program) -> int:
        """The node in which a program waits for its first reply."""
        if program not in self._starts:
            self._starts[program] = self._node(program, ())
        return self._starts[program]

    def advance(self, node: int, reply: int) -> int:
        """Where a node is after a reply."""
        found = self._next.get((node, reply))
        if found is None:
            program, replies = self._nodes[node]
            found = self._next[node, reply] = self._node(program, (*replies, reply))
            other = self._other_ways.get(node)
            if other is not None and self._node(other.program, (*other.replies, reply)) != found:
                self.doubtful_merges += 1
        return found

    def outlast(self, node: int, rounds: Sequence[int]) -> int:
        """Where a node is at last when these replies come again and again, until it asks for something else."""
        found = self._outlasted.get((node, *rounds))
        if found is None:
            program, before = self._nodes[node]
            places, at = [self.call_of[node]], node
            for reply in rounds[:-1]:
                at = self.advance(at, reply)
                places.append(self.call_of[at])

            def more(count: int, call: Call) -> int | None:
                turn = (count - len(before)) % len(rounds)
                return rounds[turn] if self.calls.id_of(call) == places[turn] else None

            found = self._outlasted[(node, *rounds)] = self._node(program, before, more)
        return found

    def replies_of(self, node: int) -> tuple[int, ...]:
        """One way to this node."""
        return self._nodes[node].replies

    def _node(self, program: Program, replies: tuple[int, ...], more: More | None = None) -> int:
        call, end, mark, replies = self._run(program, replies, more)
        node = self._known.get(mark)
        if node is None:
            node = self._known[mark] = len(self._nodes)
            self._nodes.append(_Node(program, replies))
            self.call_of.append(-1 if call is None else self.calls.id_of(call))
            self.end_of.append(end)
        elif self._nodes[node].replies != replies:
            self._other_ways.setdefault(node, _Node(program, replies))
            self.doubtful_merges += call is not None and self.calls.id_of(call) != self.call_of[node]
        return node

    def _run(
        self, program: Program, replies: tuple[int, ...], more: More | None
    ) -> tuple[Call | None, Ended | None, Hashable, tuple[int, ...]]:
        work, fault, taken = program.begin(), Fault(""), 0
        try:
            call: Call = work.send(None)
            while True:
                if taken == len(replies):
                    further = more(taken, call) if more else None
                    if further is None:
                        break
                    replies = (*replies, further)
                reply = self.replies.items[replies[taken]]
                taken += 1
                fault = reply if isinstance(reply, Fault) else fault
                call = work.throw(reply.error()) if isinstance(reply, Fault) else work.send(reply)
        except StopIteration as stop:
            end = Ended(frozen(stop.value))
        except ServiceError as error:
            end = Ended(None, type(error).__name__, error.reason)
        else:
            last = replies[-1] if replies else -1  # an expression may hold it that awaits twice
            mark = (program.name, fault, last, program.hidden(), tuple(_frames(work)))
            work.close()
            return call, None, mark, replies
        return None, end, (program.name, end), replies


def _frames(work: Work) -> Iterable[Hashable]:
    """Where a coroutine stands, from the outermost frame to the one that asks."""
    at: Any = work
    while inspect.iscoroutine(at):
        frame: Any = at.cr_frame
        yield at.cr_code.co_qualname, frame.f_lasti, _variables(frame)
        at = at.cr_await


def _variables(frame: Any) -> Hashable:
    return tuple(sorted((name, _mark_of(value)) for name, value in frame.f_locals.items() if name != "_"))


def frozen(value: Any) -> Any:
    """A value as it can be kept for ever: lists become tuples, mappings tuples of pairs."""
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return Pairs(tuple(sorted((key, frozen(item)) for key, item in value.items())))
    return value


def _generator_mark(generator: Any) -> Hashable:
    """Where the generator behind an `async with` stands."""
    frame: Any = generator.ag_frame
    if frame is None:
        return None
    inner = tuple(_frames(generator.ag_await)) if inspect.iscoroutine(generator.ag_await) else None
    return generator.ag_code.co_qualname, frame.f_lasti, _variables(frame), inner


class Pairs(NamedTuple):
    """What was a mapping."""

    items: tuple[tuple[Any, Any], ...]


class _Mark(NamedTuple):
    """A value as part of a fingerprint; sorts beside any other by name alone."""

    value: Hashable

    def __lt__(self, other: object) -> bool:
        return False


def _mark_of(value: Any) -> _Mark:
    if isinstance(value, list | tuple):
        return _Mark((type(value), *(_mark_of(item) for item in value)))
    if isinstance(value, dict):
        return _Mark(frozenset((key, _mark_of(item)) for key, item in value.items()))
    if isinstance(value, set):
        return _Mark(frozenset(value))
    if isinstance(value, BaseException):
        return _Mark((type(value), str(value)))
    if inspect.iscoroutine(value) or inspect.istraceback(value):
        return _Mark(None)  # the frames themselves are looked at
    if isinstance(value, AbstractAsyncContextManager) and inspect.isasyncgen(inner := getattr(value, "gen", None)):
        return _Mark(_generator_mark(inner))
    if is_dataclass(value) and type(value).__hash__ is None:
        return _Mark((type(value), *(_mark_of(getattr(value, item.name)) for item in fields(value))))
    return _Mark((type(value), value))
