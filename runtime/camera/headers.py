"""The size of a picture from its header, so that a small file that unpacks to gigabytes is refused unopened.

Sources: PNG (ISO/IEC 15948, IHDR), JPEG (ITU-T T.81, B.2.2), BMP (BITMAPINFOHEADER), WebP (RFC 9649), TIFF 6.0.
"""

from __future__ import annotations

import struct

_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_TIFF_FORMATS = {3: "H", 4: "I"}

MOST_MARKERS = 10_000
"""Markers and fill bytes of a JPEG before its size; a file of nothing else would be looked through for seconds."""

MOST_CHUNKS = 100_000
"""Chunks of a PNG file; encoders write one for each 8 KiB or more."""

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings of the picture files that are taken from a folder, in lower case."""


def picture_kind(head: bytes) -> str | None:
    """Which picture format the first 16 bytes announce: jpeg, png, bmp, webp, tiff, or None for any other."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    return "bmp" if head.startswith(b"BM") else None


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the header of a picture file says, or None where it says none."""
    read = {"jpeg": _jpeg, "png": _png, "bmp": _bmp, "webp": _webp, "tiff": _tiff}.get(picture_kind(data) or "")
    try:
        return read(data) if read else None
    except (struct.error, IndexError):
        return None


def jpeg_is_cut_off(data: bytes) -> bool:
    """Whether a JPEG file's last scan has no end-of-image marker.

    Decoders fill the missing part with grey and say nothing. Within a scan 0xFF is always stuffed (T.81, B.1.1.5),
    so the markers found from the end are real ones and not picture data.
    """
    return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def png_is_cut_off(data: bytes) -> bool:
    """Whether a chunk of a PNG file goes beyond its end, or the end chunk is missing (ISO/IEC 15948, 5.3).

    Decoders take memory of a chunk's stated length, up to 2 GiB, before they see that it is not there. More than
    `MOST_CHUNKS` are not looked through and count as cut off too.
    """
    at = 8
    for _ in range(MOST_CHUNKS):
        head = data[at : at + 8]
        at += 12 + int.from_bytes(head[:4], "big")  # length, name and check sum around the content
        if len(head) < 8 or at > len(data):
            return True
        if head[4:] == b"IEND":
            return False
    return True


def gif_is_cut_off(head: bytes, tail: bytes) -> bool:
    """Whether a file that begins as a GIF does not end as one: the trailer 0x3B (GIF89a, 27) is missing.

    Decoders give the frames up to the break and say nothing. Zeros after the trailer are let pass.
    """
    return head.startswith((b"GIF87a", b"GIF89a")) and not tail.rstrip(b"\0").endswith(b"\x3b")


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the OS/2 header has 16-bit sizes
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)  # a negative height means rows from top to bottom


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(MOST_MARKERS):
        if at + 1 >= len(data):
            return None
        marker = data[at + 1]
        if data[at] != 0xFF:
            return None
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data.startswith(b"II") else ">"
    start = struct.unpack_from(order + "I", data, 4)[0]
    sizes: dict[int, int] = {}
    for entry in range(struct.unpack_from(order + "H", data, start)[0]):
        at = start + 2 + 12 * entry
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (256, 257) and kind in _TIFF_FORMATS:  # ImageWidth, ImageLength
            sizes[tag] = struct.unpack_from(order + _TIFF_FORMATS[kind], data, at + 8)[0]
    return (sizes[256], sizes[257]) if len(sizes) == 2 else None
