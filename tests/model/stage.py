"""What a state is, and how the stores in it are asked and changed."""

from typing import Any, NamedTuple

from chassis.kafka.record import Message
from contracts.link import LinkEvent
from contracts.link_codec import decode_event
from tests.model.automaton import Automata, Call, Pool
from tests.model.bounds import Left
from tests.model.events import Client
from tests.model.properties import Applied, Ghost, Rules, Violation, applied
from tests.model.stores import RedisState, Stores

State = tuple[int, ...]
REDIS, TABLE, LOG, GHOST, LATE, LEFT, WRITER, OLD_WRITER, RELAY, OLD_RELAY, CLIENTS = range(11)


_STORE_OF = {"cache": REDIS, "intents": REDIS, "server": REDIS, "outbox": REDIS, "marker": REDIS,
             "table": TABLE, "rows": TABLE, "log": LOG}  # fmt: skip


class Move(NamedTuple):
    """A next state, who did what to get there, and what is wrong with it if that shows in the step alone."""

    state: State
    who: str
    call: Any = None
    reply: Any = None
    violation: Violation | None = None


class Stage:
    """Values by number: those of each store, and what a state holds beside them."""

    def __init__(self, clients: tuple[Client, ...], stores: Stores, rules: Rules) -> None:
        self.clients = clients
        self.stores = stores
        self.rules = rules
        self.automata = Automata()
        self.pools = [Pool() for _ in range(LEFT + 1)]
        self.redis_pairs: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._table_pairs: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def states_of_redis(self) -> list[RedisState]:
        """By number, as in `redis_pairs`."""
        return self.pools[REDIS].items

    def get(self, state: State, place: int) -> Any:
        """The value at a place."""
        return self.pools[place].items[state[place]]

    def put(self, state: State, place: int, value: Any) -> State:
        """The state with another value there."""
        return moved(state, place, self.pools[place].id_of(value))

    def spend(self, state: State, word: str) -> State:
        """The state in which this may happen once less."""
        left: Left = self.get(state, LEFT)
        return self.put(state, LEFT, left._replace(**{word: getattr(left, word) - 1}))

    def ask(self, state: State, number: int, token: int) -> tuple[State, int]:
        """A store carries out a call; the number of its reply."""
        call: Call = self.automata.calls.items[number]
        place = _STORE_OF[call.port]
        if place == REDIS:
            pair = (state[REDIS], number, token if call.name == "lease" else 0)
            if pair not in self.redis_pairs:
                after, reply = self.stores.on_redis(self.get(state, REDIS), call, token)
                self.redis_pairs[pair] = self.pools[REDIS].id_of(after), self.automata.replies.id_of(reply)
            found = self.redis_pairs[pair]
        elif place == TABLE:
            name = (state[TABLE], number)
            if name not in self._table_pairs:
                rows, reply = self.stores.on_table(self.get(state, TABLE), call)
                self._table_pairs[name] = self.pools[TABLE].id_of(rows), self.automata.replies.id_of(reply)
            found = self._table_pairs[name]
        else:
            return state, self.automata.replies.id_of(self.stores.on_log(self.get(state, LOG), call))
        return moved(state, place, found[0]), found[1]

    def sent(self, state: State, messages: tuple[Message, ...]) -> State:
        """The state in which these messages have arrived."""
        log, minutes = self.get(state, LOG), self.get(state, REDIS).minutes
        arrived = tuple((event_in(message), minutes) for message in messages)
        return self.put(state, LOG, log._replace(waiting=log.waiting + arrived))

    def applied(self, state: State) -> Applied:
        """All events there are."""
        return applied(self.get(state, REDIS), self.get(state, TABLE), self.get(state, LOG))

    def set_floor(self, state: State, seat: int) -> State:
        """A look-up begins: it may not be told less than what was acknowledged by now."""
        ghost: Ghost = self.get(state, GHOST)
        floors = list(ghost.floors)
        floors[seat - CLIENTS] = ghost.newest
        return self.put(state, GHOST, ghost._replace(floors=tuple(floors)))

    def clear(self, state: State, seat: int) -> State:
        """Somebody has asked whether its request was applied; if it was not, it may be refused."""
        ghost: Ghost = self.get(state, GHOST)
        group, cleared = self.clients[seat - CLIENTS].group, ghost.cleared | {seat}
        if self.rules.came_of(group, self.applied(state)):
            cleared -= {seat}
        return self.put(state, GHOST, ghost._replace(cleared=cleared))


def moved(state: State, place: int, number: int) -> State:
    """The state with another number at a place."""
    return (*state[:place], number, *state[place + 1 :])


_decoded: dict[Message, LinkEvent] = {}


def event_in(message: Message) -> LinkEvent:
    """The event of a message on its way to the topic."""
    if message not in _decoded:
        headers = dict(message.headers)
        _decoded[message] = decode_event(headers["ce_type"].decode(), message.value)
    return _decoded[message]
