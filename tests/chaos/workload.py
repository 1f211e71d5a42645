"""Clients that make, change, end, restore and follow links without pause, and write down what they were told.

Half of them belong to one account and half to the other, half go through one gateway and half through the other. Two
clients of an account share its links, so that changes race; chosen codes come from a short list, so that accounts do.
"""

import asyncio
import contextlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from tests.chaos.batches import DEFINITE, PATH, Batch, body_of, create, outcome_of
from tests.chaos.history import History, Kind, Operation, Outcome

TIMEOUT_S = 5.0
USERS = ("ada", "bob")
_TRIES_MAX = 6
_LINKS_MAX = 400  # of an account, that are still worked on
_BATCH_MAX = 6  # links of one request
_CONTESTED = 40  # chosen codes of one minute, wanted by both accounts
_NOT_SENT = (aiohttp.ClientConnectorError,)
# What a client does next, by weight.
_PLAN = {
    "create": 24, "batch": 4, "choose": 8, "update": 20, "delete": 8, "restore": 5, "trespass": 3, "follow": 20,
    "read": 6,
}  # fmt: skip


@dataclass(slots=True)
class Known:
    """A link as its account's clients believe it to be."""

    code: str
    version: int
    deleted: bool = False


@dataclass
class Account:
    """Whose links they are."""

    user: str
    api_key: str
    links: list[Known] = field(default_factory=list)

    def add(self, link: Known) -> None:
        """Remember a link; the oldest is left alone from then on."""
        self.links.append(link)
        if len(self.links) > _LINKS_MAX:
            self.links.pop(0)


@dataclass
class Load:
    """What all clients share. `pause_s` is what a client waits between two operations, `wanted` ends them."""

    history: History
    accounts: tuple[Account, Account]
    gateways: tuple[str, str]
    seed: int
    pause_s: float = 0.35
    pressed: bool = False  # no pauses: something is about to be broken
    over: asyncio.Event = field(default_factory=asyncio.Event)
    serial: int = 0
    started_at: float = 0.0

    def mark(self) -> str:
        """What no other operation writes."""
        self.serial += 1
        return f"m{self.serial}"


class Client:
    """One person at work, one operation at a time."""

    def __init__(self, load: Load, number: int, http: aiohttp.ClientSession) -> None:
        self._load = load
        self._http = http
        self._random = random.Random(f"{load.seed}/{number}")
        self._gateway = number % 2
        self._account = load.accounts[number // 2 % 2]
        self._other = load.accounts[1 - number // 2 % 2]

    async def run(self) -> None:
        """Works until the load is over."""
        while not self._load.over.is_set():
            await self._next()
            pause_s = 0.02 if self._load.pressed else self._load.pause_s * self._random.uniform(0.5, 1.5)
            await asyncio.sleep(pause_s)

    async def _next(self) -> None:
        what = self._random.choices(list(_PLAN), list(_PLAN.values()))[0]
        link = self._random.choice(self._account.links) if self._account.links else None
        if what == "choose":
            await self._create(self._contested())
        elif what == "batch":
            await self._create_batch()
        elif what == "create" or link is None:
            await self._create("")
        elif what == "trespass":
            if self._other.links:
                await self._trespass(self._random.choice(self._other.links))
        else:
            await {
                "update": self._update, "delete": self._delete, "restore": self._restore,
                "follow": self._follow, "read": self._read,
            }[what](link)  # fmt: skip

    async def _create(self, custom_code: str) -> None:
        mark = self._load.mark()
        one = self._operation(Kind.CREATE, custom_code, mark=mark, url=self._url(mark))
        body = {"long_url": one.url, "title": mark} | ({"custom_code": custom_code} if custom_code else {})
        told = await self._change(one, "POST", "/api/links", body)
        if one.outcome is Outcome.DONE:
            one.code, one.version = str(told.get("short_code", "")), int(str(told.get("version", 0)))
            if told.get("user_id") != one.user or told.get("long_url") != one.url:
                one.complaint = f"answered with a link of {told.get('user_id')} to {told.get('long_url')}"
            self._account.add(Known(one.code, one.version))

    async def _create_batch(self) -> None:
        """Some links at once, a chosen code among them now and then; again as a whole under one key, if it has one."""
        key = f"k{self._load.seed}-{self._load.mark()}" if self._random.random() < 0.5 else ""
        items = [
            create(
                self._account.user, self._gateway, mark=mark, url=self._url(mark), key=key,
                code=self._contested() if self._random.random() < 0.2 else "",
            )
            for mark in (self._load.mark() for _ in range(self._random.randint(2, _BATCH_MAX)))
        ]  # fmt: skip
        batch = Batch(items, Operation(Kind.CREATE, self._account.user, self._gateway, key=key))
        body = body_of(items)
        with contextlib.ExitStack() as under_way:
            for one in items:
                under_way.enter_context(self._load.history.under_way(one))
            for tries in range(1, (_TRIES_MAX if key else 1) + 1):
                batch.call.tries = tries
                batch.note(await self._ask(batch.call, "POST", PATH, body))
                if batch.is_settled:
                    break
                await asyncio.sleep(self._random.uniform(0.2, 1.0) if key else 0)
        for one in items:
            if one.outcome is Outcome.DONE:
                self._account.add(Known(one.code, one.version))
        if key and all(one.outcome is Outcome.DONE for one in items) and self._random.random() < 0.2:
            batch.note(await self._ask(batch.call, "POST", PATH, body))

    def _contested(self) -> str:
        """A code of this minute that both accounts want."""
        minute = int((asyncio.get_running_loop().time() - self._load.started_at) / 60)
        return f"name-{minute}-{self._random.randrange(_CONTESTED)}"

    async def _update(self, link: Known) -> None:
        mark = self._load.mark()
        url = self._url(mark) if self._random.random() < 0.7 else ""
        if_version = link.version if self._random.random() < 0.3 else 0
        one = self._operation(Kind.UPDATE, link.code, mark=mark, url=url, if_version=if_version)
        body = {"title": mark} | ({"long_url": url} if url else {})
        told = await self._change(one, "PATCH", f"/api/links/{link.code}", body)
        if one.outcome is Outcome.DONE:
            one.version = link.version = int(str(told.get("version", 0)))
        elif one.status == 409:
            link.deleted = True

    async def _delete(self, link: Known) -> None:
        one = self._operation(Kind.DELETE, link.code)
        await self._change(one, "DELETE", f"/api/links/{link.code}", None)
        if one.outcome is Outcome.DONE:
            link.deleted = True
            if self._random.random() < 0.7:
                await self._follow(link)

    async def _restore(self, link: Known) -> None:
        one = self._operation(Kind.RESTORE, link.code)
        told = await self._change(one, "POST", f"/api/links/{link.code}:restore", None)
        if one.outcome is Outcome.DONE:
            one.version = link.version = int(str(told.get("version", 0)))
            link.deleted = False

    async def _trespass(self, link: Known) -> None:
        """A change of somebody else's link, which must be told that there is none."""
        mark = self._load.mark()
        kind = self._random.choice((Kind.UPDATE, Kind.DELETE, Kind.READ))
        one = self._operation(kind, link.code, mark=mark if kind is Kind.UPDATE else "", url="")
        method = {Kind.UPDATE: "PATCH", Kind.DELETE: "DELETE", Kind.READ: "GET"}[kind]
        path, body = f"/api/links/{link.code}", {"title": mark} if kind is Kind.UPDATE else None
        if kind is Kind.READ:
            await self._read(link)
            return
        await self._change(one, method, path, body)
        if one.outcome is Outcome.DONE:
            one.complaint = "a stranger's change was acknowledged"

    async def _follow(self, link: Known) -> None:
        one = self._operation(Kind.FOLLOW, link.code)
        with self._load.history.under_way(one):
            answer = await self._ask(one, "GET", f"/{link.code}", None)
            if answer is not None and one.status not in (502, 503, 504):
                one.outcome = Outcome.DONE

    async def _read(self, link: Known) -> None:
        one = self._operation(Kind.READ, link.code)
        with self._load.history.under_way(one):
            told = await self._ask(one, "GET", f"/api/links/{link.code}", None)
            if told is not None and one.status in (200, 404):
                one.outcome = Outcome.DONE
                one.version, one.told = int(str(told.get("version", 0))), str(told.get("title", ""))

    async def _change(self, one: Operation, method: str, path: str, body: dict[str, str] | None) -> dict[str, object]:
        """Sends a mutation; again under its idempotency key, if it has one, until something definite is told."""
        if self._random.random() < 0.5:
            one.key = f"k{self._load.seed}-{self._load.mark()}"
        told: dict[str, object] = {}
        with self._load.history.under_way(one):
            uncertain = False
            for tries in range(1, (_TRIES_MAX if one.key else 1) + 1):
                one.tries = tries
                told = await self._ask(one, method, path, body) or {}
                one.outcome = outcome_of(one)
                uncertain = uncertain or one.outcome is Outcome.UNKNOWN
                if one.outcome is Outcome.DONE or one.status in DEFINITE:
                    break
                if uncertain:
                    one.outcome = Outcome.UNKNOWN
                await asyncio.sleep(self._random.uniform(0.2, 1.0) if one.key else 0)
        if one.key and one.outcome is Outcome.DONE and self._random.random() < 0.2:
            await self._again(one, method, path, body, told)
        return told

    async def _again(
        self, one: Operation, method: str, path: str, body: dict[str, str] | None, told: dict[str, object]
    ) -> None:
        """The same request under its key once more: the same answer, or none."""
        copy = Operation(one.kind, one.user, one.gateway, if_version=one.if_version, key=one.key)
        again = await self._ask(copy, method, path, body)
        if again is None or copy.status in (503, 504):
            return
        if copy.status != one.status or again != told:
            differing = {name for name in {*told, *again} if told.get(name) != again.get(name)}
            one.complaint = f"repeated under its key, {copy.status} {copy.reason}, other: {sorted(differing)}"

    async def _ask(
        self, one: Operation, method: str, path: str, body: Mapping[str, object] | None
    ) -> dict[str, object] | None:
        """One request; None: no answer came."""
        headers = {"authorization": f"Bearer {self._account.api_key}"}
        if path.startswith("/api/"):
            headers |= {"idempotency-key": one.key} if one.key else {}
            headers |= {"if-match": f'"{one.if_version}"'} if one.if_version else {}
        else:
            headers = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}
        one.status, one.reason = 0, ""
        url = self._load.gateways[self._gateway] + path
        try:
            async with self._http.request(method, url, json=body, headers=headers, allow_redirects=False) as answer:
                told = await answer.json(content_type=None) if answer.content_type.endswith("json") else {}
                one.status, one.told = answer.status, answer.headers.get("location", "")
        except _NOT_SENT as error:
            # The library repeats a DELETE by itself when a kept connection breaks: what is refused may be its repeat.
            how = "lost" if method == "DELETE" else "not sent"
            one.reason = f"{how}: {type(error).__name__}"
            return None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            one.reason = type(error).__name__
            return None
        if answer.status >= 400:
            one.reason = str(told.get("code", ""))
        if answer.status == 500:
            one.complaint = f"answered 500 {told}"
        return dict(told)

    def _operation(self, kind: Kind, code: str, *, mark: str = "", url: str = "", if_version: int = 0) -> Operation:
        return Operation(kind, self._account.user, self._gateway, code, mark=mark, url=url, if_version=if_version)

    def _url(self, mark: str) -> str:
        return f"https://example.org/{self._load.seed}/{mark}"
