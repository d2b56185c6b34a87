"""Pictures as the rest of the gate wants them: (H, W, 3) uint8, blue first, of a size that fits in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from immunogate.errors import InputError
from immunogate.files import read_bytes
from immunogate.runtime.camera.capture import quieten
from immunogate.runtime.camera.headers import jpeg_is_cut_off, picture_kind, picture_size, png_is_cut_off
from immunogate.structs import Pixels

PIXEL_LIMIT = 64_000_000
"""Most pixels (height times width) of a picture or frame; 192 MB once decoded."""

PICTURE_BYTES = 64 << 20
"""Most bytes of a picture file."""


def expect_modest(height: int, width: int, where: str) -> None:
    """Raise InputError where a picture is empty or has more than `PIXEL_LIMIT` pixels."""
    if height < 1 or width < 1:
        raise InputError(f"{where} has no pixels: its size is {width} x {height}")
    if height * width > PIXEL_LIMIT:
        raise InputError(
            f"{where} has {width} x {height} pixels, more than the limit of {PIXEL_LIMIT:,}",
            "Scale it down first",
        )


def as_bgr(picture: npt.NDArray[Any], where: str = "the picture") -> Pixels:
    """Any decoded picture as contiguous (H, W, 3) uint8, BGR.

    Args:
        picture: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA; uint8 or uint16. Grey is repeated in all three
            channels. 16 bits are reduced to 8 by their upper byte. Alpha is straight, and the picture is laid over
            black, as pixels that nobody would see must not become a face.
        where: the picture's name for errors.

    Returns:
        The picture; it shares memory with ``picture`` where nothing had to change.

    Raises:
        InputError: another shape or dtype (floats have no agreed range), no pixels, or too many.
    """
    channels = 1 if picture.ndim == 2 else picture.shape[2] if picture.ndim == 3 else 0
    if channels not in (1, 3, 4) or picture.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{where}: expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8 or uint16, "
            f"got {picture.shape} of {picture.dtype}",
            "Save it as an 8-bit or 16-bit JPEG or PNG",
        )
    expect_modest(picture.shape[0], picture.shape[1], where)
    narrow = picture if picture.dtype == np.uint8 else (picture >> 8).astype(np.uint8)
    stacked = narrow.reshape(*narrow.shape[:2], channels)
    if channels == 1:
        stacked = np.repeat(stacked, 3, axis=2)
    if channels == 4:
        stacked = _over_black(stacked)
    return np.ascontiguousarray(stacked)


def read_picture(path: Path) -> Pixels:
    """Decode one picture file: JPEG, PNG, BMP, WebP or TIFF, told by its content and not by its name.

    A JPEG is turned upright as its EXIF orientation says.

    Returns:
        (H, W, 3) uint8, BGR; see `as_bgr`.

    Raises:
        UsageError: the file is not there or can not be read.
        InputError: the file is too large, of another format, corrupt, cut off, or has too many pixels.
    """
    data = read_bytes(path, PICTURE_BYTES)
    size = picture_size(data)
    if size is None:
        raise InputError(
            f"{path} is not a picture of a known format, or its header is damaged",
            "Save it as JPEG, PNG, BMP, WebP or TIFF",
        )
    expect_modest(size[1], size[0], str(path))
    decoded = _decode(data)
    if decoded is None:
        raise InputError(f"{path} is damaged or cut off and can not be decoded", "Copy or save it again")
    return as_bgr(decoded, str(path))


def _decode(data: bytes) -> npt.NDArray[Any] | None:
    kind = picture_kind(data)
    jpeg = kind == "jpeg"
    if (jpeg and jpeg_is_cut_off(data)) or (kind == "png" and png_is_cut_off(data)):
        return None
    quieten()
    # IMREAD_UNCHANGED keeps 16 bits and alpha but ignores EXIF; a JPEG has neither, and phones rely on EXIF.
    flags = cv2.IMREAD_COLOR if jpeg else cv2.IMREAD_UNCHANGED
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _over_black(bgra: Pixels) -> Pixels:
    alpha = bgra[:, :, 3:].astype(np.uint16)
    return ((bgra[:, :, :3] * alpha + 127) // 255).astype(np.uint8)
