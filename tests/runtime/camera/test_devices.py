from __future__ import annotations

import socket
import time
from pathlib import Path

import cv2
import pytest

from immunogate.errors import CameraError, UsageError
from immunogate.runtime.camera import open_camera
from immunogate.runtime.camera.address import parse_address
from immunogate.runtime.camera.capture import has_backend
from immunogate.runtime.camera.devices import csi_pipeline

without_gstreamer = pytest.mark.skipif(has_backend(cv2.CAP_GSTREAMER), reason="this OpenCV has GStreamer")


def test_the_pipeline_of_a_jetson_drops_old_frames() -> None:
    pipeline = csi_pipeline(parse_address("csi://1?width=1920&height=1080&flip=2"), fps=29.97)
    assert pipeline.startswith("nvarguscamerasrc sensor-id=1 ! ")
    assert "width=1920,height=1080,framerate=29970/1000 ! nvvidconv flip-method=2" in pipeline
    assert "format=BGR ! appsink drop=1 max-buffers=1" in pipeline


@pytest.mark.parametrize(
    "uri",
    ["csi://0 ! filesink", "csi://x", "csi://-1", "csi://0?width=1;2", "csi://0?flip=8", "csi://0?hight=3"],
)
def test_nothing_but_numbers_gets_into_the_pipeline(uri: str) -> None:
    with pytest.raises(UsageError, match="csi"):
        open_camera(uri)


@without_gstreamer
@pytest.mark.parametrize("uri", ["csi://0", "gst:videotestsrc ! appsink"])
def test_an_opencv_without_gstreamer_says_so(uri: str) -> None:
    with pytest.raises(CameraError, match="GStreamer"):
        open_camera(uri)


def test_a_pipeline_without_an_appsink_is_refused() -> None:
    with pytest.raises(UsageError, match="appsink"):
        open_camera("gst:videotestsrc ! fakesink")


@pytest.mark.parametrize("uri", ["9999", "/dev/video9999", "v4l2:///dev/video9999"])
def test_a_missing_device_is_wrong_use(uri: str) -> None:
    with pytest.raises(UsageError, match="/dev/video9999"):
        open_camera(uri)


def test_a_file_that_is_no_device_is_a_camera_error(tmp_path: Path) -> None:
    (tmp_path / "video0").write_bytes(b"")
    with pytest.raises(CameraError, match="group video"):
        open_camera(f"v4l2://{tmp_path}/video0")


@pytest.mark.parametrize("query", ["fourcc=MJ", "width=x", "speed=3"])
def test_wrong_options_of_a_device_are_refused(query: str) -> None:
    with pytest.raises(UsageError, match="v4l2"):
        open_camera(f"v4l2:///dev/null?{query}")


def test_a_rate_can_not_be_asked_of_a_network_camera() -> None:
    with pytest.raises(UsageError, match="fps"):
        open_camera("rtsp://127.0.0.1/x", fps=10)


def test_a_network_camera_that_is_not_there_is_an_error_without_its_password(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(CameraError) as caught:
        open_camera(f"rtsp://joe:hunter2@127.0.0.1:{port}/main")
    assert time.monotonic() - started < 10
    assert f"rtsp://***@127.0.0.1:{port}/main" in str(caught.value)
    assert "hunter2" not in str(caught.value) + caplog.text + "".join(capfd.readouterr())
