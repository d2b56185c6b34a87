"""``immunogate inspect`` and ``immunogate doctor``."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import Bundle
from immunogate.files import sha256_of_file

Command = Callable[..., Any]


def test_inspect_shows_every_file_with_its_hash(immunogate: Command, tiny_bundle: Bundle) -> None:
    done = immunogate("inspect", tiny_bundle.folder)
    assert done.status == 0
    for name in ("analyzer.onnx", "basis.npz", "detector.onnx", "recogniser.onnx"):
        assert sha256_of_file(tiny_bundle.folder / name) in done.out
    assert "every file has the hash in the manifest" in done.out
    assert "mode fixed, top 48 of 64 eigenfaces" in done.out
    assert "threshold" in done.out


def test_inspect_as_json_is_the_manifest_and_what_follows_from_it(immunogate: Command, tiny_bundle: Bundle) -> None:
    shown = json.loads(immunogate("inspect", tiny_bundle.folder, "--json").out)
    manifest = json.loads((tiny_bundle.folder / "manifest.json").read_text(encoding="utf-8"))
    assert shown.pop("sha256") == sha256_of_file(tiny_bundle.folder / "manifest.json") == tiny_bundle.sha256
    assert shown.pop("embedding_hash") == tiny_bundle.manifest.embedding_hash()
    assert shown == manifest


def test_inspect_of_an_uncalibrated_bundle_says_how_to_calibrate(
    immunogate: Command, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    import shutil

    folder = shutil.copytree(tiny_bundle.folder, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8")) | {"calibration": None}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert f"immunogate calibrate threshold {folder}" in immunogate("inspect", folder).out


@pytest.mark.parametrize("given", ["nowhere", "a file"])
def test_inspect_of_what_is_no_bundle(immunogate: Command, tmp_path: Path, given: str) -> None:
    (tmp_path / "a file").touch()
    immunogate("inspect", tmp_path / given).refused(2, given, "manifest.json")


def test_doctor_names_versions_and_readiness(immunogate: Command) -> None:
    report = json.loads(immunogate("doctor", "--json").out)
    assert report["ready"] is True
    assert report["packages"]["numpy"] == version("numpy")
    assert report["packages"]["onnxruntime"] == version("onnxruntime")
    assert report["processors"] >= 1
    assert set(report["video"]) == {"FFMPEG", "GStreamer", "v4l/v4l2"}
    assert "ready to run" in immunogate("doctor").out


def test_doctor_names_what_brings_a_missing_extra(immunogate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import immunogate.cli.doctor as doctor

    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "torch" else real(name))
    done = immunogate("doctor")
    assert done.status == 0
    assert "pip install 'immunogate[export]'" in done.out
    assert json.loads(immunogate("doctor", "--json").out)["packages"]["torch"] is None


def test_doctor_fails_where_something_needed_is_missing(immunogate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import immunogate.cli.doctor as doctor

    nothing = {"version": None, "packages": {}, "providers": [], "obstacles": {"cpu": "No module"}, "auto": None}
    monkeypatch.setattr(doctor, "examine_runners", lambda: nothing)
    done = immunogate("doctor")
    assert done.status == 1
    assert "can not: No module" in done.out
    assert "NOT ready" in done.out
