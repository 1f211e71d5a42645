"""The explorations by name: where each begins, who acts, and how often what may go wrong.

SMALL is for every day, LARGE by hand; docs/MODEL.md tells how many states they have.
"""

from tests.model.bounds import Begin, Left, Suite
from tests.model.events import EVE, KEY, Client, first_event, next_event, reservation_of
from tests.model.stores import LogState, RedisState, TableState

_FIRST = first_event()
_TITLED = next_event(_FIRST, does="update")  # its title is "before"
_GONE = next_event(_FIRST, does="delete")
_CLASH = next_event(_FIRST, does="update", number=2)

# ---------------------------------------------------------------- beginnings

STORED = Begin(table=TableState(rows=((KEY, 1, _FIRST),), meta=((KEY, _FIRST.link),)))
CACHED = STORED._replace(redis=RedisState(values=((KEY, _FIRST.link, True),)))
# In these two writer has not told Redis yet, so that the entry stays.
UNMARKED = STORED._replace(redis=RedisState(values=((KEY, _FIRST.link, False),)))
TITLED = Begin(
    redis=RedisState(values=((KEY, _TITLED.link, False),)),
    table=TableState(rows=((KEY, 1, _FIRST), (KEY, 2, _TITLED)), meta=((KEY, _TITLED.link),)),
)
DELETED = Begin(table=TableState(rows=((KEY, 1, _FIRST), (KEY, 2, _GONE)), meta=((KEY, _GONE.link),)))
# Redis has forgotten a create that was answered and is in the topic only.
FORGOTTEN = Begin(
    redis=RedisState(run=2),
    table=TableState(meta=((KEY, reservation_of(_FIRST)),)),
    log=LogState(waiting=((_FIRST, 0),)),
    acks=frozenset({("before", _FIRST.link)}),
)
# Redis has forgotten a delete that is in the table; an update was made on it, answered, and stands in the topic.
CLASHING = Begin(
    redis=RedisState(run=2, values=((KEY, _CLASH.link, False),)),
    table=DELETED.table,
    log=LogState(waiting=((_CLASH, 0),)),
    acks=frozenset({("before", _CLASH.link)}),
)

# ---------------------------------------------------------------- who acts

UPDATE, DELETE, READ = (Client(name=does, does=does) for does in ("update", "delete", "read"))
READ_2 = Client(name="read 2", does="read")
_RESTORE = Client(name="restore", does="restore")
CREATE = Client(name="create", does="create")
CUSTOM, CUSTOM_EVE = Client(name="ada", does="custom"), Client(name="eve", does="custom", user_id=EVE)


def again(does: str, *, times: int = 2, request: str = "again", if_version: int = 0) -> tuple[Client, ...]:
    """One request under an idempotency key, sent again while the first is under way."""
    return tuple(
        Client(name=f"{does} {number}", does=does, request=request, if_version=if_version)
        for number in range(1, times + 1)
    )


_NEEDLESS = again("update", request="before")  # the title is that already

_TOO_EARLY = (*again("update", if_version=2), UPDATE)
_MINUTE, _NEXT_DAY = Left(minutes=1), Left(days=1, late=1)

SMALL = (
    Suite(name="absent", begin=STORED, clients=(UPDATE, DELETE, READ)),
    Suite(name="readers", begin=STORED, clients=(DELETE, READ, READ_2)),
    Suite(name="late call", begin=STORED, clients=(UPDATE, READ), left=Left(late=1)),
    Suite(name="late change", begin=CACHED, clients=(UPDATE, DELETE), left=Left(late=1)),
    Suite(name="old writer", begin=CACHED, clients=(UPDATE, DELETE), left=Left(old_writers=1)),
    Suite(name="old relay", begin=CACHED, clients=(UPDATE, DELETE), left=Left(old_relays=1)),
    Suite(name="lost send", begin=CACHED, clients=(UPDATE, DELETE), left=Left(sends=1)),
    Suite(name="generated", clients=(CREATE, DELETE, READ)),
    Suite(name="away", clients=(CREATE, READ), left=Left(late=1)),
    Suite(name="generated again", clients=again("create"), left=_MINUTE),
    Suite(name="custom", clients=(CUSTOM, CUSTOM_EVE)),
    Suite(name="custom again", clients=again("custom"), left=_MINUTE, kafka=False),
    Suite(name="deleted again", begin=STORED, clients=(*again("delete"), UPDATE)),
    Suite(name="stale", begin=CACHED, clients=again("update", if_version=1), left=_MINUTE, kafka=False),
    Suite(
        name="too early", begin=UNMARKED, clients=(*again("update", if_version=2), UPDATE), left=_MINUTE, kafka=False
    ),
    Suite(name="needless", begin=TITLED, clients=(*_NEEDLESS, UPDATE), left=_MINUTE, kafka=False),
    Suite(name="given up", begin=UNMARKED, clients=(*again("update", times=3, if_version=2), UPDATE), kafka=False),
    Suite(name="next day", clients=(*again("create"), DELETE), left=_NEXT_DAY, late_of="mutate"),
    Suite(name="restored", begin=DELETED, clients=(_RESTORE, UPDATE, READ)),
    Suite(name="forgotten", begin=FORGOTTEN, clients=(CUSTOM, CUSTOM_EVE), lossy=True),
    Suite(name="clash", begin=CLASHING, clients=(UPDATE,), lossy=True),
)

LARGE = (
    Suite(name="pipeline", begin=CACHED, clients=(UPDATE, DELETE), left=Left(old_writers=1, old_relays=1, sends=1)),
    Suite(name="absent, old writer", begin=STORED, clients=(UPDATE, DELETE, READ), left=Left(old_writers=1)),
    Suite(name="absent, late call", begin=STORED, clients=(UPDATE, READ, READ_2), left=Left(late=1)),
    Suite(name="two late calls", begin=CACHED, clients=(UPDATE, DELETE), left=Left(late=2)),
    Suite(name="generated, late call", clients=(CREATE, UPDATE, DELETE), left=Left(late=1)),
    Suite(name="custom, late call", clients=(CUSTOM, CUSTOM_EVE), left=Left(late=1)),
    Suite(name="custom, again and another", clients=(*again("custom"), CUSTOM_EVE), kafka=False),
    Suite(name="deleted again, late call", begin=STORED, clients=again("delete"), left=Left(late=1, minutes=1)),
    Suite(name="stale, third party", begin=CACHED, clients=(*again("update", if_version=1), UPDATE), left=_MINUTE),
    Suite(name="next day, a change", begin=UNMARKED, clients=(*again("update"), DELETE), left=_NEXT_DAY, kafka=False),
    Suite(name="restored, late call", begin=DELETED, clients=(_RESTORE, UPDATE, READ), left=Left(late=1)),
    Suite(name="forgotten, late call", begin=FORGOTTEN, clients=(CUSTOM, CUSTOM_EVE), left=Left(late=1), lossy=True),
)
