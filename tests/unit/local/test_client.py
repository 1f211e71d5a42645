"""The REST client: what is sent for what a person typed."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from linkmesh.cli import main
from linkmesh.client import Client, Problem, Unreachable


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that answers everything alike, and the request lines it saw."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            seen.append(self.requestline.rpartition(" ")[0])
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_DELETE = answer  # noqa: N815 (the names are http.server's)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is http.server's)
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_code_is_one_segment_of_the_path() -> None:
    """A code with slashes or dots in it never reaches another path."""
    with (
        answering(404, b'{"code": "link_not_found", "detail": "no"}') as (gateway, seen),
        Client(gateway, "k") as client,
    ):
        for call in (client.get_link, client.delete_link):
            with pytest.raises(Problem):
                call("a/../../keys?x=1")
        client.visit("../api/links")

    assert seen == [
        "GET /api/links/a%2F..%2F..%2Fkeys%3Fx%3D1",
        "DELETE /api/links/a%2F..%2F..%2Fkeys%3Fx%3D1",
        "GET /..%2Fapi%2Flinks",
    ]


def test_what_is_no_gateway_is_told() -> None:
    """Another server on the port, and none at all, are one clear error each."""
    with answering(200, b"hello") as (gateway, _), Client(gateway, "k") as client, pytest.raises(Unreachable):
        client.get_link("abc")
    with Client("http://127.0.0.1:1", "k") as client, pytest.raises(Unreachable):
        client.get_link("abc")


@pytest.mark.parametrize(
    ("detail", "errors", "shown"),
    [
        (
            "See errors.",
            '[{"field": "at", "description": "Not a time."}]',
            ["See errors. (invalid_field)", "at: Not a time."],
        ),
        ("Not a time.", '[{"field": "at", "description": "Not a time."}]', ["Not a time. (invalid_field)"]),
        ("Not a time.", "[]", ["Not a time. (invalid_field)"]),
        ("Not a time.", "5", ["the gateway answers 422 Unprocessable Entity"]),
    ],
)
def test_a_refusal_names_the_fields(
    detail: str, errors: str, shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person is told which field is wrong and why, once: by the sentence, or below it."""
    body = f'{{"code": "invalid_field", "detail": "{detail}", "errors": {errors}}}'.encode()
    monkeypatch.setenv("LINKMESH_API_KEY", "k")
    monkeypatch.setattr(sys, "argv", ["linkmesh", "link", "get", "abc", "--at", "x"])
    with answering(422, body) as (gateway, _):
        monkeypatch.setenv("LINKMESH_GATEWAY", gateway)
        with pytest.raises(SystemExit) as caught:
            main.main()

    assert caught.value.code == 1
    assert [line.removeprefix("linkmesh: ").strip() for line in capsys.readouterr().err.splitlines()] == shown
