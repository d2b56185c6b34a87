"""``immunogate models``: what ships, what can be fetched, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import Bundle
from immunogate.default_models import VARIABLE
from immunogate.recipes import RECIPES, Recipe

Command = Callable[..., Any]
CONTENT = b"a model" * 50_000


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder, new."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "immunogate"


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny bundle in the shipped one's place."""
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "shipped"))
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, format: str, *words: Any) -> None:
        pass


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recipe]:
    """A recipe of a file that a server on this machine has, in the table's place."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "part.onnx").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    recipe = Recipe(
        *("part", "detector", "part.onnx", f"http://127.0.0.1:{server.server_port}/part.onnx", len(CONTENT)),
        *(hashlib.sha256(CONTENT).hexdigest(), "MIT", "Only for tests."),
    )
    monkeypatch.setattr("immunogate.recipes.RECIPES", {"part": recipe})
    yield recipe
    server.shutdown()
    thread.join()
    server.server_close()


def test_list_names_the_bundle_and_every_part(immunogate: Command, bundle: Path, data_home: Path) -> None:
    shown = immunogate("models", "list").out
    assert "tiny, mode fixed, none" in shown
    assert "calibrated, whole" in shown
    report = json.loads(immunogate("models", "list", "--json").out)
    assert report["bundle"]["state"] == "whole"
    assert report["bundle"]["path"] == str(bundle)
    assert {found["name"] for found in report["parts"]} == set(RECIPES)
    for recipe in RECIPES.values():
        for fact in (recipe.url, recipe.sha256, f"{recipe.bytes:,} bytes", recipe.licence, "not installed"):
            assert fact in shown


def test_list_without_a_bundle_says_so_and_is_no_failure(
    immunogate: Command, data_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    done = immunogate("models", "list")
    assert done.status == 0
    assert "absent" in done.out
    assert immunogate("models", "verify").status == 1


def test_install_verify_path(immunogate: Command, bundle: Path, data_home: Path, part: Recipe) -> None:
    immunogate("models", "path", "part").refused(2, "not installed", "immunogate models install part")
    done = immunogate("models", "install", "part")
    target = data_home / "models" / "part.onnx"
    assert done.status == 0, done.err
    assert target.read_bytes() == CONTENT
    assert "verified and installed (MIT)" in done.out
    assert part.url in done.err
    again = json.loads(immunogate("models", "install", "part", "--json").out)
    assert again == {"name": "part", "path": str(target), "new": False, "sha256": part.sha256}
    assert immunogate("models", "path", "part").out == f"{target}\n"
    assert immunogate("models", "verify").status == 0
    target.write_bytes(CONTENT[:-1] + b"x")
    done = immunogate("models", "verify", "--json")
    assert done.status == 1
    assert [found["state"] for found in json.loads(done.out)["parts"]] == ["damaged"]
    immunogate("models", "install", "part").refused(2, "damaged", "Remove it")


def test_install_to_a_folder_and_from_a_file(
    immunogate: Command, data_home: Path, part: Recipe, tmp_path: Path
) -> None:
    assert immunogate("models", "install", "part", "--to", tmp_path / "here").status == 0
    brought = tmp_path / "here" / "part.onnx"
    assert immunogate("models", "install", "part", "--from", brought).status == 0
    assert (data_home / "models" / "part.onnx").read_bytes() == CONTENT


def test_what_can_not_be_installed(immunogate: Command, data_home: Path) -> None:
    immunogate("models", "install", "nonsense").refused(2, "no part named 'nonsense'", "yunet, sface")
    immunogate("models", "install", "default").refused(2, "ships with the package")
    immunogate("models", "install", "yunet", "--from", "nowhere").refused(2, "no file nowhere")


def test_a_damaged_bundle_is_named_file_and_all(immunogate: Command, bundle: Path, data_home: Path) -> None:
    assert immunogate("models", "verify").status == 0
    data = (bundle / "recogniser.onnx").read_bytes()
    (bundle / "recogniser.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = immunogate("models", "verify")
    assert done.status == 1
    assert "damaged" in done.out
    assert "recogniser.onnx" in done.out
    assert "DAMAGED" in immunogate("models", "list").out
    assert immunogate("doctor").status == 1


def test_path_of_the_bundle(immunogate: Command, bundle: Path) -> None:
    for words in (("models", "path"), ("models", "path", "default")):
        assert immunogate(*words).out == f"{bundle}\n"
    assert json.loads(immunogate("models", "path", "--json").out) == {"name": "default", "path": str(bundle)}


def test_ctrl_c_keeps_the_part_and_says_so(tmp_path: Path) -> None:
    code = (
        "import sys, threading, time, http.server as h\n"
        "class Slow(h.BaseHTTPRequestHandler):\n"
        "    def log_message(self, *words): pass\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', '1000000'); self.end_headers()\n"
        "        for _ in range(1000): self.wfile.write(b'x' * 1000); self.wfile.flush(); time.sleep(0.02)\n"
        "server = h.ThreadingHTTPServer(('127.0.0.1', 0), Slow)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "import immunogate.recipes as r\n"
        "url = f'http://127.0.0.1:{server.server_port}/part.onnx'\n"
        "r.RECIPES = {'part': r.Recipe('part', 'detector', 'part.onnx', url, 1000000, '0' * 64, 'MIT', 'slow')}\n"
        "from immunogate.cli import main\n"
        "sys.exit(main(['models', 'install', 'part', '--to', sys.argv[1]]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "to")], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    part = tmp_path / "to" / f".part.onnx.{'0' * 16}.part"
    deadline = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "immunogate models install part goes on from it" in said
    assert "Traceback" not in said
    assert 0 < part.stat().st_size < 1_000_000
