"""Sends webhooks over HTTP, to public addresses only.

The guard looks at the address of each connection as it is made, after the name was resolved: so neither a name that
resolves to a private address nor one that changes in between gets through (the classic way to reach a cloud's metadata
service through a webhook). No redirects, no proxy from the environment, nothing unpacked, 64 KiB of the answer read.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from contracts.addresses import is_public_address
from webhook.domain.deliveries import Answer

logger = logging.getLogger(__name__)
_ANSWER_BYTES_MAX = 64 << 10
_BODY_S = 2.0  # for the body behind a status
_KEEP_ALIVE_S = 4.0  # below the 5 s after which common servers close an idle connection themselves
_NAME_THREADS = 64  # a name server that hangs holds one for its 5 attempts; the loop's own pool has a handful
_HEADER_BYTES_MAX = 16 << 10
_USER_AGENT = "Linkmesh-Webhook/1"

_AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]


class BlockedAddressError(OSError):
    """The address is not one that webhooks may be sent to."""


def guard(address: _AddressInfo) -> socket.socket:
    """A socket for an address that the whole internet can reach.

    Raises:
        BlockedAddressError: it is a private, local or otherwise special address.
    """
    family, kind, protocol, _, target = address
    if not is_public_address(str(target[0])):
        raise BlockedAddressError("not a public address")
    return socket.socket(family, kind, protocol)


class HttpSender:
    """Sender over HTTP. Hosts in `trusted_hosts` may have any address."""

    def __init__(
        self,
        guarded: aiohttp.ClientSession,
        trusted: aiohttp.ClientSession,
        *,
        trusted_hosts: Collection[str],
        timeout_s: float,
    ) -> None:
        self._guarded = guarded
        self._trusted = trusted
        self._trusted_hosts = frozenset(host.strip("[]") for host in trusted_hosts)  # as yarl names them
        self._timeout_s = timeout_s

    async def send(self, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """Posts the body, and tells what came of it."""
        try:
            target = URL(url, encoded=True)
            # By the host that is about to be connected to, so that no two parsers can disagree about it.
            session = self._trusted if target.host in self._trusted_hosts else self._guarded
            return await _post(session, target, headers, body, self._timeout_s)
        except TimeoutError:
            return Answer(0, f"No answer within {self._timeout_s:g} seconds.")
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Answer(0, _reason(exc))
        except Exception as exc:  # a receiver must not be able to end this process, whatever it sends
            logger.exception("a receiver was met with an unexpected error")
            return Answer(0, _reason(exc))


@contextlib.asynccontextmanager
async def open_sender(*, trusted_hosts: Collection[str], timeout_s: float) -> AsyncIterator[HttpSender]:
    """A sender, its connections closed on the way out."""
    names = _Names()
    guarded = aiohttp.TCPConnector(
        socket_factory=guard, use_dns_cache=False, resolver=names, limit=0, keepalive_timeout=_KEEP_ALIVE_S
    )
    trusted = aiohttp.TCPConnector(use_dns_cache=False, resolver=names, limit=0, keepalive_timeout=_KEEP_ALIVE_S)
    async with _session(guarded) as guarded_session, _session(trusted) as trusted_session:
        try:
            yield HttpSender(guarded_session, trusted_session, trusted_hosts=trusted_hosts, timeout_s=timeout_s)
        finally:
            await names.close()


class _Names(AbstractResolver):
    """Looks names up in threads of its own, so that names that hang hold up neither each other nor the process."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_NAME_THREADS, thread_name_prefix="webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(
    host: str, port: int, family: socket.AddressFamily
) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    return [(kind, type_, protocol, name, address) for kind, type_, protocol, name, address in found]  # type: ignore[misc]  # a build without IPv6 has (int, bytes) addresses


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        auto_decompress=False,  # a bomb stays packed
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),  # the caller's deadline is the one
        max_line_size=_HEADER_BYTES_MAX,
        max_field_size=_HEADER_BYTES_MAX,
    )


async def _post(
    session: aiohttp.ClientSession, target: URL, headers: Mapping[str, str], body: str, timeout_s: float
) -> Answer:
    sent = {"content-type": "application/json", "user-agent": _USER_AGENT, **headers}
    clock = asyncio.get_running_loop().time
    ends_at = clock() + timeout_s
    answer: Answer | None = None
    try:
        async with (
            asyncio.timeout_at(ends_at) as deadline,
            session.post(target, data=body.encode(), headers=sent, allow_redirects=False) as response,
        ):
            # The status decides. A short body is read so that the connection can serve again; else it is closed.
            answer = Answer(response.status, retry_after=response.headers.get("retry-after", ""))
            deadline.reschedule(min(ends_at, clock() + _BODY_S))  # the lease counts on the end of the whole attempt
            await _read(response.content)
    except (aiohttp.ClientError, OSError):  # a timeout is an OSError
        if answer is None:
            raise
    return answer


async def _read(content: aiohttp.StreamReader) -> None:
    """Reads to the end, or until it is too much; leaving the response closes a connection that was not read out."""
    read = 0
    while read < _ANSWER_BYTES_MAX and (part := await content.read(_ANSWER_BYTES_MAX - read)):
        read += len(part)


def _reason(failure: Exception) -> str:
    """A sentence for the endpoint's owner, without addresses: they would map our network for whoever asks."""
    match failure:
        case aiohttp.ClientConnectorDNSError():
            return "The name of the host could not be resolved."
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "No TLS connection could be made: the certificate or the protocol is not acceptable."
        case aiohttp.ClientConnectorError() if isinstance(failure.os_error, BlockedAddressError):
            return "The host has no public address."
        case aiohttp.ClientConnectorError():
            return "No connection could be made."
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "The connection was closed before an answer."
        case _:
            return "The answer was not understood."
