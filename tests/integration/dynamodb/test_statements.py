"""Statements that go to DynamoDB by our own request: signed as the library signs, answered as the library answers."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from chassis.dynamodb import Item, open_dynamodb
from chassis.dynamodb_statements import Statements, open_statements
from chassis.errors import Unavailable
from contracts.tables import COUNTERS
from linkmesh.local.engines import DynamoDBEngine
from linkmesh.local.ports import free_port
from tests.dynamodb_proxy import DynamoDBProxy, Reply, dynamodb_proxy, throttled, throttled_statements

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import BatchStatementRequestTypeDef as Statement

Scenario = Callable[[Statements], Coroutine[None, None, None]]
_numbers = itertools.count(1)


@pytest.fixture
def proxy(dynamodb: DynamoDBEngine) -> Iterator[DynamoDBProxy]:
    """Between the statements and the engine."""
    with dynamodb_proxy(dynamodb.endpoint) as found:
        yield found


@asynccontextmanager
async def opened(endpoint: str, *, timeout_s: float = 5.0) -> AsyncIterator[Statements]:
    """Statements for an endpoint."""
    async with (
        open_dynamodb(endpoint) as client,
        open_statements(client, endpoint, timeout_s=timeout_s) as statements,
    ):
        yield statements


def play(endpoint: str, scenario: Scenario, *, timeout_s: float = 10.0) -> None:
    """Run a scenario with statements of its own."""

    async def run() -> None:
        async with opened(endpoint, timeout_s=timeout_s) as statements:
            await scenario(statements)

    asyncio.run(run())


def insert(name: str, value: bytes = b"\x00\xff") -> "Statement":
    """An item with a text, a number and bytes."""
    item: Item = {"pk": {"S": name}, "sk": {"S": "é\"'"}, "n": {"N": "7"}, "b": {"B": value}}
    places = ", ".join(f"'{key}': ?" for key in item)
    return {"Statement": f'INSERT INTO "{COUNTERS.name}" VALUE {{{places}}}', "Parameters": list(item.values())}


def new_name() -> str:
    """A key that no other test has."""
    return f"statement-{next(_numbers)}"


@pytest.mark.rule("W4")
def test_each_statement_has_its_own_answer(dynamodb: DynamoDBEngine) -> None:
    """What is written comes back byte for byte by the library; a statement that is refused refuses no other."""
    name, other = new_name(), new_name()

    async def scenario() -> None:
        async with open_dynamodb(dynamodb.endpoint) as client:
            async with open_statements(client, dynamodb.endpoint, timeout_s=10) as statements:
                assert await statements.execute([insert(name)]) == [{"TableName": COUNTERS.name}]

                first, second = await statements.execute([insert(name), insert(other)])

            assert str(first["Error"].get("Code")).startswith("DuplicateItem")
            assert "Error" not in second
            stored = await client.get_item(TableName=COUNTERS.name, Key={"pk": {"S": name}, "sk": {"S": "é\"'"}})
            assert stored["Item"]["b"]["B"] == b"\x00\xff"
            assert stored["Item"]["n"]["N"] == "7"

    asyncio.run(scenario())


@pytest.mark.rule("C1")
def test_a_database_that_throttles_or_fails_is_away(proxy: DynamoDBProxy) -> None:
    """A call that is refused for throughput, or fails, is the dependency's failure; one that is no request is ours."""

    async def scenario(statements: Statements) -> None:
        proxy.rule = throttled("BatchExecuteStatement", times=1)
        with pytest.raises(Unavailable):
            await statements.execute([insert(new_name())])
        for reply in (Reply(500, {}), Reply(403, {"__type": "com.amazon.coral.service#AccessDeniedException"})):
            proxy.rule = lambda _operation, _body, reply=reply: reply
            with pytest.raises(Unavailable):
                await statements.execute([insert(new_name())])
        proxy.rule = lambda _operation, _body: Reply(400, {"__type": "com.amazon.coral.validate#ValidationException"})
        with pytest.raises(ClientError, match="ValidationException"):
            await statements.execute([insert(new_name())])
        proxy.rule = throttled_statements(times=1, keep=0)
        (answer,) = await statements.execute([insert(new_name())])
        assert "Error" in answer

    play(proxy.endpoint, scenario)


@pytest.mark.rule("C1")
def test_a_database_that_is_not_there_is_away() -> None:
    """Nobody listens."""

    async def scenario(statements: Statements) -> None:
        with pytest.raises(Unavailable):
            await statements.execute([insert("x")])

    play(f"http://127.0.0.1:{free_port()}", scenario)


def test_a_call_takes_25_statements(dynamodb: DynamoDBEngine) -> None:
    """More are the caller's mistake."""

    async def scenario(statements: Statements) -> None:
        with pytest.raises(ValueError, match="26"):
            await statements.execute([insert("x")] * 26)

    play(dynamodb.endpoint, scenario)


@dataclass
class _Server:
    """Takes one request off the wire and hangs, or answers that all was done."""

    answer: bytes = b""
    heard: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.partition(b":")[2]))
        self.heard += [head, body]
        if self.answer:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self.answer), self.answer))
            await writer.drain()
        await reader.read()  # until the other side goes
        writer.close()
        await writer.wait_closed()
        self.gone.set()


@asynccontextmanager
async def _serving(server: _Server) -> AsyncIterator[str]:
    port = free_port()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", port)
    async with listener:
        yield f"http://127.0.0.1:{port}"
        await server.gone.wait()


def test_what_is_sent_is_what_was_signed() -> None:
    """The library's signer, asked again about the request as it came off the wire, writes the same signature."""
    server = _Server(answer=b'{"Responses":[{}]}')

    async def scenario() -> None:
        async with _serving(server) as endpoint, opened(endpoint) as statements:
            await statements.execute([insert("x")])

    asyncio.run(scenario())

    lines = server.heard[0].decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    signed = headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-target"} <= set(signed)
    again = AWSRequest(
        "POST",
        f"http://{headers['Host']}{lines[0].split()[1]}",
        {name: value for name, value in headers.items() if name.lower() in signed},
        server.heard[1],
    )
    again.context["timestamp"] = headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials("local", "local"), "dynamodb", "us-east-1")
    wanted = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    assert headers["Authorization"].endswith(f"Signature={wanted}")


@pytest.mark.rule("C1")
def test_a_database_that_hangs_is_away() -> None:
    """No answer within the deadline."""

    async def scenario() -> None:
        async with _serving(_Server()) as endpoint, opened(endpoint, timeout_s=0.2) as statements:
            with pytest.raises(Unavailable):
                await statements.execute([insert("x")])

    asyncio.run(scenario())
