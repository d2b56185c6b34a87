"""How live sources are opened: USB cameras, network cameras, and the CSI camera of a Jetson."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2

from immunogate.errors import CameraError, UsageError
from immunogate.runtime.camera.address import Address
from immunogate.runtime.camera.capture import Capture, has_backend, open_capture

OPEN_TIMEOUT_MS = 5_000
"""Longest that opening a live source may take, in milliseconds."""

READ_TIMEOUT_MS = 10_000
"""Longest wait for the next frame, in milliseconds."""

CSI_FPS = 30.0
"""Frames per second asked of a CSI camera where none are named."""

_BACKLOG_FRAMES = 100


def connect_v4l2(address: Address, fps: float | None = None) -> Capture:
    """Open a Video4Linux device.

    Its address takes ``width``, ``height`` and ``fourcc`` (such as MJPG, which most USB cameras need for more than
    VGA at full rate); the driver chooses the nearest it can do. OpenCV itself gives up a stalled read after 10 s.

    Raises:
        UsageError: the device is not there, or an option is wrong.
        CameraError: it is busy, or this user may not use it.
    """
    address.expect_options("width", "height", "fourcc")
    wanted = {
        cv2.CAP_PROP_FRAME_WIDTH: address.integer("width", 0, 0, 16_384),
        cv2.CAP_PROP_FRAME_HEIGHT: address.integer("height", 0, 0, 16_384),
        cv2.CAP_PROP_FPS: fps or 0,
    }
    fourcc = address.options.get("fourcc", "")
    if fourcc and len(fourcc) != 4:
        raise UsageError(f"{address.name}: fourcc={fourcc} has not four letters", "Write fourcc=MJPG")
    if not Path(address.target).exists():
        raise UsageError(f"{address.name}: there is no {address.target}", "List the devices with: ls /dev/video*")
    capture = open_capture(address.target, cv2.CAP_V4L2)
    if capture is None:
        raise CameraError(
            f"{address.name} can not be opened: it is busy, no camera, or not permitted",
            "Close other programs that use it, and add this user to the group video",
        )
    if fourcc:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))  # before the size that depends on it
    for setting, value in wanted.items():
        if value:
            capture.set(setting, value)
    return capture


def connect_rtsp(
    address: Address,
    transport: str | None = None,
    open_timeout_ms: int = OPEN_TIMEOUT_MS,
    read_timeout_ms: int = READ_TIMEOUT_MS,
) -> Capture:
    """Open a network camera by RTSP (RFC 2326) with FFmpeg and wind on to what it shows now.

    Over UDP a lost packet smears the picture, and a smeared face is a wrong face: it is for those who ask for it.

    Args:
        address: of the camera.
        transport: tcp or udp; None is what OPENCV_FFMPEG_CAPTURE_OPTIONS says, and else TCP.
        open_timeout_ms: longest that opening may take, in milliseconds.
        read_timeout_ms: longest wait for the next frame, in milliseconds.

    Raises:
        CameraError: this OpenCV has no FFmpeg, nothing answers as a camera, or no frame comes in time.
    """
    if not has_backend(cv2.CAP_FFMPEG):
        raise CameraError(f"{address.name}: this OpenCV was built without FFmpeg", "Use gst: with an rtspsrc pipeline")
    if transport is not None:
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"rtsp_transport;{transport}"
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    # One thread, because each further one holds a frame of H.264 back for the sake of throughput.
    options = (*_timeouts(open_timeout_ms, read_timeout_ms), cv2.CAP_PROP_N_THREADS, 1)
    capture = open_capture(address.target, cv2.CAP_FFMPEG, options)
    if capture is None or not _skip_backlog(capture):
        raise CameraError(
            f"{address.name} does not answer as a camera",
            "Check host, port, path, user and password, and that the network reaches it",
        )
    return capture


def connect_gstreamer(
    address: Address, pipeline: str, open_timeout_ms: int = OPEN_TIMEOUT_MS, read_timeout_ms: int = READ_TIMEOUT_MS
) -> Capture:
    """Open a GStreamer pipeline that ends in an appsink; time-outs in milliseconds as of `connect_rtsp`.

    Raises:
        UsageError: the pipeline has no appsink.
        CameraError: this OpenCV has no GStreamer, or the pipeline does not start.
    """
    if "appsink" not in pipeline:
        raise UsageError(
            f"{address.name}: the pipeline has no appsink",
            "End it in: ! videoconvert ! video/x-raw,format=BGR ! appsink drop=1 max-buffers=1",
        )
    if not has_backend(cv2.CAP_GSTREAMER):
        raise CameraError(
            f"{address.name} needs GStreamer, and this OpenCV ({cv2.__version__}) was built without it",
            "Its wheels have none: build OpenCV with -D WITH_GSTREAMER=ON and remove the wheel",
        )
    capture = open_capture(pipeline, cv2.CAP_GSTREAMER, _timeouts(open_timeout_ms, read_timeout_ms))
    if capture is None:
        raise CameraError(f"{address.name}: the pipeline does not start", "Try it with gst-launch-1.0 -v first")
    return capture


def csi_pipeline(address: Address, fps: float | None = None) -> str:
    """The pipeline for a Jetson's CSI camera, after NVIDIA's Accelerated GStreamer guide.

    The address ``csi://N`` names the sensor and takes ``width`` (1280), ``height`` (720) and ``flip``, the
    flip-method of nvvidconv from 0 to 7.

    Raises:
        UsageError: the sensor or an option is wrong.
    """
    address.expect_options("width", "height", "flip")
    sensor = address.target or "0"
    if not sensor.isascii() or not sensor.isdigit():
        raise UsageError(f"{address.name}: {sensor!r} is not the number of a sensor", "Write csi://0")
    width, height = address.integer("width", 1280, 16, 16_384), address.integer("height", 720, 16, 16_384)
    rate = round((fps or CSI_FPS) * 1000)
    # drop and max-buffers keep GStreamer itself from queueing old frames behind a slow consumer.
    return (
        f"nvarguscamerasrc sensor-id={int(sensor)}"
        f" ! video/x-raw(memory:NVMM),width={width},height={height},framerate={rate}/1000"
        f" ! nvvidconv flip-method={address.integer('flip', 0, 0, 7)} ! video/x-raw,format=BGRx"
        " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=1 max-buffers=1 sync=false"
    )


def _timeouts(open_timeout_ms: int, read_timeout_ms: int) -> tuple[int, int, int, int]:
    return cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_timeout_ms


def _skip_backlog(capture: cv2.VideoCapture) -> bool:
    """Take the frames that piled up while FFmpeg looked at the stream; False where the stream ends before.

    They are up to a second old and come in one burst, so the first one that has to be waited for is new. Without
    this a decision would rest on a frame older than its time of capture says.
    """
    wait_s = 0.5 / _frame_rate(capture)
    for _ in range(_BACKLOG_FRAMES):
        asked = time.monotonic()
        if not capture.grab():
            capture.release()
            return False
        if time.monotonic() - asked > wait_s:
            break
    return True


def _frame_rate(capture: cv2.VideoCapture) -> float:
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if 1 <= rate <= 240 else 25.0  # RTSP often states the clock, 90,000, or nothing
