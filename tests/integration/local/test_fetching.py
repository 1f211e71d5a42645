"""Fetching engines from a Maven mirror on this machine: whole or not at all, ours or refused, once."""

import gc
import hashlib
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from linkmesh.local import cache
from linkmesh.local.cache import EngineFiles, Silent, fetch, fetch_all, folder_of, is_cached
from linkmesh.local.errors import LocalError
from linkmesh.local.fetchers import MIRROR_VARIABLE, fetch_jars

GOOD = {"a-1.jar": b"first" * 1000, "b-2-slim.jar": b"second" * 1000}
FILES = EngineFiles("Test 1", "test.lock", 1)


class Mirror:
    """A repository that counts requests; each file has a list of answers, the last of which stays."""

    def __init__(self) -> None:
        self.answers = {name: [content] for name, content in GOOD.items()}
        self.requests: list[str] = []
        self.cut = 0  # so many answers end half way, though they announce the whole length

    def answer(self, name: str) -> bytes | None:
        """The next content of a file."""
        self.requests.append(name)
        answers = self.answers.get(name)
        return None if not answers else answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror, a lock file that wants two jars of it, and an empty cache."""
    found = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".sha1"):
                self.send_error(404)
                return
            content = found.answer(self.path.rsplit("/", 1)[1])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if found.cut:
                found.cut -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_request(self, *_: object) -> None:
            """Silence."""

        def log_error(self, *_: object) -> None:
            """Silence."""

    locks = tmp_path / "locks"
    locks.mkdir()
    digests = [hashlib.sha256(content).hexdigest() for content in GOOD.values()]
    (locks / FILES.lock).write_text(f"org.test:a:1 {digests[0]}\norg.test:b:2:slim {digests[1]}\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache, "_LOCKS", locks)
    monkeypatch.setitem(cache._FETCHERS, FILES.lock, fetch_jars)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv(MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()
    with warnings.catch_warnings():  # the resolver leaves connections of failed requests to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def content(folder: Path) -> dict[str, bytes]:
    """What a cache folder holds, hidden notes left out."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_files_are_fetched_once(mirror: Mirror) -> None:
    """The first fetch brings all, the second asks nobody: a second start needs no network."""
    folder = fetch(FILES)
    asked = list(mirror.requests)
    again = fetch(FILES)

    assert content(folder) == GOOD
    assert (again, mirror.requests) == (folder, asked)


def test_other_bytes_are_refused(mirror: Mirror) -> None:
    """A file whose checksum is not ours is tried once more, then refused; nothing of it is kept."""
    mirror.answers["a-1.jar"] = [b"evil" * 1000]

    with pytest.raises(LocalError, match=r"org\.test:a:1: the checksum does not match"):
        fetch(FILES)

    assert not is_cached(FILES)
    assert "a-1.jar" not in content(folder_of(FILES))
    assert mirror.requests.count("a-1.jar") == 2


def test_a_cut_transfer_is_fetched_again(mirror: Mirror) -> None:
    """A connection that breaks half way leaves no file that looks whole; the second try brings it."""
    mirror.cut = 1

    assert content(fetch(FILES)) == GOOD


def test_a_file_cut_on_disk_is_noticed_and_only_that_is_fetched(mirror: Mirror) -> None:
    """A later start sees by the sizes that a file was cut, and repairs it."""
    folder = fetch(FILES)
    (folder / "a-1.jar").write_bytes(b"fir")
    mirror.requests.clear()

    assert not is_cached(FILES)
    fetch(FILES)

    assert content(folder) == GOOD
    assert mirror.requests == ["a-1.jar"]


def test_what_is_not_to_be_had_is_one_clear_line(mirror: Mirror) -> None:
    """The error names the artifact and what to look at; what came before it is kept for the next try."""
    del mirror.answers["b-2-slim.jar"]

    with pytest.raises(LocalError, match="cannot fetch b 2") as caught:
        fetch_all([FILES], Silent())

    assert MIRROR_VARIABLE in caught.value.hint
    assert "\n" not in str(caught.value)
    mirror.answers["b-2-slim.jar"] = [GOOD["b-2-slim.jar"]]
    mirror.requests.clear()
    fetch(FILES)
    assert mirror.requests == ["b-2-slim.jar"]
