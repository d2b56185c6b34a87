"""Opening any camera by its address."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from immunogate.errors import UsageError
from immunogate.runtime.camera.address import Address, parse_address
from immunogate.runtime.camera.devices import connect_gstreamer, connect_rtsp, connect_v4l2, csi_pipeline
from immunogate.runtime.camera.files import open_path
from immunogate.runtime.camera.live import LiveCamera
from immunogate.runtime.camera.source import Camera
from immunogate.runtime.camera.synthetic import open_synthetic


def open_camera(uri: str, *, realtime: bool = False, fps: float | None = None) -> Camera:
    """Open a source of frames.

    Args:
        uri: ``0``, ``/dev/video0`` or ``v4l2:///dev/video0``; a path or ``file://`` (video, GIF, folder of pictures,
            picture); ``rtsp://`` or ``rtsps://``; ``csi://0``; ``gst:`` and a pipeline; ``synthetic://``.
        realtime: pace a recording as a camera would, newest frame first; live sources are so anyway.
        fps: frames per second in place of a recording's own; what is asked of a device or CSI camera.

    Returns:
        The open camera; use it in a ``with`` block and iterate it.

    Raises:
        UsageError: unknown scheme or option, a file or device that is not there, fps not above 0.
        InputError: a folder without pictures.
        CameraError: the source is there and can not be opened as a camera.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"fps must be a number above 0, got {fps}")
    address = parse_address(uri)
    if address.scheme == "path":
        return open_path(Path(address.target), address.name, realtime=realtime, fps=fps)
    if address.scheme == "synthetic":
        return open_synthetic(address, realtime=realtime, fps=fps)
    return _open_live(address, fps)


def _open_live(address: Address, fps: float | None) -> LiveCamera:
    if address.scheme == "v4l2":
        return LiveCamera(address.name, partial(connect_v4l2, address, fps))
    if address.scheme == "csi":
        return LiveCamera(address.name, partial(connect_gstreamer, address, csi_pipeline(address, fps)))
    if fps is not None:
        raise UsageError(f"{address.name}: fps can not be asked of this source", "Leave fps out; the camera sets it")
    if address.scheme == "gst":
        return LiveCamera(address.name, partial(connect_gstreamer, address, address.target))
    return LiveCamera(address.name, partial(connect_rtsp, address))
