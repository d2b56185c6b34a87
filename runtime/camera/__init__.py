"""Cameras: any source of pictures, opened by its address and read as an iterator of frames."""

from __future__ import annotations

from immunogate.runtime.camera.address import redact
from immunogate.runtime.camera.opening import open_camera
from immunogate.runtime.camera.pixels import as_bgr, read_picture
from immunogate.runtime.camera.source import Camera

__all__ = ["Camera", "as_bgr", "open_camera", "read_picture", "redact"]
