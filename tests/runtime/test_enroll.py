from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.files import sha256_of_file
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.enroll import MOST_YAW, Attempt, attempt_all
from immunogate.runtime.gallery import Gallery
from immunogate.runtime.match import match
from immunogate.structs import Frame, Pixels

pytestmark = pytest.mark.data

Clip = Callable[[str], list[Frame]]
Write = Callable[[str, Pixels], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def save(name: str, pixels: Pixels) -> Path:
        assert cv2.imwrite(str(tmp_path / name), pixels)
        return tmp_path / name

    return save


def attempt(chain: FaceChain, path: Path) -> Attempt:
    (found,) = attempt_all(chain, [("ann", path)])
    assert (found.person, found.picture) == ("ann", path)
    assert (found.sample is None) == bool(found.reason)
    return found


def test_good_pictures_become_samples(real_chain: FaceChain, photos: list[Pixels], write: Write) -> None:
    found = [attempt(real_chain, write(f"{i}.png", photo)) for i, photo in enumerate(photos[:20])]
    samples = [a.sample for a in found if a.sample]
    assert len(samples) >= 15, [a.reason for a in found]
    for made in samples:
        assert made.embedding.shape == (128,)
        assert np.linalg.norm(made.embedding) == pytest.approx(1, abs=1e-5)
        assert made.person == "ann"


def test_the_sample_is_the_purified_face_and_names_its_file(real_chain: FaceChain, clip: Clip, write: Write) -> None:
    path = write("man.png", clip("man")[0].pixels)
    made = attempt(real_chain, path).sample
    assert made is not None
    assert (made.picture, made.picture_sha256) == ("man.png", sha256_of_file(path))
    pixels = clip("man")[0].pixels
    crop, _ = real_chain.crop(pixels, real_chain.detector.detect(pixels).landmarks[0])
    found = real_chain.recognise(crop[None], [0], [0])
    np.testing.assert_allclose(made.embedding, found.purified[0], atol=1e-5)
    assert np.abs(made.embedding - found.raw[0]).max() > 1e-3


def test_who_was_enrolled_is_found_again(
    real_chain: FaceChain, real_bundle: Bundle, clip: Clip, write: Write, tmp_path: Path
) -> None:
    manifest = real_bundle.manifest
    attempts = [attempt(real_chain, write(f"{i}.png", clip("man")[i].pixels)) for i in (0, 20, 40)]
    binding = manifest.embedding_hash(), manifest.recogniser.embedding_dimension
    with Gallery(tmp_path / "gallery.db", *binding, create=True) as gallery:
        assert gallery.enroll([a.sample for a in attempts if a.sample]) == 3
        templates = gallery.templates()
    pixels = clip("man")[30].pixels
    crop, _ = real_chain.crop(pixels, real_chain.detector.detect(pixels).landmarks[0])
    found = match(templates, real_chain.recognise(crop[None], [0], [0]).purified[0])
    assert found.person == "ann"
    assert found.similarity > 0.9


def test_no_face(real_chain: FaceChain, write: Write, noise: Pixels) -> None:
    assert attempt(real_chain, write("noise.png", noise)).reason == "no face found"
    assert attempt(real_chain, write("dot.png", np.zeros((1, 1, 3), np.uint8))).reason == "no face found"


def test_two_faces_of_one_size(real_chain: FaceChain, clip: Clip, write: Write) -> None:
    assert "2 faces of similar size" in attempt(real_chain, write("both.png", clip("both")[0].pixels)).reason


def test_a_face_in_the_background_does_not_matter(real_chain: FaceChain, clip: Clip, write: Write) -> None:
    frame = clip("man")[0].pixels
    small = np.asarray(cv2.resize(frame, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA), np.uint8)
    wide = np.full((270, 480 + small.shape[1], 3), 128, np.uint8)
    wide[:, :480], wide[: small.shape[0], 480:] = frame, small
    assert len(real_chain.detector.detect(wide)) == 2
    found, alone = attempt(real_chain, write("wide.png", wide)), attempt(real_chain, write("alone.png", frame))
    assert found.sample is not None, found.reason
    assert alone.sample is not None
    assert float(found.sample.embedding @ alone.sample.embedding) > 0.9  # the wide picture is shrunk to be searched


def test_too_small(real_chain: FaceChain, photos: list[Pixels], write: Write) -> None:
    small = np.asarray(cv2.resize(photos[0], None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA), np.uint8)
    assert "too small" in attempt(real_chain, write("small.png", small)).reason


def test_blurred(real_chain: FaceChain, clip: Clip, write: Write) -> None:
    blurred = np.asarray(cv2.GaussianBlur(clip("man")[0].pixels, (0, 0), 4), np.uint8)
    assert "too blurred" in attempt(real_chain, write("blurred.png", blurred)).reason


@pytest.mark.parametrize("photo", ["George_Allen/George_Allen_0001.jpg", "Ahmad_Masood/Ahmad_Masood_0002.jpg"])
def test_turned_away(real_chain: FaceChain, data_dir: Path, tmp_path: Path, photo: str) -> None:
    with zipfile.ZipFile(data_dir / "faces" / "lfw_dev_photos.zip") as archive:
        path = Path(archive.extract(photo, tmp_path))
    found = attempt(real_chain, path)
    assert "turned away" in found.reason
    assert f"at most {MOST_YAW:.2f}" in found.reason


def test_files_that_are_no_pictures_or_are_damaged(real_chain: FaceChain, photos: list[Pixels], tmp_path: Path) -> None:
    good = cv2.imencode(".jpg", photos[0])[1].tobytes()
    contents = {
        "text.jpg": b"not a picture at all",
        "empty.jpg": b"",
        "cut.jpg": good[: len(good) // 2],
        "header.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 30,
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        reason = attempt(real_chain, tmp_path / name).reason
        assert name in reason
    assert "can not be read" in attempt(real_chain, tmp_path / "absent.jpg").reason


def test_a_picture_that_fails_never_stops_the_others(
    real_chain: FaceChain, clip: Clip, write: Write, noise: Pixels, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 and nothing more")
    jobs = [
        ("ann", tmp_path / "broken.jpg"),
        ("ann", write("noise.png", noise)),
        ("bob", write("man.png", clip("man")[0].pixels)),
        ("cid", write("both.png", clip("both")[0].pixels)),
        ("bob", write("again.png", clip("man")[5].pixels)),
    ]
    found = list(attempt_all(real_chain, jobs))
    assert [(a.person, a.picture) for a in found] == jobs
    assert [a.sample is not None for a in found] == [False, False, True, False, True]


@pytest.mark.parametrize("error", [ValueError("not finite"), cv2.error("too wide")])
def test_errors_on_the_way_are_reasons(
    real_chain: FaceChain, clip: Clip, write: Write, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The recogniser's NaN, and OpenCV 4, which can not warp a picture of more than 32,767 pixels a side."""

    def fail(*_: object) -> None:
        raise error

    path = write("man.png", clip("man")[0].pixels)
    monkeypatch.setattr(real_chain, "crop" if isinstance(error, cv2.error) else "recognise", fail)
    assert str(error) in attempt(real_chain, path).reason
