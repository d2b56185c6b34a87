from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from immunogate.errors import CameraError, InputError, UsageError
from immunogate.runtime.camera import open_camera, pixels
from immunogate.runtime.camera.files import natural_key
from immunogate.structs import Pixels

NUMBERS = 26
WriteVideo = Callable[..., Path]
NumberOf = Callable[[Pixels], int]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count"),
    [("head-pose-face-detection-male.gif", 62), ("head-pose-face-detection-female-and-male.gif", 56)],
)
def test_a_real_gif_is_read_whole(gif: Callable[[str], Path], name: str, count: int) -> None:
    with open_camera(str(gif(name))) as camera:
        assert (camera.is_live, camera.expected_frames) == (False, count)
        frames = list(camera)
    assert [frame.index for frame in frames] == list(range(count))
    assert {frame.pixels.shape for frame in frames} == {(270, 480, 3)}
    # The delays are 80 and 90 ms: OpenCV 4 calls that 12 frames/s and OpenCV 5 calls it 12.5.
    rate = 1 / frames[1].media_time
    assert 11.9 < rate < 12.6
    assert [frame.media_time for frame in frames] == pytest.approx([i / rate for i in range(count)])
    assert [frame.captured_ns for frame in frames] == sorted(frame.captured_ns for frame in frames)
    assert camera.skipped == 0
    moved = [np.abs(a.pixels.astype(int) - b.pixels).max() for a, b in itertools.pairwise(frames)]
    assert np.count_nonzero(moved) > count // 2, "the frames do not move"


@pytest.mark.parametrize(("name", "fourcc"), [("n.mp4", "mp4v"), ("n.avi", "MJPG"), ("n.mkv", "mp4v")])
def test_every_frame_of_a_video_comes_once_and_in_order(
    write_video: WriteVideo, number_of: NumberOf, name: str, fourcc: str
) -> None:
    path = write_video(name, fourcc)
    with open_camera(f"file://{path}") as camera:
        frames = list(camera)
    assert [number_of(frame.pixels) for frame in frames] == list(range(NUMBERS))
    assert [frame.media_time for frame in frames] == pytest.approx([i / 25 for i in range(NUMBERS)])
    assert {frame.camera for frame in frames} == {f"file://{path}"}


def test_a_given_rate_replaces_the_file_s_own(write_video: WriteVideo) -> None:
    with open_camera(str(write_video("n.avi", "MJPG")), fps=10) as camera:
        assert [frame.media_time for frame in camera][:3] == pytest.approx([0, 0.1, 0.2])


def test_a_name_that_looks_like_a_protocol_is_a_file(write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video("concat:n.avi", "MJPG")
    monkeypatch.chdir(path.parent)
    with open_camera("concat:n.avi") as camera:
        assert len(list(camera)) == NUMBERS


def test_a_cut_off_video_gives_what_it_has_and_a_warning(
    write_video: WriteVideo, number_of: NumberOf, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video("n.avi", "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with open_camera(str(path)) as camera, caplog.at_level(logging.WARNING):
        numbers = [number_of(frame.pixels) for frame in camera]
    assert 5 < len(numbers) < NUMBERS
    assert numbers == list(range(len(numbers)))
    assert f"ended after {len(numbers)} of {NUMBERS} announced frames" in caplog.text


def test_a_whole_video_ends_without_a_warning(write_video: WriteVideo, caplog: pytest.LogCaptureFixture) -> None:
    with open_camera(str(write_video("n.avi", "MJPG"))) as camera:
        assert len(list(camera)) == NUMBERS
        assert list(camera) == []
    assert not caplog.records


def test_a_video_without_its_index_is_a_camera_error(
    write_video: WriteVideo, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_video("n.mp4", "mp4v")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CameraError, match=r"n\.mp4"):
        open_camera(str(path))
    assert "moov" not in capfd.readouterr().err


def test_a_video_that_yields_no_frame_is_a_camera_error(write_video: WriteVideo) -> None:
    path = write_video("n.avi", "MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 4])
    with pytest.raises(CameraError, match=r"n\.avi"), open_camera(str(path)) as camera:
        next(camera)


@pytest.mark.parametrize("data", [b"", b"a letter to the door", bytes(10_000)])
def test_a_file_that_is_no_video_is_a_camera_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd.mp4").write_bytes(data)
    with pytest.raises(CameraError, match=r"odd\.mp4"):
        open_camera(str(tmp_path / "odd.mp4"))


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody"):
        open_camera(str(tmp_path / "nobody.mp4"))


def test_a_video_above_the_pixel_limit_is_a_camera_error(
    write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video("n.avi", "MJPG")
    monkeypatch.setattr(pixels, "PIXEL_LIMIT", 64 * 48 - 1)
    with pytest.raises(CameraError, match="64 x 48"):
        open_camera(str(path))


def test_close_ends_the_iteration(write_video: WriteVideo) -> None:
    camera = open_camera(str(write_video("n.avi", "MJPG")))
    assert next(camera).index == 0
    camera.close()
    camera.close()
    assert list(camera) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "faces"
    where.mkdir()
    grey = np.full((20, 30), 40, np.uint8)
    cv2.imwrite(str(where / "p1.png"), grey)
    cv2.imwrite(str(where / "p10.png"), np.full((8, 9, 3), 5 * 257, np.uint16))
    cv2.imwrite(str(where / "P2.PNG"), np.full((20, 30, 4), (80, 80, 80, 128), np.uint8))
    cv2.imwrite(str(where / "p3.jpg"), np.full((50, 60, 3), 120, np.uint8))
    (where / "notes.txt").write_text("not a picture")
    (where / "p4.jpg").mkdir()
    return where


def test_a_folder_comes_in_natural_order_and_any_format(folder: Path) -> None:
    with open_camera(str(folder), fps=2) as camera:
        assert camera.expected_frames == 4
        frames = list(camera)
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [40, 40, 120, 5]
    assert [frame.pixels.shape[:2] for frame in frames] == [(20, 30), (20, 30), (50, 60), (8, 9)]
    assert [frame.media_time for frame in frames] == [0, 0.5, 1, 1.5]
    assert camera.unreadable == []


def test_an_unreadable_picture_is_named_and_passed_over(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = folder / "p2b.jpg"
    data = (folder / "p3.jpg").read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    with open_camera(str(folder)) as camera:
        frames = list(camera)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert camera.unreadable == [damaged]
    assert camera.expected_frames == 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "p2b.jpg" in caplog.text


def test_a_folder_of_unreadable_pictures_is_a_camera_error(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.write_bytes(b"ruined")
    with open_camera(str(folder)) as camera, pytest.raises(CameraError, match="faces"):
        list(camera)
    assert len(camera.unreadable) == 4


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        open_camera(str(tmp_path))


def test_a_single_picture_is_one_frame(folder: Path) -> None:
    shutil.copy(folder / "p3.jpg", folder / "p3.mp4")  # the content tells, not the name
    with open_camera(str(folder / "p3.mp4")) as camera:
        assert camera.expected_frames == 1
        assert [frame.pixels.shape for frame in camera] == [(50, 60, 3)]


def test_a_single_damaged_picture_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "face.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(40))
    with pytest.raises(InputError, match=r"face\.jpg"), open_camera(str(tmp_path / "face.jpg")) as camera:
        next(camera)


def test_natural_order() -> None:
    names = ["a10", "a2", "A1", "a", "10", "9", "a2b10", "a2b9", "b"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural_key)]
    assert ordered == ["9", "10", "a", "A1", "a2", "a2b9", "a2b10", "a10", "b"]
