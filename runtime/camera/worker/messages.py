"""What passes between a gate and a camera's worker: one order there, messages of a fixed layout back.

A worker runs decoders on bytes that come from outside, so nothing that it says is believed: a message is 40 bytes of
numbers, each with a range, and at most `LONGEST_TEXT` bytes of text that is only ever shown. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, dataclass
from enum import IntEnum

from immunogate.runtime.camera.pixels import PIXEL_LIMIT

SLOTS = 4
"""Frames that a worker's memory holds: one being written, one waiting, one being read, one on its way back."""

LONGEST_TEXT = 500
LONGEST_MESSAGE = 1024
LONGEST_ORDER = 32_768

_MAGIC = b"IGC1"
_HEAD = struct.Struct("<4sBBHIIQQd")
"""Magic, kind, slot, bytes of text, height, width, index, captured_ns, captured_wall."""

_LAST_INDEX = 1 << 40
_LAST_WALL = 253_402_300_799.0  # the end of the year 9999, beyond which no date can be written


class Kind(IntEnum):
    """What a worker says."""

    OPENED = 1
    """The source is open."""
    FRAME = 2
    """A frame lies in a slot."""
    ENDED = 3
    """A recording is over."""
    FAILED = 4
    """The source can not be opened, or broke off; the worker ends."""
    WRONG_USE = 5
    """The address or an option is wrong: trying again is of no use."""


@dataclass(frozen=True)
class Message:
    """One message of a worker.

    Attributes:
        kind: what it says.
        slot: where the frame lies, in [0, SLOTS).
        height, width: of the frame in pixels.
        index: of the frame since the source was opened, from 0.
        captured_ns: `time.monotonic_ns` when the frame was taken; the clock is the same in all processes.
        captured_wall: seconds since the Unix epoch at that moment; recorded and never decided on.
        text: what went wrong, then after a line feed how to mend it.
    """

    kind: Kind
    slot: int = 0
    height: int = 0
    width: int = 0
    index: int = 0
    captured_ns: int = 0
    captured_wall: float = 0.0
    text: str = ""

    def to_bytes(self) -> bytes:
        """The message as it is sent; a longer text is cut."""
        text = self.text.encode("utf-8", "replace")[:LONGEST_TEXT]
        numbers = (self.height, self.width, self.index, self.captured_ns, self.captured_wall)
        return _HEAD.pack(_MAGIC, self.kind, self.slot, len(text), *numbers) + text


def message_of(data: bytes) -> Message:
    """Read a message.

    Raises:
        ValueError: it is not of the layout, or a number is out of its range.
    """
    if len(data) < _HEAD.size:
        raise ValueError(f"a message of {len(data)} bytes")
    magic, kind, slot, length, height, width, index, captured_ns, captured_wall = _HEAD.unpack_from(data)
    if magic != _MAGIC or len(data) != _HEAD.size + length or length > LONGEST_TEXT:
        raise ValueError("a message of another layout")
    if slot >= SLOTS or index >= _LAST_INDEX:
        raise ValueError(f"slot {slot}, frame {index}")
    if not (math.isfinite(captured_wall) and 0 <= captured_wall <= _LAST_WALL):
        raise ValueError(f"a wall clock of {captured_wall}")
    if kind == Kind.FRAME and not (height >= 1 and width >= 1 and height * width <= PIXEL_LIMIT):
        raise ValueError(f"a frame of {width} x {height} pixels")
    text = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in data[_HEAD.size :].decode("utf-8"))
    return Message(Kind(kind), slot, height, width, index, captured_ns, captured_wall, text)


@dataclass(frozen=True)
class Order:
    """What a worker is asked for. It goes through a socket: an address may hold a password, and all users see argv.

    Attributes:
        uri: the source's address, see `immunogate.runtime.camera.open_camera`.
        fps: frames per second asked of the source, None for its own.
        fps_cap: frames per second handed over at the most; the others are taken and not decoded. None for all.
        transport: of RTSP, tcp or udp; None leaves it to OPENCV_FFMPEG_CAPTURE_OPTIONS, and else to TCP.
        open_ms: longest that opening a network source may take, in milliseconds.
        read_ms: longest wait for the next frame, in milliseconds.
    """

    uri: str
    fps: float | None = None
    fps_cap: float | None = None
    transport: str | None = None
    open_ms: int = 5_000
    read_ms: int = 10_000

    def __repr__(self) -> str:
        return "Order(...)"  # a traceback or a log shows no password

    def to_bytes(self) -> bytes:
        """The order as it is sent.

        Raises:
            ValueError: it is too long.
        """
        data = json.dumps(asdict(self)).encode()
        if len(data) > LONGEST_ORDER:
            raise ValueError(f"an address of {len(self.uri)} characters")
        return data


def order_of(data: bytes) -> Order:
    """Read an order; it comes from the gate, which is trusted."""
    return Order(**json.loads(data))
