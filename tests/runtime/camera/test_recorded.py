"""Pacing of recordings: the times here are real ones, so their bounds are wide."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from immunogate.runtime.camera import open_camera
from immunogate.structs import Pixels

WriteVideo = Callable[..., Path]
NumberOf = Callable[[Pixels], int]


@pytest.mark.data
def test_a_gif_in_real_time_takes_its_own_time(gif: Callable[[str], Path]) -> None:
    with open_camera(str(gif("head-pose-face-detection-male.gif")), realtime=True) as camera:
        started = time.monotonic()
        frames = [next(camera) for _ in range(10)]
        took = time.monotonic() - started
    assert 9 / 12.6 <= took < 9 / 12 + 0.4
    assert frames[-1].index + 1 == 10 + camera.skipped


def test_without_real_time_nothing_waits_and_nothing_is_skipped(write_video: WriteVideo) -> None:
    path = write_video("n.avi", "MJPG", fps=1)
    started = time.monotonic()
    with open_camera(str(path)) as camera:
        frames = list(camera)
    assert time.monotonic() - started < 5
    assert [frame.skipped for frame in frames] == [0] * 26


def test_a_slow_consumer_gets_the_newest_and_the_count(write_video: WriteVideo, number_of: NumberOf) -> None:
    frames = []
    with open_camera(str(write_video("n.avi", "MJPG")), realtime=True) as camera:
        for frame in camera:
            frames.append(frame)
            time.sleep(0.15)
    assert len(frames) < 15
    assert [number_of(frame.pixels) for frame in frames] == [frame.index for frame in frames]
    indices = [-1] + [frame.index for frame in frames]
    assert [frame.skipped for frame in frames] == [b - a - 1 for a, b in itertools.pairwise(indices)]
    assert frames[-1].index == 25, "the last frame stays in front of the lens"
    assert camera.skipped + len(frames) == 26


def test_frames_skipped_before_an_early_end_are_counted(write_video: WriteVideo) -> None:
    path = write_video("n.avi", "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with open_camera(str(path)) as camera:
        whole = len(list(camera))
    with open_camera(str(path), realtime=True) as camera:
        next(camera)
        time.sleep(1.1)
        assert list(camera) == []
    assert camera.skipped == whole - 1 > 5


def test_close_interrupts_the_wait_for_a_frame(write_video: WriteVideo) -> None:
    camera = open_camera(str(write_video("n.avi", "MJPG")), realtime=True, fps=0.01)
    next(camera)
    threading.Timer(0.2, camera.close).start()
    started = time.monotonic()
    assert list(camera) == []
    assert time.monotonic() - started < 2
