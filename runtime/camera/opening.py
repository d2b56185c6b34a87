"""Opening any camera by its address."""

from __future__ import annotations

import math
from pathlib import Path

from immunogate.errors import UsageError
from immunogate.runtime.camera.address import parse_address
from immunogate.runtime.camera.files import open_path
from immunogate.runtime.camera.live import LiveCamera, expect_open
from immunogate.runtime.camera.patience import Patience
from immunogate.runtime.camera.source import Camera
from immunogate.runtime.camera.synthetic import open_synthetic
from immunogate.runtime.camera.worker.messages import Order

TRANSPORTS = ("tcp", "udp")
"""Ways in which RTSP may bring its pictures."""


def open_camera(
    uri: str,
    *,
    realtime: bool = False,
    fps: float | None = None,
    transport: str | None = None,
    patience: Patience | None = None,
) -> Camera:
    """Open a source of frames.

    Live sources are read by a process of their own, recordings in this one.

    Args:
        uri: ``0``, ``/dev/video0`` or ``v4l2:///dev/video0``; a path or ``file://`` (video, GIF, folder of pictures,
            picture); ``rtsp://`` or ``rtsps://``; ``csi://0``; ``gst:`` and a pipeline; ``synthetic://``.
        realtime: pace a recording as a camera would, newest frame first; live sources are so anyway.
        fps: frames per second in place of a recording's own; what is asked of a device or CSI camera.
        transport: one of `TRANSPORTS` for RTSP, None for TCP.
        patience: how long a live source is waited for.

    Returns:
        The open camera; use it in a ``with`` block and iterate it.

    Raises:
        UsageError: unknown scheme or option, a file or device that is not there, fps not above 0.
        InputError: a folder without pictures.
        CameraError: the source is there and can not be opened as a camera.
    """
    _expect_rate(fps)
    address = parse_address(uri)
    if address.scheme == "path":
        return open_path(Path(address.target), address.name, realtime=realtime, fps=fps)
    if address.scheme == "synthetic":
        return open_synthetic(address, realtime=realtime, fps=fps)
    waiting = patience or Patience()
    camera = LiveCamera(address.name, order_for(uri, waiting, fps=fps, transport=transport), waiting)
    expect_open(camera)
    return camera


def order_for(
    uri: str,
    patience: Patience,
    *,
    fps: float | None = None,
    fps_cap: float | None = None,
    transport: str | None = None,
) -> Order:
    """What a worker is told to do, checked as far as that goes without opening anything.

    Raises:
        UsageError: the address, a rate or the transport is wrong.
    """
    _expect_rate(fps)
    _expect_rate(fps_cap)
    address = parse_address(uri)
    if fps is not None and address.scheme in ("rtsp", "gst"):
        raise UsageError(f"{address.name}: fps can not be asked of this source", "Leave fps out; the camera sets it")
    if transport is not None and transport not in TRANSPORTS:
        raise UsageError(f"{address.name}: {transport} is no transport of RTSP", f"Known are: {', '.join(TRANSPORTS)}")
    open_ms, read_ms = (round(seconds * 1e3) for seconds in (patience.open_s, patience.read_s))
    return Order(uri, fps, fps_cap, transport, open_ms, read_ms)


def _expect_rate(fps: float | None) -> None:
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"fps must be a number above 0, got {fps}")
