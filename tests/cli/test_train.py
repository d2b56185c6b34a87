"""``immunogate train basis`` and ``immunogate calibrate``: from faces, in a file or a folder, and from what is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.basis import load_basis
from immunogate.bundle import Bundle

Command = Callable[..., Any]

SMOOTH = np.random.default_rng(4)


@pytest.fixture
def faces(tmp_path: Path) -> Any:
    """Forty smooth random pictures of ten people as aligned faces, in ``faces.npz``."""
    coarse = SMOOTH.integers(0, 256, (40, 14, 14), np.uint8)
    images = np.stack([cv2.resize(picture, (112, 112), interpolation=cv2.INTER_CUBIC) for picture in coarse])
    path = tmp_path / "faces.npz"
    np.savez(path, images=images, identities=np.repeat([f"p{i}" for i in range(10)], 4))
    return path


@pytest.fixture
def train(immunogate: Command, tmp_path: Path) -> Any:
    def run(source: Any, *flags: Any, out: Any = tmp_path / "basis.npz", components: int = 5) -> Any:
        return immunogate("train", "basis", source, "--components", components, "--out", out, *flags)

    return run


def test_a_basis_of_a_file_and_its_report(train: Command, faces: Any, tmp_path: Path) -> None:
    done = train(faces, "--json", "--storage", "int8", "--no-picture")
    report = json.loads(done.out)
    assert (report["faces"], report["components"], report["storage"], report["picture"]) == (40, 5, "int8", None)
    assert 0 < report["explained"] < 1
    assert report["orthonormality_error"] < 1e-5
    basis = load_basis(tmp_path / "basis.npz")
    assert (basis.components, basis.samples, basis.storage) == (5, 40, "int8")
    assert not (tmp_path / "basis.png").exists()


def test_the_next_step_is_named_and_the_picture_drawn(train: Command, faces: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = train(faces, "--picture", tmp_path / "seen.png")
    assert "next: immunogate export --basis" in done.err
    picture = cv2.imread(str(tmp_path / "seen.png"))
    assert picture is not None
    assert picture.shape[0] > 100


@pytest.mark.data
@pytest.mark.torch
def test_a_basis_of_a_folder_of_photos(train: Command, photos: Path, data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    done = train(photos, "--detector", data_dir / "models/face_detection_yunet_2023mar.onnx", "--json", components=40)
    (photos / "broken.jpg").unlink()
    assert done.status == 0, done.err
    assert "broken.jpg" in done.err
    assert "of 61 photos have a face" in done.err
    report = json.loads(done.out)
    assert report["faces"] >= 55
    basis = load_basis(tmp_path / "basis.npz")
    mean = basis.mean.reshape(112, 112)
    eyes, between = mean[48:56, [38, 73]].mean(), mean[48:56, 54:58].mean()
    assert eyes < between - 0.1, "the mean face has dark eyes where the template puts them"


def test_a_folder_without_detector_says_what_is_missing(train: Command, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    train(tmp_path / "photos").refused(2, "needs --detector", "YuNet")


@pytest.mark.data
@pytest.mark.torch
def test_folders_without_faces(train: Command, data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    detector = ("--detector", data_dir / "models/face_detection_yunet_2023mar.onnx")
    folder = tmp_path / "photos"
    folder.mkdir()
    train(folder, *detector).refused(2, str(folder), ".jpg")
    cv2.imwrite(str(folder / "black.png"), np.zeros((99, 99, 3), np.uint8))
    train(folder, *detector).refused(2, str(folder), "no face")
    assert not (tmp_path / "basis.npz").exists()


def test_more_components_than_faces_allow(train: Command, faces: Any, tmp_path: Path) -> None:
    for count in (40, 1500, 0, -1):
        train(faces, components=count).refused(2, "40 faces", "1 to 39", str(count))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.npz"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": np.zeros((9, 112, 112), np.uint8)}, ("images", "pictures")),
        ({"images": np.zeros((9, 96, 112), np.uint8)}, ("112", "96")),
        ({"images": np.zeros((9, 112, 112), np.float32)}, ("uint8", "float32")),
        ({"images": np.zeros((9, 112, 112, 3), np.uint8)}, ("112",)),
        ({"images": np.zeros((0, 112, 112), np.uint8)}, ("at least one face",)),
        ({"images": np.zeros((9, 112, 112), np.uint8)}, ("alike",)),
        ({"images": np.array([{}, {}], object)}, ("faces.npz",)),
    ],
)
def test_an_npz_that_holds_no_faces(train: Command, tmp_path: Path, arrays: Any, words: Any) -> None:
    np.savez(tmp_path / "faces.npz", **arrays)
    train(tmp_path / "faces.npz").refused(2, *words)
    assert not (tmp_path / "basis.npz").exists()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short", b"no archive at all"])
def test_a_file_that_is_no_npz(train: Command, tmp_path: Path, content: Any) -> None:
    path = tmp_path / "faces.npz"
    if content is not None:
        path.write_bytes(content)
    train(path).refused(2, str(path))


@pytest.mark.parametrize(("out", "word"), [("basis.npy", ".npz"), ("/proc/basis.npz", "/proc/basis.npz"),
                                           ("/dev/null/basis.npz", "can not be written")])  # fmt: skip
def test_a_destination_that_will_not_do(train: Command, faces: Any, out: Any, word: Any) -> None:
    train(faces, out=out).refused(2, word)


def test_what_stood_there_stays_when_the_disk_is_full(train: Command, faces: Any, tmpfs: Command) -> None:
    disk = tmpfs("512k")
    out = disk / "basis.npz"
    assert train(faces, "--no-picture", out=out).status == 0
    before = out.read_bytes()
    train(faces, "--no-picture", out=out, components=30).refused(2, str(out), "No space left")
    assert out.read_bytes() == before
    assert [path.name for path in disk.iterdir()] == ["basis.npz"]


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Any:
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle"))


def test_calibrate_needs_to_know_whose_faces_they_are(immunogate: Command, copied: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "faces.npz", images=np.zeros((4, 112, 112), np.uint8))
    immunogate("calibrate", "threshold", copied, tmp_path / "faces.npz").refused(2, "faces.npz", "identities")


def test_calibrate_needs_enough_people(immunogate: Command, copied: Path, tmp_path: Path) -> None:
    images = SMOOTH.integers(0, 256, (6, 112, 112), np.uint8)
    np.savez(tmp_path / "faces.npz", images=images, identities=np.array(list("aabbcc")))
    before = (copied / "manifest.json").read_bytes()
    immunogate("calibrate", "threshold", copied, tmp_path / "faces.npz", "--force").refused(2, "12 comparisons", "0.01")
    np.savez(tmp_path / "faces.npz", images=images, identities=np.array(list("aaaaaa")))
    immunogate("calibrate", "threshold", copied, tmp_path / "faces.npz", "--force").refused(
        2, "alarm limits need two halves of people"
    )
    assert (copied / "manifest.json").read_bytes() == before


def test_calibrate_on_a_disk_that_is_full_keeps_the_manifest(
    immunogate: Command, tiny_bundle: Bundle, faces: Any, tmpfs: Command
) -> None:
    size = sum(path.stat().st_size + 8192 for path in tiny_bundle.folder.iterdir())
    disk = tmpfs(str(size))
    bundle = Path(shutil.copytree(tiny_bundle.folder, disk / "bundle"))
    before = (bundle / "manifest.json").read_bytes()
    with (disk / "ballast").open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096):
                pass
        except OSError:
            pass
    immunogate("calibrate", "threshold", bundle, faces, "--force").refused(2, "manifest.json", "No space left")
    assert (bundle / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in bundle.iterdir()) == sorted(path.name for path in tiny_bundle.folder.iterdir())
