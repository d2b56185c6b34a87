from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import MANIFEST_LIMIT, Bundle, open_bundle, write_manifest
from immunogate.errors import BundleError, ImmunogateError, InputError, UsageError
from immunogate.files import sha256_of_bytes, sha256_of_file
from immunogate.manifest import (
    MANIFEST_NAME,
    Calibration,
    DetectorEntry,
    FileEntry,
    Manifest,
    PurifierEntry,
    RecogniserEntry,
    Threshold,
)

CONTENT = {"detector.onnx": b"the detector", "recogniser.onnx": os.urandom(5000), "basis.npz": b"", "CARD.md": b"card"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    manifest = Manifest(
        model_id="m",
        license="none",
        created="2026-01-01T00:00:00+00:00",
        files={name: FileEntry(sha256_of_bytes(data), len(data)) for name, data in CONTENT.items()},
        detector=DetectorEntry("detector.onnx", "yunet"),
        recogniser=RecogniserEntry("recogniser.onnx", "x", 112, 96, 8, 127.5, 128.0, "RGB", 128, 18, "fp32"),
        purifier=PurifierEntry("basis.npz", 1500, "float16", "fixed", 1000, 64, 4, 0),
    )
    write_manifest(folder, manifest)
    return open_bundle(folder)


def calibration(measured_on: str, status: str = "measured") -> Calibration:
    return Calibration(status, [Threshold(1e-3, 0.4, 9e-4, 10_000, 0.9, 500)], 0.2, 1e-3, measured_on, "people")


def test_every_file_is_read_as_it_was_hashed(bundle: Bundle) -> None:
    assert {name: bundle.read(name) for name in CONTENT} == CONTENT
    bundle.check()
    assert bundle.sha256 == sha256_of_file(bundle.folder / MANIFEST_NAME)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "has 4,999 bytes, its length in the manifest is 5,000"),
        (emptied, "has 0 bytes, its length in the manifest is 5,000"),
        (grown, "has 5,001 bytes, more than the limit of 5,000"),
        (flipped, "does not have the hash in manifest.json: expected "),
        (removed, "is missing from the bundle"),
        (made_a_folder, "is missing from the bundle"),
        (dangling, "is missing from the bundle"),
    ],
)
def test_a_damaged_file_is_named_and_the_others_still_read(bundle: Bundle, damage: Any, words: str) -> None:
    path = bundle.folder / "recogniser.onnx"
    damage(path)
    for check in (lambda: bundle.read("recogniser.onnx"), bundle.check):
        with pytest.raises(BundleError) as caught:
            check()
        assert str(path) in caught.value.what
        assert words in caught.value.what
    assert bundle.read("detector.onnx") == CONTENT["detector.onnx"]


def test_an_empty_file_that_grew_is_refused(bundle: Bundle) -> None:
    (bundle.folder / "basis.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match="its length in the manifest is 0"):
        bundle.read("basis.npz")


@pytest.mark.parametrize("stated", [-1, 4999, 5001, 1 << 40])
def test_a_wrong_length_is_refused_whatever_the_hash(bundle: Bundle, stated: int) -> None:
    entry = replace(bundle.manifest.files["recogniser.onnx"], bytes=stated)
    files = {**bundle.manifest.files, "recogniser.onnx": entry}
    with pytest.raises(BundleError, match=f"its length in the manifest is {stated:,}"):
        replace(bundle, manifest=replace(bundle.manifest, files=files)).read("recogniser.onnx")


def test_a_file_exchanged_after_opening_is_refused(bundle: Bundle) -> None:
    """Content of the same length with its own new entry in the manifest on disk: the opened manifest still holds."""
    (bundle.folder / "recogniser.onnx").write_bytes(bytes(5000))
    entry = FileEntry(sha256_of_bytes(bytes(5000)), 5000)
    write_manifest(
        bundle.folder,
        replace(bundle.manifest, files={**bundle.manifest.files, "recogniser.onnx": entry}),
    )
    with pytest.raises(BundleError, match="does not have the hash"):
        bundle.read("recogniser.onnx")
    assert open_bundle(bundle.folder).sha256 != bundle.sha256


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / MANIFEST_NAME).mkdir()
    for folder in (tmp_path / "none", tmp_path / "file", tmp_path):
        with pytest.raises(UsageError) as caught:
            open_bundle(folder)
        assert str(folder) in caught.value.what
        assert caught.value.mend == "Make one: immunogate export"


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", BundleError, "is not JSON"),
        (b"\xff\xfe{}", BundleError, "is not UTF-8 text"),
        ("{}".encode("utf-16"), BundleError, "is not UTF-8 text"),
        (b"{}", BundleError, "the field 'model_id' is missing"),
        (b" " * (MANIFEST_LIMIT + 1), InputError, "more than the limit of 1,048,576"),
        (b"[" * MANIFEST_LIMIT, BundleError, "is not JSON"),
        (b'{"manifest_version": 7}', BundleError, "version 7, this release reads version 1"),
    ],
)
def test_a_damaged_manifest_is_refused(bundle: Bundle, data: bytes, kind: type[ImmunogateError], words: str) -> None:
    (bundle.folder / MANIFEST_NAME).write_bytes(data)
    with pytest.raises(kind) as caught:
        open_bundle(bundle.folder)
    assert words in str(caught.value)


def test_without_calibration_there_is_no_threshold(bundle: Bundle) -> None:
    with pytest.raises(BundleError) as caught:
        bundle.calibration()
    assert "has no threshold" in caught.value.what
    assert caught.value.mend == f"Calibrate it: immunogate calibrate threshold {bundle.folder} FACES.npz"


def test_its_own_calibration_is_used(bundle: Bundle) -> None:
    own = calibration(bundle.manifest.embedding_hash())
    written = bundle.with_calibration(own)
    assert written.calibration() == own
    assert open_bundle(bundle.folder) == written
    assert written.sha256 != bundle.sha256
    assert written.manifest == replace(bundle.manifest, calibration=own)
    written.check()


def test_a_foreign_calibration_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="was measured on other files or settings"):
        bundle.with_calibration(calibration("f" * 64)).calibration()


def test_a_calibration_does_not_survive_a_change_of_the_purifier(bundle: Bundle) -> None:
    written = bundle.with_calibration(calibration(bundle.manifest.embedding_hash()))
    write_manifest(bundle.folder, replace(written.manifest, purifier=replace(written.manifest.purifier, top_k=999)))
    with pytest.raises(BundleError, match="was measured on other files or settings"):
        open_bundle(bundle.folder).calibration()


def test_a_provisional_calibration_comes_from_another_bundle(bundle: Bundle) -> None:
    foreign = calibration("f" * 64, "provisional")
    assert bundle.with_calibration(foreign).calibration() == foreign


def test_a_calibration_that_can_not_be_written_leaves_the_bundle_as_it_was(bundle: Bundle) -> None:
    before = (bundle.folder / MANIFEST_NAME).read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        bundle.with_calibration(replace(calibration("h"), alarm=float("nan")))
    assert (bundle.folder / MANIFEST_NAME).read_bytes() == before
    assert sorted(path.name for path in bundle.folder.iterdir()) == sorted([*CONTENT, MANIFEST_NAME])


def test_a_moved_bundle_is_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    moved = open_bundle(Path(shutil.copytree(bundle.folder, tmp_path / "elsewhere")))
    moved.check()
    assert moved.sha256 == bundle.sha256
    assert moved.manifest.embedding_hash() == bundle.manifest.embedding_hash()
