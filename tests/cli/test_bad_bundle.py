"""A bundle that was damaged or changed is refused, naming the file, by every command that opens one."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.files import sha256_of_file

Command = Callable[..., Any]

FILES = ("analyzer.onnx", "basis.npz", "detector.onnx", "recogniser.onnx")
DRAWN = "synthetic://?frames=1&width=64&height=64"

Commands = dict[str, tuple[Any, ...]]


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle"))


@pytest.fixture
def commands(copied: Path, empty_gallery: Path, tmp_path: Path) -> Commands:
    """Every command that opens a bundle, on the copied one."""
    faces = tmp_path / "faces.npz"
    draw = np.random.default_rng(1)
    np.savez(faces, images=draw.integers(0, 256, (8, 112, 112), np.uint8), identities=np.array(list("aabbccdd")))
    picture = tmp_path / "faces" / "ann" / "1.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"no picture")
    return {
        "inspect": ("inspect", copied),
        # A mode that uses every file of the bundle.
        "run": ("run", "--bundle", copied, "--gallery", empty_gallery, "--source", DRAWN, "--mode", "expected",
                "--threshold", "0.5", "--alarm", "1"),
        "enroll": ("enroll", "--bundle", copied, "--gallery", tmp_path / "new.db", tmp_path / "faces"),
        "calibrate": ("calibrate", "threshold", copied, faces),
        "verify": ("verify", copied, "--faces", faces),
    }  # fmt: skip


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("harm", [_flip, _cut, _grow, Path.unlink, lambda path: path.write_bytes(b"")],
                         ids=["one bit", "cut short", "grown", "missing", "empty"])  # fmt: skip
@pytest.mark.parametrize("name", FILES)
def test_each_file_in_turn(immunogate: Command, copied: Path, commands: Commands, name: str, harm: Any) -> None:
    harm(copied / name)
    for command in ("inspect", "run"):
        done = immunogate(*commands[command])
        done.refused(1, name)
        assert done.out == ""


@pytest.mark.parametrize("name", ["basis.npz", "recogniser.onnx", "detector.onnx"])
def test_nobody_opens_a_tampered_bundle(
    immunogate: Command, copied: Path, commands: Commands, tmp_path: Path, name: str
) -> None:
    _flip(copied / name)
    manifest = (copied / "manifest.json").read_bytes()
    for command in commands.values():
        immunogate(*command).refused(1, name)
    assert (copied / "manifest.json").read_bytes() == manifest
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_nonsense_whose_hash_was_signed_anew(
    immunogate: Command, copied: Path, commands: Commands, name: str
) -> None:
    (copied / name).write_bytes(b"nothing that any reader takes" * 10)
    sign_anew(copied, mode="expected")
    done = immunogate(*commands["calibrate"])
    assert done.status in (1, 2)
    done.refused(done.status, name)


@pytest.mark.parametrize(("name", "other"), [("recogniser.onnx", "analyzer.onnx"), ("analyzer.onnx", "detector.onnx"),
                                             ("detector.onnx", "recogniser.onnx")])  # fmt: skip
def test_networks_that_changed_places(
    immunogate: Command, copied: Path, commands: Commands, name: str, other: Any
) -> None:
    shutil.copy(copied / other, copied / name)
    sign_anew(copied, mode="expected")
    immunogate(*commands["calibrate"]).refused(1, f"{name} is not the network that the manifest describes")


def test_no_manifest(immunogate: Command, copied: Path, commands: Commands) -> None:
    (copied / "manifest.json").unlink()
    for command in commands.values():
        immunogate(*command).refused(2, str(copied), "manifest.json", "immunogate export")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"[]", "expected dict"),
        (b"{}", "missing"),
        (b'{"manifest_version": 99}', "version 99"),
        (b"[" * 100_000, "JSON"),
        (b'"' + b"x" * (1 << 21) + b'"', "limit"),
    ],
)
def test_a_manifest_that_is_none(
    immunogate: Command, copied: Path, commands: Commands, content: Any, words: Any
) -> None:
    (copied / "manifest.json").write_bytes(content)
    done = immunogate(*commands["inspect"])
    assert done.status in (1, 2)
    done.refused(done.status, "manifest.json" if words != "version 99" else "manifest", words)


def _places(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where every value of a manifest lies, without the free-form provenance."""
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _places(child, (*path, key))


def _with(data: Any, place: tuple[str | int, ...], value: Any) -> Any:
    changed = copy.deepcopy(data)
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return changed


ODD: tuple[Any, ...] = (None, True, -1, 10**400, 0.5, "../../etc/passwd", [], {"a": 1})


def test_no_odd_value_anywhere_in_a_manifest_ends_in_a_traceback(
    immunogate: Command, copied: Path, commands: Commands, tmp_path: Path
) -> None:
    """Each value in turn becomes each odd one; the command may pass or refuse, and nothing else."""
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    tried = 0
    for place in _places(manifest):
        for odd in ODD:
            path.write_text(json.dumps(_with(manifest, place, odd)), encoding="utf-8")
            done = immunogate("inspect", copied)
            assert done.status in (0, 1, 2), (place, odd, done.err)
            assert "Traceback" not in done.err, (place, odd)
            tried += 1
    assert tried > 300


NUMBERS = [
    *(("recogniser", name) for name in ("height", "width", "crop_left", "mean", "std", "embedding_dimension")),
    *(("purifier", name) for name in ("components", "top_k", "clones", "keep", "seed", "mode", "storage")),
    ("detector", "stride"),
]


@pytest.mark.parametrize("place", NUMBERS, ids=".".join)
@pytest.mark.parametrize("odd", [-1, 0, 7, 10**12])
def test_no_odd_number_in_a_manifest_ends_in_a_traceback_when_it_is_used(
    immunogate: Command, copied: Path, commands: Commands, place: Any, odd: Any
) -> None:
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(_with(manifest, place, odd)), encoding="utf-8")
    for command in ("calibrate", "run"):
        done = immunogate(*commands[command])
        assert done.status in (0, 1, 2)
        assert "Traceback" not in done.err


def sign_anew(folder: Path, mode: str) -> None:
    """What an attacker does who may write to the folder: the hashes hold again. Mode expected uses every file."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for name in manifest["files"]:
        manifest["files"][name] = {"sha256": sha256_of_file(folder / name), "bytes": (folder / name).stat().st_size}
    manifest["purifier"]["mode"] = mode
    path.write_text(json.dumps(manifest), encoding="utf-8")
