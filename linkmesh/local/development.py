"""What a new system has for its first user: a development key, a demo link, and a redirect whose trace one can see.

`dev.json` in the state folder remembers them; the key is made once and kept for as long as it is good.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import grpc

from chassis.auth import SUPERVISOR
from chassis.config import read_secret
from chassis.errors import ServiceError, Unauthenticated
from chassis.grpc_client import open_channel
from linkmesh.client import Client, Problem, Unreachable
from linkmesh.local.errors import LocalError
from linkmesh.local.options import Options
from linkmesh.local.otlp_bridge import Collector
from linkmesh.local.secret_files import write_private
from shortener.key.v1 import key_service_pb2, key_service_pb2_grpc

USER_ID = "dev"
_DEMO_URL = "https://www.rfc-editor.org/rfc/rfc3986"
_RPC_TIMEOUT_S = 5.0
_TRACE_WAIT_S = 3.0  # the gateway exports each half second


@dataclass(frozen=True, slots=True)
class Development:
    """The first user's things. `demo_trace_id` is empty when traces are off or it was not seen in time."""

    api_key: str
    gateway: str
    demo_code: str
    demo_trace_id: str


async def prepare_development(options: Options, collector: Collector) -> Development:
    """Make the key and the demo link unless they are there, follow the link once, and write `dev.json`.

    Raises:
        LocalError: the system, ready as it says it is, does not do one of these.
    """
    path = options.state / "dev.json"
    gateway = f"http://127.0.0.1:{options.ports['gateway']}"
    link_service = f"127.0.0.1:{options.ports['link_service-grpc']}"
    before = _read(path)
    try:
        api_key = await _key(options.state, link_service, str(before.get("api_key", "")))
        code, since_ns = await asyncio.to_thread(_demo, gateway, api_key, str(before.get("demo_code", "")))
    except (ServiceError, Problem, Unreachable) as error:
        raise LocalError(f"the first link could not be made: {error}", "linkmesh logs gateway") from error
    trace_id = await _trace_of_redirect(collector, since_ns) if options.traces else ""
    dev = Development(api_key, gateway, code, trace_id)
    told = {"api_key": api_key, "gateway": gateway, "user_id": USER_ID, "demo_code": code, "demo_trace_id": trace_id}
    told["link_service"] = link_service
    told["analytics"] = f"127.0.0.1:{options.ports['analytics-grpc']}"
    if options.traces:
        told["zipkin"] = f"http://127.0.0.1:{options.ports['zipkin']}"
    write_private(path, json.dumps(told, indent=2) + "\n")
    return dev


async def make_key(state: Path, link_service: str, user_id: str, *, premium: bool, scopes: Sequence[str] = ()) -> str:
    """Make an API key for an account, which is opened if it is new, and return it. No scopes: all of an account's.

    Raises:
        ServiceError: link_service refuses or does not answer.
    """
    plan = key_service_pb2.PLAN_PREMIUM if premium else key_service_pb2.PLAN_FREE
    request = key_service_pb2.CreateKeyRequest(user_id=user_id, plan=plan, scopes=scopes)
    async with _link_service(state, link_service) as channel:
        made = await key_service_pb2_grpc.KeyServiceStub(channel).CreateKey(request, timeout=_RPC_TIMEOUT_S)
    return made.secret


async def _key(state: Path, link_service: str, before: str) -> str:
    """Return the key of an earlier start if it is still good, else a new one."""
    if before:
        try:
            async with _link_service(state, link_service) as channel:
                request = key_service_pb2.VerifyKeyRequest(secret=before)
                await key_service_pb2_grpc.KeyServiceStub(channel).VerifyKey(request, timeout=_RPC_TIMEOUT_S)
            return before
        except Unauthenticated:
            pass  # its table is gone, or its pepper
    return await make_key(state, link_service, USER_ID, premium=True)


def _link_service(state: Path, target: str) -> AbstractAsyncContextManager[grpc.aio.Channel]:
    """A channel that proves by the mesh secret of this start that we are the supervisor, or its owner."""
    secret = read_secret(state / "secrets" / "mesh-secret")
    return open_channel(target, peer="link_service", process=SUPERVISOR, mesh_secret=secret)


def _demo(gateway: str, api_key: str, before: str) -> tuple[str, int]:
    """See that there is a demo link and follow it. Returns its code and the time just before the redirect."""
    with Client(gateway, api_key) as client:
        code = before if before and client.visit(before)[0] in (301, 302, 307, 308) else ""
        if not code:
            code = str(client.create_link(_DEMO_URL)["short_code"])
        since_ns = time.time_ns()
        status, target = client.visit(code)
        if target != _DEMO_URL:
            raise LocalError(f"the demo link answers {status} {target!r}", "linkmesh logs gateway")
    return code, since_ns


async def _trace_of_redirect(collector: Collector, since_ns: int) -> str:
    """Return the id of the trace whose root is the gateway's newest span since then; empty when none comes in time."""
    deadline = time.monotonic() + _TRACE_WAIT_S
    while time.monotonic() < deadline:
        for span in reversed(collector.spans):
            if span.service == "gateway" and not span.parent_id and span.start_ns >= since_ns:
                return span.trace_id
        await asyncio.sleep(0.1)
    return ""


def _read(path: Path) -> Mapping[str, object]:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
