"""A camera and its workers, on a FAKE camera that misbehaves as planned, and on a real worker with real files."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from outages import COMMAND, QUICK, is_alive, lives, order

from immunogate.errors import CameraError, UsageError
from immunogate.runtime.camera import live
from immunogate.runtime.camera.live import LiveCamera, expect_open
from immunogate.runtime.camera.opening import order_for
from immunogate.runtime.camera.patience import Patience
from immunogate.runtime.camera.worker.process import WorkerProcess
from immunogate.structs import Pixels

WriteVideo = Callable[..., Path]
NumberOf = Callable[[Pixels], int]
OpenFake = Callable[..., LiveCamera]
SECRET = "hunter2-door"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "lives.log"


@pytest.fixture
def fake(log: Path) -> Iterator[OpenFake]:
    opened: list[LiveCamera] = []

    def make(*plan: str, patience: Patience = QUICK) -> LiveCamera:
        opened.append(LiveCamera("door", order(log, plan=plan), patience, seed=1, command=COMMAND))
        return opened[-1]

    yield make
    for camera in opened:
        camera.close()
    assert not any(is_alive(pid) for pid, _ in lives(log))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("camera ")] == []


def frames_until(camera: LiveCamera, log: Path, life: int) -> None:
    """Take frames until that life, from 1, has given one."""
    while next(camera) and len(lives(log)) < life:
        pass
    next(camera)


def test_a_slow_consumer_gets_the_newest_frame_and_the_count(fake: OpenFake) -> None:
    camera, last = fake(), -1
    for _ in range(8):
        frame = next(camera)
        assert frame.captured_ns > time.monotonic_ns() - 500_000_000, "an old frame was handed out"
        assert frame.skipped == frame.index - last - 1
        last = frame.index
        time.sleep(0.05)
    assert camera.skipped == last + 1 - 8 > 8
    assert (camera.is_live, camera.expected_frames) == (True, None)


def test_a_frame_is_handed_out_once_whole_and_of_its_own_memory(fake: OpenFake) -> None:
    camera = fake()
    frames = [next(camera) for _ in range(30)]
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    for frame in frames:  # 29 frames later than the first was taken, nothing has written into it
        assert (frame.pixels == frame.index % 251).all()


def test_the_size_may_change_at_any_frame(fake: OpenFake) -> None:
    camera, sizes = fake(), set()
    while len(sizes) < 3:
        sizes.add(next(camera).pixels.shape)
    assert camera.outages == {}


def test_clocks_run_from_the_first_frame_whatever_the_wall_says(fake: OpenFake) -> None:
    camera = fake()
    frames = [next(camera) for _ in range(60)]
    assert frames[0].media_time == 0
    for a, b in itertools.pairwise(frames):
        assert b.media_time - a.media_time == pytest.approx((b.captured_ns - a.captured_ns) / 1e9)
        assert b.media_time > a.media_time
    jumps = [frame for frame in frames if abs(frame.captured_wall - time.time()) > 3600]
    assert jumps, "the fake's wall clock jumps in one frame of ten"


@pytest.mark.parametrize(
    ("end", "kind"), [("stall", "hung"), ("die", "died"), ("garbage", "garbage"), ("fail", "failed")]
)
def test_a_worker_that_ends_badly_is_replaced(fake: OpenFake, log: Path, end: str, kind: str) -> None:
    camera = fake(end, end)
    frames_until(camera, log, 3)
    assert camera.outages == {kind: 2}
    assert camera.reopened == 2
    assert not any(is_alive(pid) for pid, _ in lives(log)[:2]), "a worker was left behind"


def test_every_kind_of_garbage_is_seen_as_such(fake: OpenFake, log: Path) -> None:
    kinds = [f"garbage {number}" for number in range(13)]
    camera = fake(*kinds, patience=replace(QUICK, read_s=30))
    frames_until(camera, log, 14)
    assert camera.outages == {"garbage": 13}


def test_the_last_words_of_a_worker_that_left_mail_unread_are_heard() -> None:
    code = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).send(b'farewell')"
    worker = WorkerProcess([sys.executable, "-S", "-c", code], b"an order that nobody reads")
    worker._process.wait(30)
    assert worker.receive(5) == b"farewell"
    assert worker.receive(5) == b""
    assert worker.end(QUICK, at_once=False)


def test_indices_and_clocks_go_on_over_an_outage(fake: OpenFake, log: Path) -> None:
    camera, frames = fake("die", "fail"), []
    while len(lives(log)) < 3:
        frames.append(next(camera))
    frames += [next(camera) for _ in range(3)]
    assert all(a.index < b.index and a.media_time < b.media_time for a, b in itertools.pairwise(frames))
    assert camera.skipped == frames[-1].index + 1 - len(frames)


def test_attempts_grow_rarer_and_start_anew_after_a_frame(
    fake: OpenFake, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    patience = replace(QUICK, first_delay_s=0.02, longest_delay_s=0.08, jitter=0.25)
    camera = fake("fail", "refuse", "refuse", "refuse", "refuse", "fail", patience=patience)
    frames_until(camera, log, 7)
    delays = [record.args[2] for record in caplog.records if "opening it again" in record.msg and record.args]  # type: ignore[index]
    for delay, most in zip(delays, [0.02, 0.04, 0.08, 0.08, 0.08, 0.02], strict=True):
        assert 0.75 * most <= float(str(delay)) <= most
    assert len(set(delays)) == len(delays), "the delays are drawn"
    assert "the camera is busy; opening it again" in caplog.text


def test_a_first_connection_that_fails_is_told_at_once(fake: OpenFake, log: Path) -> None:
    with pytest.raises(CameraError, match=r"the camera is busy\. Close other programs"):
        expect_open(fake("refuse"))


def test_wrong_use_is_told_to_who_asked(fake: OpenFake) -> None:
    with pytest.raises(UsageError, match="there is no such camera"):
        expect_open(fake("wrong use"))


def test_a_device_that_is_not_there_for_a_while_is_an_outage(fake: OpenFake, log: Path) -> None:
    camera = fake("fail", "wrong use")  # unplugged, and plugged in again
    frames_until(camera, log, 3)
    assert camera.outages == {"failed": 2}


def test_a_recording_that_is_over_ends_the_camera(fake: OpenFake, log: Path) -> None:
    frames = list(fake("over"))
    assert frames
    assert len(lives(log)) == 1


def test_close_interrupts_the_wait_before_reopening(fake: OpenFake) -> None:
    camera = fake("refuse", patience=replace(QUICK, first_delay_s=60, longest_delay_s=60))
    assert camera.wait_until_open() is not None
    started = time.monotonic()
    camera.close()
    assert time.monotonic() - started < 1
    assert list(camera) == []


def test_close_from_another_thread_ends_a_consumer_that_waits(fake: OpenFake) -> None:
    camera = fake("fail", patience=replace(QUICK, first_delay_s=60, longest_delay_s=60))
    timer = threading.Timer(0.6, camera.close)
    timer.start()
    assert list(camera)
    timer.join()


def test_a_worker_that_hangs_is_no_reason_to_close_late(fake: OpenFake, log: Path) -> None:
    camera = fake("stall", patience=replace(QUICK, read_s=60))
    next(camera)
    time.sleep(0.2)
    started = time.monotonic()
    camera.close()
    assert time.monotonic() - started < 3
    assert not is_alive(lives(log)[0][0])


class UnkillableByTheKernel(subprocess.Popen):  # type: ignore[type-arg]
    """A FAKE: as a process whose driver hangs in the kernel, which SIGKILL does not end before it comes back."""

    def kill(self) -> None: ...


def test_a_worker_that_can_not_be_killed_is_left_beside_a_new_one(
    fake: OpenFake, log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subprocess, "Popen", UnkillableByTheKernel)
    camera = fake("stall", patience=replace(QUICK, kill_s=0.2))
    try:
        frames_until(camera, log, 2)
        monkeypatch.undo()
        stuck, fresh = (pid for pid, _ in lives(log))
        assert camera.abandoned == 1
        assert is_alive(stuck)
        assert is_alive(fresh)
        assert f"process {stuck} was killed and hangs on in the kernel" in caplog.text
    finally:
        os.kill(lives(log)[0][0], signal.SIGKILL)  # what the kernel did not do
        while is_alive(lives(log)[0][0]):
            time.sleep(0.01)


def test_a_machine_without_a_free_process_is_waited_for(
    fake: OpenFake, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        monkeypatch.undo()
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(live, "WorkerProcess", full)
    camera = fake()
    assert next(camera).index == 0
    assert camera.outages == {"failed": 1}


def test_a_real_worker_reads_a_real_video_at_its_pace(write_video: WriteVideo, number_of: NumberOf) -> None:
    path = write_video("door.avi", "MJPG")
    with LiveCamera("door", order_for(str(path), Patience())) as camera:
        frames = list(camera)
    assert all(number_of(frame.pixels) == frame.index for frame in frames)
    assert frames[-1].index == 25
    assert frames[-1].media_time > 0.5


@pytest.mark.data
def test_a_real_worker_reads_a_real_gif(gif: Callable[[str], Path]) -> None:
    with LiveCamera("door", order_for(str(gif("head-pose-face-detection-male.gif")), Patience(), fps=1000)) as camera:
        frames = list(camera)
    assert len({frame.pixels.shape for frame in frames}) == 1
    assert frames[-1].pixels.std() > 20


def test_a_capped_camera_hands_over_so_many_frames() -> None:
    asked = order_for("synthetic://?width=64&height=48&frames=100&fps=100", Patience(), fps_cap=20)
    with LiveCamera("door", asked) as camera:
        frames = list(camera)
    assert 5 <= len(frames) <= 22
    assert camera.skipped >= 60
    assert all(b.captured_ns - a.captured_ns > 20_000_000 for a, b in itertools.pairwise(frames[1:]))


def test_what_a_real_worker_can_not_open_is_told_without_the_password(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = f"rtsp://joe:{SECRET}@127.0.0.1:9/door"
    camera = LiveCamera("door", order_for(uri, Patience()))
    try:
        while camera._worker is None:
            time.sleep(0.001)
        words = Path(f"/proc/{camera._worker.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{camera._worker.pid}/environ").read_bytes()
        outage = camera.wait_until_open()
    finally:
        camera.close()
    assert outage is not None
    assert "rtsp://***@127.0.0.1:9/door does not answer as a camera" in outage.what
    assert SECRET.encode() not in words + environment
    assert SECRET not in f"{outage} {order_for(uri, Patience())!r} {caplog.text}" + "".join(capfd.readouterr())


def test_the_patience_with_real_cameras() -> None:
    usual = Patience()
    assert (usual.first_delay_s, usual.longest_delay_s, usual.read_s) == (0.5, 30.0, 10.0)
    with pytest.raises(UsageError, match="read_s"):
        Patience(read_s=0)
    with pytest.raises(UsageError, match="jitter"):
        Patience(jitter=1)
