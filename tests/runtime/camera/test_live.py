"""The reader thread, on a file capture driven as if it were live: real decoding, and a pace and breaks of our own."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from immunogate.errors import CameraError
from immunogate.runtime.camera import live, pixels
from immunogate.runtime.camera.capture import Capture, open_capture
from immunogate.runtime.camera.live import LiveCamera
from immunogate.structs import Pixels

WriteVideo = Callable[..., Path]
NumberOf = Callable[[Pixels], int]
LENGTH = 26
PERIOD_S = 0.01


class FileDrivenAsLive:
    """A video file that gives a frame each 10 ms whether or not anybody takes it, and breaks off at its end."""

    def __init__(self, path: Path) -> None:
        capture = open_capture(str(path), cv2.CAP_ANY) if path.exists() else None
        if capture is None:
            raise CameraError("rtsp://***@door/ does not answer as a camera")
        self._capture = capture
        self._due = time.monotonic()

    def grab(self) -> bool:
        self._due += PERIOD_S
        time.sleep(max(0.0, self._due - time.monotonic()))
        return self._capture.grab()

    def retrieve(self) -> tuple[bool, Any]:
        return self._capture.retrieve()

    def release(self) -> None:
        self._capture.release()


@pytest.fixture
def video(write_video: WriteVideo) -> Path:
    return write_video("door.avi", "MJPG")


@pytest.fixture
def camera(video: Path) -> Iterator[LiveCamera]:
    with LiveCamera("door", lambda: FileDrivenAsLive(video), first_delay=0.02, longest_delay=0.08) as opened:
        yield opened


def camera_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("camera ")]


def test_a_slow_consumer_gets_the_newest_frame_and_the_count(camera: LiveCamera, number_of: NumberOf) -> None:
    last = -1
    for _ in range(8):
        asked = time.monotonic_ns()
        frame = next(camera)
        assert frame.captured_ns > asked - 200_000_000, "an old frame was handed out"
        assert number_of(frame.pixels) == frame.index % LENGTH
        assert frame.skipped == frame.index - last - 1
        last = frame.index
        time.sleep(0.05)
    assert last > 16
    assert camera.skipped == last + 1 - 8
    assert (camera.is_live, camera.expected_frames) == (True, None)


def test_a_frame_is_handed_out_once(camera: LiveCamera) -> None:
    indices = [next(camera).index for _ in range(10)]
    assert indices == sorted(set(indices))


def test_clocks_run_from_the_first_frame(camera: LiveCamera) -> None:
    frames = [next(camera) for _ in range(5)]
    assert frames[0].media_time == pytest.approx(0, abs=0.2)
    for a, b in itertools.pairwise(frames):
        assert b.media_time - a.media_time == pytest.approx((b.captured_ns - a.captured_ns) / 1e9)
    assert frames[-1].captured_wall == pytest.approx(time.time(), abs=5)


def test_a_source_that_breaks_off_is_opened_again(camera: LiveCamera, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        while next(camera).index < 2 * LENGTH:
            pass
    assert camera.reopened == 2
    assert caplog.text.count("gives no frames; opening it again in 0.0 s") == 2


def test_attempts_grow_rarer_and_start_anew_after_a_frame(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    away = video.with_suffix(".away")
    with LiveCamera("rtsp://***@door/", lambda: FileDrivenAsLive(video), first_delay=0.1, longest_delay=0.4) as camera:
        next(camera)
        video.rename(away)
        while caplog.text.count("opening it again") < 5:
            time.sleep(0.01)
        away.rename(video)
        while next(camera).index < LENGTH:
            pass
        while caplog.text.count("opening it again") < 7:
            time.sleep(0.01)
    delays = [record.args[1] for record in caplog.records if "opening it again" in record.msg and record.args]  # type: ignore[index]
    assert delays[:5] == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4])
    assert 0.1 in delays[5:]
    assert "does not answer as a camera" in caplog.text


def test_a_first_connection_that_fails_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="does not answer"):
        LiveCamera("door", lambda: FileDrivenAsLive(tmp_path / "nowhere.avi"))
    assert camera_threads() == []


def test_close_interrupts_the_wait_before_reopening(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    camera = LiveCamera("door", lambda: FileDrivenAsLive(video), first_delay=60)
    while "opening it again" not in caplog.text:
        time.sleep(0.01)
    started = time.monotonic()
    camera.close()
    assert time.monotonic() - started < 1
    assert camera_threads() == []
    assert list(camera) == []


def test_close_from_another_thread_ends_a_consumer_that_waits(video: Path) -> None:
    camera = LiveCamera("door", lambda: FileDrivenAsLive(video), first_delay=60)
    threading.Timer(0.6, camera.close).start()
    frames = list(camera)  # waits for the reopening that is a minute away
    assert 1 <= len(frames) <= LENGTH
    camera.close()


def test_the_thread_never_keeps_the_program_from_ending(camera: LiveCamera) -> None:
    assert camera_threads() == ["camera door"]
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "camera door")


def test_a_frame_above_the_limit_reaches_the_consumer_as_an_error(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "PIXEL_LIMIT", 64 * 48 - 1)
    with (
        LiveCamera("door", lambda: FileDrivenAsLive(video)) as camera,
        pytest.raises(CameraError, match="64 x 48"),
    ):
        next(camera)


def test_a_fault_of_the_thread_reaches_the_consumer(video: Path) -> None:
    opened: list[Capture] = []

    def connect_once() -> Capture:
        if opened:
            raise MemoryError
        opened.append(FileDrivenAsLive(video))
        return opened[0]

    with LiveCamera("door", connect_once, first_delay=0.01) as camera, pytest.raises(MemoryError):
        for _ in camera:
            pass


def test_the_delays_of_real_cameras() -> None:
    assert (live.FIRST_DELAY_S, live.LONGEST_DELAY_S) == (0.5, 30.0)
