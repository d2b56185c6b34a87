"""``immunogate train detector`` on a handful of real photos, a few steps long."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch

from immunogate.cli import train_detector
from immunogate.errors import InputError, UsageError
from immunogate.networks.face_detector import load_face_detector

pytestmark = [pytest.mark.torch, pytest.mark.data]

PHOTOS = 40


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    train_detector.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["detector", *map(str, words)])
    status: int = arguments.run(arguments)
    return status


@pytest.fixture(scope="module")
def photos(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photos of as many people."""
    folder = tmp_path_factory.mktemp("photos")
    with zipfile.ZipFile(data_dir / train_detector.PHOTOS) as archive:
        first = {name.split("/")[0]: name for name in sorted(archive.namelist())}
        archive.extractall(folder, list(first.values())[:PHOTOS])
    return folder


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_short_training_from_photos_to_onnx(
    photos: Path,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, graph = tmp_path / "detector.pt", tmp_path / "detector.onnx"
    words = ("--photos", photos, "--teacher", data_dir / train_detector.TEACHER, "--steps", 2, "--batch", 2, "--json")
    real, cautions = train_detector._caution, []

    def noted(*arguments: Any) -> float:
        cautions.append(real(*arguments) + 0.5)
        return cautions[-1]

    monkeypatch.setattr(train_detector, "_caution", noted)
    assert run(*words, "--out", out, "--onnx", graph) == 0
    report = json.loads(capsys.readouterr().out)
    assert 15 < report["photos"] < PHOTOS
    assert report["parameters"] == sum(value.numel() for value in load_face_detector(out).parameters())
    assert graph.stat().st_size < 1_000_000
    assert not out.with_suffix(".resume.pt").exists()

    monkeypatch.setattr(train_detector, "_caution", lambda *_: cautions[0])  # exporting once more takes seconds
    first = out.read_bytes()
    (labels,) = tmp_path.glob("detector-labels-*.npz")
    seen_at = labels.stat().st_mtime_ns
    assert run(*words, "--out", out) == 0
    assert labels.stat().st_mtime_ns == seen_at
    again = load_face_detector(out)
    out.write_bytes(first)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), load_face_detector(out).parameters(), strict=True))


def test_wrong_use_is_told(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.pt"):
        run("--out", tmp_path / "detector.onnx")
    with pytest.raises(UsageError, match="threads"):
        run("--out", tmp_path / "a.pt", "--threads", 0)
    with pytest.raises(UsageError, match="steps"):
        run("--out", tmp_path / "a.pt", "--steps", 0)
    with pytest.raises(UsageError, match="nowhere"):
        run("--out", tmp_path / "a.pt", "--photos", tmp_path / "nowhere")
    (tmp_path / "broken.zip").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="zip"):
        run("--out", tmp_path / "a.pt", "--photos", tmp_path / "broken.zip")
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.jpg"):
        run("--out", tmp_path / "a.pt", "--photos", tmp_path / "somebody")
