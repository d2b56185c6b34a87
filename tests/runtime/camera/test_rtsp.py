"""Network cameras against a real RTSP server with a password, killed, restarted and stalled on the way."""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immunogate.errors import CameraError
from immunogate.runtime.camera import open_camera
from immunogate.runtime.camera.live import LiveCamera
from immunogate.runtime.camera.opening import order_for
from immunogate.runtime.camera.patience import Patience
from immunogate.structs import Frame, Pixels

pytestmark = pytest.mark.integration

NumberOf = Callable[[Pixels], int]
NUMBERS = 26
PASSWORD = "hunter2-door"
PACKAGES = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)
PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


def python_with_gstreamer() -> str:
    for candidate in (sys.executable, "/usr/bin/python3", shutil.which("python3")):
        if candidate and Path(candidate).exists():
            probe = subprocess.run([candidate, "-c", PROBE], capture_output=True, check=False)
            if probe.returncode == 0:
                return candidate
    pytest.skip(f"there is no GStreamer RTSP server for Python; on Debian: apt-get install {PACKAGES}")


class Server:
    """The server as a process; several lives on one port."""

    def __init__(self) -> None:
        self._python = python_with_gstreamer()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"rtsp://joe:{PASSWORD}@127.0.0.1:{self.port}/door"

    def start(self, codec: str = "jpeg") -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        command = [self._python, str(script), str(self.port), codec, "joe", PASSWORD]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def send(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.kill()


def frames_in_order(frames: list[Frame], number_of: NumberOf) -> bool:
    """Whether the numbers that the pictures show advance as the indices say."""
    first = number_of(frames[0].pixels) - frames[0].index
    return all(number_of(frame.pixels) == (first + frame.index) % NUMBERS for frame in frames)


@pytest.mark.parametrize(("codec", "transport"), [("jpeg", None), ("h264", "tcp"), ("jpeg", "udp")])
def test_frames_come_in_order_at_their_rate(
    server: Server, number_of: NumberOf, codec: str, transport: str | None
) -> None:
    server.start(codec)
    with open_camera(server.uri, transport=transport) as camera:
        frames = [next(camera) for _ in range(50)]
    assert camera.name == f"rtsp://***@127.0.0.1:{server.port}/door"
    assert camera.is_live
    assert frames_in_order(frames, number_of)
    passed = frames[-1].media_time / frames[-1].index
    assert passed == pytest.approx(1 / 25, rel=0.25), "a backlog was handed out in a burst"


def test_a_slow_consumer_gets_the_newest(server: Server, number_of: NumberOf) -> None:
    server.start()
    frames = []
    with open_camera(server.uri) as camera:
        for frame in camera:
            assert frame.captured_ns > time.monotonic_ns() - 300_000_000
            frames.append(frame)
            time.sleep(0.2)
            if len(frames) == 8:
                break
    assert frames_in_order(frames, number_of)
    assert all(frame.skipped >= 2 for frame in frames[1:])
    assert camera.skipped == sum(frame.skipped for frame in frames)


def test_a_wrong_password_is_a_camera_error(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.start()
    with pytest.raises(CameraError, match="password") as caught:
        open_camera(server.uri.replace(PASSWORD, "hunter3-door"))
    assert "hunter" not in str(caught.value) + caplog.text


def test_a_server_killed_and_restarted_gives_frames_again(
    server: Server, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    server.start()
    with caplog.at_level(logging.INFO), open_camera(server.uri) as camera:
        before = [next(camera) for _ in range(10)][-1]
        server.kill()
        while "does not answer" not in caplog.text:
            time.sleep(0.05)
        server.start()
        after = next(frame for frame in camera if frame.captured_ns > before.captured_ns + 500_000_000)
        assert isinstance(camera, LiveCamera)
        assert camera.reopened == 1
    assert after.index > before.index
    assert after.media_time > before.media_time + 0.5
    assert "it gives no more frames; opening it again in 0." in caplog.text
    assert "is open again" in caplog.text
    assert PASSWORD not in caplog.text + "".join(capfd.readouterr())


def test_a_server_that_stalls_is_dropped_after_the_read_time_out(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.start()
    patience = Patience(read_s=1)
    with LiveCamera("door", order_for(server.uri, patience), patience) as camera:
        next(camera)
        server.send(signal.SIGSTOP)  # the connection stays up and nothing comes
        stalled = time.monotonic()
        while "opening it again" not in caplog.text:
            assert time.monotonic() - stalled < 6
            time.sleep(0.05)
        server.send(signal.SIGCONT)
        resumed = time.monotonic_ns()
        assert next(frame for frame in camera if frame.captured_ns > resumed)
        assert camera.reopened >= 1


def test_close_comes_back_soon_even_in_a_stall(server: Server) -> None:
    server.start()
    camera = open_camera(server.uri)
    next(camera)
    server.send(signal.SIGSTOP)
    time.sleep(0.3)
    started = time.monotonic()
    camera.close()
    assert time.monotonic() - started < 4
    assert list(camera) == []
