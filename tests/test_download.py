"""Fetching a pinned file from real servers: good ones, and ones that cut, stall, lie, change and redirect."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from immunogate.download import DownloadError, Patience, copy_from, fetch
from immunogate.errors import UsageError
from immunogate.recipes import Recipe, is_safe

CONTENT = bytes(range(256)) * 1200
OTHER = CONTENT[::-1]
QUICK = Patience(timeout=0.5, tries=3, pause=0.01)


@dataclass
class Behaviour:
    """What the server does; changed by tests, and a log of what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    etag: str | None = '"one"'
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which each connection in turn is closed; then no more."""

    stall: bool = False
    status: list[int] = field(default_factory=list)
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hide_length: bool = False
    wrong_range: int = 0
    """Added to the start that the answer states."""

    asked: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Serves one file, as well or as badly as asked."""

    behaviour: Behaviour
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        b = self.behaviour
        b.asked.append(dict(self.headers))
        self.close_connection = True
        if b.status:
            self.send_response(b.status.pop(0))
            if b.location:
                self.send_header("Location", b.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start()
        if start is not None and start >= len(b.content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = b.content[start or 0 :]
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start + b.wrong_range}-{len(b.content) - 1}/{len(b.content)}")
        if not b.hide_length:
            self.send_header("Content-Length", str(len(body)))
        if b.etag:
            self.send_header("ETag", b.etag)
        for name, value in b.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if b.cut_after:
            body = body[: b.cut_after.pop(0)]
        self.wfile.write(body)
        self.wfile.flush()
        if b.stall:
            time.sleep(1.2)

    def _start(self) -> int | None:
        b = self.behaviour
        wanted, tag = self.headers.get("Range"), self.headers.get("If-Range")
        if not b.ranges or wanted is None or (tag is not None and tag != b.etag):
            return None
        return int(wanted.removeprefix("bytes=").rstrip("-"))


class Server(ThreadingHTTPServer):
    """Says nothing where a client has gone: here that is what is tested."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def recipe(behaviour: Behaviour) -> Iterator[Recipe]:
    """A recipe that leads to a server on this machine."""
    handler = type("OwnHandler", (Handler,), {"behaviour": behaviour})
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield _recipe(f"http://127.0.0.1:{server.server_port}/file.onnx")
    server.shutdown()
    thread.join()
    server.server_close()


def _recipe(url: str) -> Recipe:
    return Recipe(
        "part", "detector", "file.onnx", url, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "MIT", "for tests"
    )


def _left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_whole_and_alone(recipe: Recipe, tmp_path: Path) -> None:
    seen: list[int] = []
    path, is_new = fetch(recipe, tmp_path / "deep" / "models", seen.append, QUICK)
    assert is_new
    assert path.read_bytes() == CONTENT
    assert _left(path.parent) == {"file.onnx"}
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)


def test_what_is_there_is_hashed_and_not_asked_for(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "file.onnx").write_bytes(CONTENT)
    assert fetch(recipe, tmp_path, patience=QUICK) == (tmp_path / "file.onnx", False)
    assert behaviour.asked == []


@pytest.mark.parametrize("content", [OTHER, CONTENT[:-1]])
def test_another_file_of_the_name_is_not_touched(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "file.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"damaged.*Remove it"):
        fetch(recipe, tmp_path, patience=QUICK)
    assert (tmp_path / "file.onnx").read_bytes() == content
    assert behaviour.asked == []


def test_a_cut_connection_is_resumed_where_it_was_cut(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.cut_after = [100_000, 50_000]
    path, _ = fetch(recipe, tmp_path, patience=QUICK)
    assert path.read_bytes() == CONTENT
    assert [asked.get("Range") for asked in behaviour.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert behaviour.asked[1]["If-Range"] == '"one"'


def test_a_later_run_goes_on_from_what_an_earlier_one_left(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.cut_after = [70_000, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"70,000 of 307,200 bytes are here.*goes on where it stopped"):
        fetch(recipe, tmp_path, patience=QUICK)
    assert not (tmp_path / "file.onnx").exists()
    behaviour.asked.clear()
    behaviour.cut_after = []
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT
    assert [asked.get("Range") for asked in behaviour.asked] == ["bytes=70000-"]


def test_an_interrupt_keeps_what_has_come(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(recipe, tmp_path, interrupt, QUICK)
    (part,) = tmp_path.glob(".*.part")
    kept = part.stat().st_size
    assert kept > 100_000
    behaviour.asked.clear()
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT
    assert behaviour.asked[0]["Range"] == f"bytes={kept}-"


def test_a_server_without_ranges_begins_anew(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.ranges, behaviour.cut_after = False, [100_000]
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_noticed_by_its_tag(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.content, behaviour.cut_after = OTHER, [100_000, 0, 0]
    with pytest.raises(DownloadError):
        fetch(recipe, tmp_path, patience=QUICK)
    behaviour.content, behaviour.etag = CONTENT, '"two"'
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT


def test_another_range_than_was_asked_for_begins_anew(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.cut_after, behaviour.wrong_range = [100_000], 1
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT
    assert [asked.get("Range") for asked in behaviour.asked] == [None, "bytes=100000-", None], "noticed by the headers"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_tag_the_hash_notices_and_all_begins_anew(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path, etag: str | None
) -> None:
    behaviour.etag, behaviour.content, behaviour.cut_after = etag, OTHER, [100_000, 0, 0]
    with pytest.raises(DownloadError):
        fetch(recipe, tmp_path, patience=QUICK)
    assert not [asked for asked in behaviour.asked if "If-Range" in asked]
    behaviour.content = CONTENT
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT


def test_wrong_bytes_are_thrown_away(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.content = OTHER
    with pytest.raises(DownloadError, match=recipe.sha256):
        fetch(recipe, tmp_path, patience=QUICK)
    assert _left(tmp_path) == set()
    assert len(behaviour.asked) == 1, "what is wrong from its first byte is not asked for again"


@pytest.mark.parametrize("hide_length", [False, True])
def test_more_than_was_pinned_is_refused(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path, hide_length: bool
) -> None:
    behaviour.content, behaviour.hide_length = CONTENT + b"x" * 10_000_000, hide_length
    most = []
    with pytest.raises(DownloadError, match="307,200"):
        fetch(recipe, tmp_path, most.append, QUICK)
    assert max(most, default=0) <= len(CONTENT)
    assert _left(tmp_path) == set()


def test_less_than_was_pinned_is_refused_before_a_byte(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.content = b"version https://git-lfs.github.com/spec/v1\n"
    with pytest.raises(DownloadError, match="has 43 bytes, pinned are 307,200"):
        fetch(recipe, tmp_path, patience=QUICK)


def test_a_file_of_unknown_length_that_ends_early_is_tried_again(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.hide_length, behaviour.cut_after = True, [1000]
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT


def test_a_part_longer_than_the_file_begins_anew(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / f".file.onnx.{recipe.sha256[:16]}.part").write_bytes(OTHER + OTHER)
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT


def test_a_whole_but_wrong_part_begins_anew(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / f".file.onnx.{recipe.sha256[:16]}.part").write_bytes(OTHER)
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT


def test_a_stalled_server_is_left_and_tried_again(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.stall, behaviour.cut_after = True, [100_000, 0, 0]
    start = time.perf_counter()
    with pytest.raises(DownloadError, match="timed out"):
        fetch(recipe, tmp_path, patience=Patience(timeout=0.1, tries=3, pause=0.01))
    assert time.perf_counter() - start < 5
    behaviour.stall = False
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_tried_again(recipe: Recipe, behaviour: Behaviour, tmp_path: Path, status: int) -> None:
    behaviour.status = [status, status]
    assert fetch(recipe, tmp_path, patience=QUICK)[0].read_bytes() == CONTENT
    assert len(behaviour.asked) == 3


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(recipe: Recipe, behaviour: Behaviour, tmp_path: Path, status: int) -> None:
    behaviour.status = [status]
    with pytest.raises(DownloadError, match=rf"{status}.*--from FILE"):
        fetch(recipe, tmp_path, patience=QUICK)
    assert len(behaviour.asked) == 1


def test_nobody_there_is_said_with_the_address(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/file\.onnx can not be fetched"):
        fetch(_recipe("http://127.0.0.1:9/file.onnx"), tmp_path, patience=QUICK)
    assert _left(tmp_path) == set()


def test_an_encoded_answer_is_refused(recipe: Recipe, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadError, match="encoded"):
        fetch(recipe, tmp_path, patience=QUICK)


def test_a_redirect_is_followed_here_and_not_to_plain_http_elsewhere(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.status, behaviour.location = [302], recipe.url + "?again"
    assert fetch(recipe, tmp_path / "a", patience=QUICK)[0].read_bytes() == CONTENT
    behaviour.status, behaviour.location = [302], "http://example.invalid/file.onnx"
    with pytest.raises(DownloadError, match="not https"):
        fetch(recipe, tmp_path / "b", patience=QUICK)


def test_a_proxy_of_the_environment_is_asked(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.parse import urlsplit

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{urlsplit(recipe.url).port}")
    fetch(_recipe("http://localhost:9/elsewhere.onnx"), tmp_path, patience=QUICK)
    assert behaviour.asked[0]["Host"] == "localhost:9"


def test_two_at_once_do_not_write_one_part(recipe: Recipe, tmp_path: Path) -> None:
    def second(done: int) -> None:
        with pytest.raises(UsageError, match="another download"):
            fetch(recipe, tmp_path, patience=QUICK)

    assert fetch(recipe, tmp_path, second, QUICK)[0].read_bytes() == CONTENT


def test_a_folder_that_can_not_be_made(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can not be written"):
        fetch(recipe, tmp_path / "file" / "models", patience=QUICK)


def test_a_full_disk_is_said_before_anything_is_asked(
    recipe: Recipe, behaviour: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import immunogate.download as download

    room: Callable[[Path], Any] = lambda folder: type("Usage", (), {"free": 1000})  # noqa: E731
    monkeypatch.setattr(download.shutil, "disk_usage", room)
    with pytest.raises(UsageError, match=r"1,000 bytes free, 307,200 are needed"):
        fetch(recipe, tmp_path, patience=QUICK)
    assert behaviour.asked == []


def test_a_file_that_was_brought(tmp_path: Path) -> None:
    recipe, brought = _recipe("https://example.invalid/file.onnx"), tmp_path / "brought"
    brought.write_bytes(CONTENT)
    path, is_new = copy_from(recipe, brought, tmp_path / "models")
    assert (path.read_bytes(), is_new) == (CONTENT, True)
    assert copy_from(recipe, brought, tmp_path / "models") == (path, False)


def test_a_wrong_file_that_was_brought(tmp_path: Path) -> None:
    recipe, brought = _recipe("https://example.invalid/file.onnx"), tmp_path / "brought"
    brought.write_bytes(OTHER)
    with pytest.raises(DownloadError, match="is not part"):
        copy_from(recipe, brought, tmp_path / "models")
    assert _left(tmp_path / "models") == set()
    with pytest.raises(UsageError, match="there is no file"):
        copy_from(recipe, tmp_path / "nowhere", tmp_path / "models")


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://example.org/a", True),
        ("http://127.0.0.1:8000/a", True),
        ("http://[::1]/a", True),
        ("http://example.org/a", False),
        ("http://127.0.0.1.example.org/a", False),
        ("http://localhost@example.org/a", False),
        ("ftp://example.org/a", False),
        ("file:///etc/passwd", False),
        ("https:///a", False),
        ("", False),
    ],
)
def test_only_https_and_this_machine_are_safe(url: str, safe: bool) -> None:
    assert is_safe(url) is safe
    if not safe:
        with pytest.raises(ValueError, match="https"):
            _recipe(url)
