"""The whole: stores, clients, relay and writer, and everything that can happen next.

A state is a tuple of small numbers: the stores, what an observer knows, calls that are late, what may still go wrong,
and for each process the node it stands at. Processes never stop by themselves; one that is not scheduled again has died
or hangs, which is the same to all others. What is bounded are steps that could otherwise come without end (`Left`).
"""

from collections.abc import Iterator
from typing import Any

from chassis.kafka.record import Done, Message, Rejected
from contracts.link import Link, LinkEvent
from link_service.ports import Held
from tests.model.actors import Cast, Found
from tests.model.automaton import Call, Ended, Fault, Program
from tests.model.bounds import Left, Suite
from tests.model.properties import Ghost, Rules, Violation
from tests.model.stage import (
    CLIENTS,
    GHOST,
    LATE,
    LEFT,
    LOG,
    OLD_RELAY,
    OLD_WRITER,
    REDIS,
    RELAY,
    TABLE,
    WRITER,
    Move,
    Stage,
    State,
    moved,
)
from tests.model.stores import LogState, RedisState, Stores

IDLE, GONE = -1, -2  # of a seat: has nothing in hand; will never do anything again
DAY = 24 * 60
_ROUTINE_MAX = 200  # steps of relay and writer; the longest way to their end is much shorter
LOG_MAX = 6  # records that wait for writer; more of them teach nothing new

_READS = frozenset(
    {"get", "seen", "now", "run_id", "oldest_in_outbox", "oldest_unwritten", "read", "has_event", "stored_event_ids",
     "read_links", "find", "lease"}
)  # fmt: skip
_CLOCKS = frozenset({"now", "run_id"})  # answers that change only when time passes or Redis is lost


class World(Stage):
    """All that can happen to one link."""

    def __init__(self, suite: Suite, *, stores: Stores | None = None, cast: Cast | None = None) -> None:
        begin, clients, left = suite.begin, suite.clients, suite.left
        rules = Rules(tuple(client.group for client in clients), lossy=suite.lossy)
        super().__init__(clients, stores or Stores(), rules)
        self.cast = cast or Cast()
        self._kafka = suite.kafka
        self._late_of = suite.late_of
        self._judged: dict[State, Violation | None] = {}
        self._restful: set[State] = set()
        self._relay = self.cast.relaying()
        self._writers: dict[LinkEvent, Program] = {}
        self._timeless = not (left.minutes or left.days)
        programs = [self.cast.client(client, number + 1) for number, client in enumerate(clients)]
        values = (begin.redis, begin.table, begin.log, Ghost(begin.acks, (0,) * len(clients)), (), left)
        ids = [pool.id_of(value) for pool, value in zip(self.pools, values, strict=True)]
        self.starts = [self.automata.start(program) for program in programs]
        self.first: State = (*ids, IDLE, IDLE, IDLE, IDLE, *self.starts)

    def moves(self, state: State) -> Iterator[Move]:
        """Every next state."""
        for seat in range(CLIENTS, len(state)):
            if state[seat] >= 0:
                yield from self._step(state, seat)
        yield from self.routine(state)
        yield from self._old_hands(state)
        yield from self._late_calls(state)
        yield from self._passing(state)

    def routine(self, state: State) -> Iterator[Move]:
        """What relay and writer do next, if nothing goes wrong; and what may go wrong with them."""
        if state[RELAY] >= 0:
            yield from self._step(state, RELAY)
        elif self._kafka and self.get(state, REDIS).outbox:
            yield from self._step(moved(state, RELAY, self.automata.start(self._relay)), RELAY)
        waiting = self.get(state, LOG).waiting
        if state[WRITER] >= 0:
            ended = self.automata.end_of[state[WRITER]]
            yield from self._step(state, WRITER) if ended is None else self._commit(state, ended)
        elif waiting:
            yield from self._step(moved(state, WRITER, self._write(waiting[0][0])), WRITER)

    def is_quiet(self, state: State) -> bool:
        """Whether relay and writer have nothing to do."""
        idle = state[WRITER] == IDLE and state[RELAY] == IDLE
        return self._kafka and idle and not self.get(state, REDIS).outbox and not self.get(state, LOG).waiting

    def judge(self, state: State) -> Violation | None:
        """What is wrong in a state."""
        quiet = self.is_quiet(state)
        name = (*state[: GHOST + 1], quiet)
        if name not in self._judged:
            redis, table, log, ghost = (self.get(state, place) for place in range(GHOST + 1))
            self._judged[name] = self.rules.of_state(redis, table, log, ghost, quiet=quiet)
        if self._judged[name] is None and self._kafka and not self._comes_to_rest(state):
            return Violation("P7", "relay and writer never come to an end")
        return self._judged[name]

    def _comes_to_rest(self, state: State) -> bool:
        """Whether relay and writer, when nothing goes wrong any more, have nothing left to do at last. The state they
        end in is judged like any other."""
        way: list[State] = []
        while not self.is_quiet(state) and len(way) < _ROUTINE_MAX:
            name = (state[REDIS], state[TABLE], state[LOG], state[WRITER], state[RELAY])
            if name in self._restful:
                break
            way.append(name)
            move = next(self.routine(state), None)
            if move is None:
                return False
            state = move.state
        self._restful.update(way)
        return len(way) < _ROUTINE_MAX

    def _write(self, event: LinkEvent) -> int:
        if event not in self._writers:
            self._writers[event] = self.cast.writing(event)
        return self.automata.start(self._writers[event])

    def _commit(self, state: State, ended: Ended) -> Iterator[Move]:
        """The runner takes note of a finished record."""
        log: LogState = self.get(state, LOG)
        (event, _), *rest = log.waiting
        (outcome,) = ended.value
        letters = (*log.letters, event) if isinstance(outcome, Rejected) else log.letters
        assert isinstance(outcome, Done | Rejected)
        after = self.put(moved(state, WRITER, IDLE), LOG, LogState(tuple(rest), letters))
        yield Move(after, "writer commits", event, outcome)

    def _old_hands(self, state: State) -> Iterator[Move]:
        """Processes that pause, lose their place to a successor, and go on."""
        left: Left = self.get(state, LEFT)
        for seat, old, word in ((WRITER, OLD_WRITER, "old_writers"), (RELAY, OLD_RELAY, "old_relays")):
            if state[old] >= 0:
                yield from self._step(state, old)
            elif state[seat] >= 0 and getattr(left, word):
                after = self.spend(moved(moved(state, old, state[seat]), seat, IDLE), word)
                yield Move(after, f"{_SEATS[seat]} pauses, a successor takes over")

    def _late_calls(self, state: State) -> Iterator[Move]:
        late: tuple[tuple[int, int, int], ...] = self.get(state, LATE)
        for place, (seat, number, token) in enumerate(late):
            after = self.put(state, LATE, late[:place] + late[place + 1 :])
            call: Call = self.automata.calls.items[number]
            if call.port == "sender":
                after, reply = self.sent(after, call.args[0]), None
            else:
                after, reply_id = self.ask(after, number, token)
                reply = self.automata.replies.items[reply_id]
            yield Move(after, f"late, of {self.name_of(seat)}", call, reply)

    def _passing(self, state: State) -> Iterator[Move]:
        """What time does."""
        redis: RedisState = self.get(state, REDIS)
        for key, link, expires in redis.values:
            if expires:
                kept = tuple(item for item in redis.values if item[0] != key)
                yield Move(self.put(state, REDIS, redis._replace(values=kept)), "expires", link)
        for key, token in redis.leases:
            kept_leases = tuple(item for item in redis.leases if item[0] != key)
            yield Move(self.put(state, REDIS, redis._replace(leases=kept_leases)), "lease ends", token)
        left: Left = self.get(state, LEFT)
        if left.minutes:
            later = redis._replace(minutes=redis.minutes + 1, leases=())
            yield Move(self.spend(self.put(state, REDIS, later), "minutes"), "a minute passes")
        if left.days:
            later = redis._replace(minutes=redis.minutes + DAY, leases=(), results=(), intents=())
            yield Move(self.spend(self.put(self._too_late(state), REDIS, later), "days"), "a day passes")

    def _too_late(self, state: State) -> State:
        """Nobody repeats a request after a day, and no call has lived on: what it has sent may yet arrive."""
        for seat, client in enumerate(self.clients, CLIENTS):
            if client.request and state[seat] >= 0:
                state = moved(state, seat, GONE)
        return state

    def _step(self, state: State, seat: int) -> Iterator[Move]:
        """What a process that waits for a reply may see next."""
        number = self.automata.call_of[state[seat]]
        if number < 0:
            return
        call: Call = self.automata.calls.items[number]
        if (
            seat >= CLIENTS
            and self.clients[seat - CLIENTS].does == "read"
            and state[seat] == self.starts[seat - CLIENTS]
        ):
            state = self.set_floor(state, seat)
        if call.port == "sender":
            yield from self._send(state, seat, call)
            return
        after, reply = self.ask(state, number, token := self._token(state, seat))
        if call.name == "seen":
            after = self.clear(after, seat)
        yield self._arrive(after, seat, call, reply)
        if isinstance(self.automata.replies.items[reply], Held) and self._sleeps(
            self.automata.advance(state[seat], reply)
        ):
            last = self.automata.outlast(state[seat], (reply, self.automata.replies.id_of(None)))
            yield self._stand(after, seat, last, call, "held, until it gives up")
        if self.get(state, LEFT).late and self._late_of in ("", call.name):
            yield from self._fail(state, seat, number, token)

    def _sleeps(self, node: int) -> bool:
        number = self.automata.call_of[node]
        return number >= 0 and self.automata.calls.items[number].port == "clock"

    def _fail(self, state: State, seat: int, number: int, token: int) -> Iterator[Move]:
        """The call is given up: never carried out, or later."""
        call: Call = self.automata.calls.items[number]
        state = self.spend(state, "late")
        away = self.automata.replies.id_of(Fault("unavailable"))
        unknown = self.automata.replies.id_of(Fault("outcome_unknown")) if call.name == "mutate" else away
        if call.name in _READS or call.name == "mutate":
            yield self._arrive(state, seat, call, away)
        if call.name not in _READS:
            late = (*self.get(state, LATE), (seat, number, token))
            yield self._arrive(self.put(state, LATE, late), seat, call, unknown)

    def _send(self, state: State, seat: int, call: Call) -> Iterator[Move]:
        """Messages that go out in order: all are acknowledged, or the fate of one is not known and no more is sent."""
        messages: tuple[Message, ...] = call.args[0]
        if len(self.get(state, LOG).waiting) + len(messages) > LOG_MAX:
            return
        everything = self.automata.replies.id_of(len(messages))
        yield self._arrive(self.sent(state, messages), seat, call, everything)
        if not self.get(state, LEFT).sends:
            return
        state = self.spend(state, "sends")
        for count, message in enumerate(messages):
            after, reply = self.sent(state, messages[:count]), self.automata.replies.id_of(count)
            yield self._arrive(self.sent(after, (message,)), seat, call, reply)
            number = self.automata.calls.id_of(Call("sender", "arrives", ((message,),)))
            late = (*self.get(after, LATE), (seat, number, 0))
            yield self._arrive(self.put(after, LATE, late), seat, call, reply)

    def _arrive(self, state: State, seat: int, call: Call, reply: int) -> Move:
        return self._stand(
            state, seat, self.automata.advance(state[seat], reply), call, self.automata.replies.items[reply]
        )

    def _stand(self, state: State, seat: int, node: int, call: Call, reply: Any) -> Move:
        """A process has come to a node; it goes on to the next call that others can notice."""
        while (waits := self.automata.call_of[node]) >= 0:
            next_call: Call = self.automata.calls.items[waits]
            if next_call.port == "clock":
                node = self.automata.advance(node, self.automata.replies.id_of(None))
            elif next_call.name in _CLOCKS and self._timeless:
                node = self.automata.advance(node, self.ask(state, waits, 0)[1])
            else:
                break
        ended = self.automata.end_of[node]
        violation = None
        if ended is None or (seat == WRITER and not ended.error):
            state = moved(state, seat, node)
        elif seat >= CLIENTS:
            state, violation = self._end(moved(state, seat, GONE), seat, ended)
        else:
            state = moved(state, seat, IDLE if seat in (WRITER, RELAY) else GONE)
        return Move(state, self.name_of(seat), call, (reply, ended), violation)

    def _end(self, state: State, seat: int, ended: Ended) -> tuple[State, Violation | None]:
        """A client has its answer."""
        client, ghost = self.clients[seat - CLIENTS], self.get(state, GHOST)
        if isinstance(ended.value, Found):
            return state, self.rules.of_look_up(ended.value, ghost.floors[seat - CLIENTS])
        if isinstance(ended.value, Link):
            acks = ghost.acks | {(client.group, ended.value)}
            return self.put(state, GHOST, ghost._replace(acks=acks)), None
        if not client.request and ended.reason != "outcome_unknown":
            return self.put(state, GHOST, ghost._replace(denied=ghost.denied | {client.group})), None
        if ended.error == "Unavailable" or seat in ghost.cleared:
            return state, None  # nothing was told, or rightly
        return state, self.rules.of_refusal(client.group, ended, self.applied(state))

    def _token(self, state: State, seat: int) -> int:
        """A number of a token that nobody else has, and no late call."""
        late: tuple[tuple[int, int, int], ...] = self.get(state, LATE)
        return 10 * seat + len(late)

    def name_of(self, seat: int) -> str:
        """Who sits there."""
        return _SEATS.get(seat) or self.clients[seat - CLIENTS].name


_SEATS = {WRITER: "writer", OLD_WRITER: "old writer", RELAY: "relay", OLD_RELAY: "old relay"}
