"""Frames as they come in the wild: odd depths, odd sizes, none at all, cut off or corrupt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Command = Callable[..., Any]

NOISE = np.random.default_rng(3).integers(0, 256, (120, 160, 3), np.uint8)


@pytest.fixture
def face(data_dir: Path) -> Any:
    """A real frame with a face, (270, 480, 3)."""
    found, pixels = cv2.VideoCapture(str(data_dir / "video/head-pose-face-detection-male.gif")).read()
    assert found
    return pixels


def _decide(gate: Command, folder: Path) -> Any:
    done = gate(folder, "--json")
    assert done.status == 0, done.err
    assert "Traceback" not in done.err
    return done.lines()


@pytest.mark.data
@pytest.mark.parametrize(
    "store",
    [
        pytest.param(lambda face: face, id="8 bits"),
        pytest.param(lambda face: face.astype(np.uint16) * 257, id="16 bits"),
        pytest.param(lambda face: cv2.cvtColor(face, cv2.COLOR_BGR2BGRA), id="BGRA"),
        pytest.param(lambda face: cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), id="grey"),
        pytest.param(lambda face: cv2.cvtColor(face, cv2.COLOR_BGR2GRAY).astype(np.uint16) * 257, id="grey 16 bits"),
    ],
)
def test_a_face_is_found_whatever_the_depth(gate: Command, face: Any, store: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "plain.png"), face)
    cv2.imwrite(str(tmp_path / "stored.png"), store(face))
    plain, stored = _decide(gate, tmp_path)
    assert stored["frame"] == 1
    assert np.allclose(stored["box"], plain["box"], atol=4)
    assert stored["similarity"] == pytest.approx(plain["similarity"], abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (7, 5), (31, 33), (33, 31), (3000, 2500)])
def test_a_frame_of_any_size_is_looked_at(gate: Command, shape: tuple[int, int], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "odd.png"), cv2.resize(NOISE, shape[::-1]))
    done = gate(tmp_path, "--json")
    assert done.status == 0
    assert "1 frames in" in done.err
    assert "failed" not in done.err
    assert "Traceback" not in done.err


def test_frames_of_changing_size_go_into_one_video(gate: Command, tmp_path: Path) -> None:
    for index, shape in enumerate([(60, 80), (120, 50), (7, 7)]):
        cv2.imwrite(str(tmp_path / f"{index}.png"), cv2.resize(NOISE, shape[::-1]))
    done = gate(tmp_path, "--annotate", tmp_path / "seen.mp4")
    assert done.status == 0, done.err
    capture = cv2.VideoCapture(str(tmp_path / "seen.mp4"))
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == 3


def test_zero_faces_are_zero_decisions(gate: Command, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((240, 320, 3), np.uint8))
    summary = tmp_path / "summary.json"
    done = gate(tmp_path, "--json", "--summary", summary)
    assert (done.status, done.out) == (0, "")
    counted = json.loads(summary.read_text(encoding="utf-8"))
    assert (counted["faces"], counted["decisions"]) == (0, 0)


def test_a_corrupt_picture_among_good_ones_is_named_and_passed_over(gate: Command, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), NOISE)
    good = (tmp_path / "1.png").read_bytes()
    (tmp_path / "2.png").write_bytes(good[: len(good) // 3])
    (tmp_path / "3.jpg").write_bytes(b"\xff\xd8\xff and no more")
    (tmp_path / "4.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "5.png"), NOISE)
    done = gate(tmp_path, "--json")
    assert done.status == 0
    assert "2 frames in" in done.err
    for name in ("2.png", "3.jpg", "4.png"):
        assert name in done.err
    assert "Traceback" not in done.err


def test_nothing_but_corrupt_pictures_is_an_error(gate: Command, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    gate(tmp_path).refused(1, str(tmp_path), "no frame that can be decoded")


def test_one_corrupt_picture_is_an_error(gate: Command, tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    gate(path).refused(2, str(path))


def test_a_picture_that_unpacks_to_too_much_is_refused_unopened(gate: Command, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    cv2.imwrite(str(path), NOISE)
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(data)
    gate(path).refused(2, "60000 x 60000", "limit")


def test_a_folder_without_pictures(gate: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    gate(tmp_path).refused(2, str(tmp_path), "no picture", ".png")


@pytest.mark.data
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_video_that_is_cut_off_is_read_as_far_as_it_goes_and_warned_of(
    gate: Command, data_dir: Path, tmp_path: Path, share: float
) -> None:
    whole = (data_dir / "video/head-pose-face-detection-male.gif").read_bytes()
    path = tmp_path / "cut.gif"
    path.write_bytes(whole[: int(len(whole) * share)])
    done = gate(path, "--json")
    assert "Traceback" not in done.err
    assert done.status == 0, done.err
    assert "cut off" in done.err
    assert str(path) in done.err


@pytest.mark.data
def test_a_whole_video_is_not_called_cut_off(gate: Command, data_dir: Path) -> None:
    assert "cut off" not in gate(data_dir / "video/head-pose-face-detection-male.gif", "--json").err


def test_a_motion_jpeg_that_is_cut_off(gate: Command, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for _ in range(20):
        writer.write(NOISE)
    writer.release()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    done = gate(path, "--json")
    assert "Traceback" not in done.err
    assert done.status == 0, done.err
    assert "cut off or damaged" in done.err
    path.write_bytes(data[:200])
    gate(path).refused(1, str(path))
