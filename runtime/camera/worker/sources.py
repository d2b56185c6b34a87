"""What a worker reads from: a live source or a recording at its own pace, by the same few names."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2

from immunogate.runtime.camera.address import Address, parse_address
from immunogate.runtime.camera.capture import Capture
from immunogate.runtime.camera.devices import connect_gstreamer, connect_rtsp, connect_v4l2, csi_pipeline
from immunogate.runtime.camera.files import open_path
from immunogate.runtime.camera.recorded import RecordedCamera
from immunogate.runtime.camera.synthetic import open_synthetic
from immunogate.runtime.camera.worker.messages import Order


@dataclass(frozen=True)
class Taken:
    """One frame as it was taken.

    Attributes:
        picture: as decoded, whatever that is; None where nothing came of it.
        index: in the source, from 0; frames that were passed over count.
        captured_ns: `time.monotonic_ns`.
        captured_wall: seconds since the Unix epoch.
    """

    picture: Any
    index: int
    captured_ns: int
    captured_wall: float


class Source(ABC):
    """A source that is open: a context manager that is iterated."""

    is_recording = False

    @abstractmethod
    def __iter__(self) -> Iterator[Taken]:
        """Frames until there are no more."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LiveSource(Source):
    """A camera. A frame that is not due yet by the cap is taken and not decoded.

    Args:
        capture: the open camera.
        fps_cap: frames per second decoded at the most, None for all.
    """

    def __init__(self, capture: Capture, fps_cap: float | None) -> None:
        self._capture = capture
        self._pause_ns = 0 if fps_cap is None else round(1e9 / fps_cap)

    def __iter__(self) -> Iterator[Taken]:
        index, due_ns = 0, 0
        while self._capture.grab():
            now_ns, wall = time.monotonic_ns(), time.time()
            if now_ns >= due_ns:
                due_ns = max((due_ns or now_ns) + self._pause_ns, now_ns)  # catches up with no burst after a pause
                yield Taken(self._decoded(), index, now_ns, wall)
            index += 1

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()

    def _decoded(self) -> Any:
        try:
            found, picture = self._capture.retrieve()
        except cv2.error:
            return None
        return picture if found and hasattr(picture, "ndim") else None


class RecordedSource(Source):
    """A recording at the pace of the camera that took it.

    Args:
        camera: opened with ``realtime``.
        fps_cap: as of `LiveSource`; pictures are drawn or decoded all the same.
    """

    is_recording = True

    def __init__(self, camera: RecordedCamera, fps_cap: float | None) -> None:
        self._camera = camera
        self._pause_ns = 0 if fps_cap is None else round(1e9 / fps_cap)

    def __iter__(self) -> Iterator[Taken]:
        due_ns = 0
        for frame in self._camera:
            if frame.captured_ns >= due_ns:
                due_ns = max((due_ns or frame.captured_ns) + self._pause_ns, frame.captured_ns)
                yield Taken(frame.pixels, frame.index, frame.captured_ns, frame.captured_wall)

    def close(self) -> None:
        """Close the file."""
        self._camera.close()


def open_source(order: Order) -> Source:
    """Open what an order names.

    Raises:
        UsageError: the address or an option is wrong, or the file or device is not there.
        InputError, CameraError: it is there and can not be opened.
    """
    address = parse_address(order.uri)
    if address.scheme == "path":
        recording = open_path(Path(address.target), address.name, realtime=True, fps=order.fps)
        return RecordedSource(recording, order.fps_cap)
    if address.scheme == "synthetic":
        return RecordedSource(open_synthetic(address, realtime=True, fps=order.fps), order.fps_cap)
    return LiveSource(_connect(address, order), order.fps_cap)


def _connect(address: Address, order: Order) -> Capture:
    if address.scheme == "v4l2":
        return connect_v4l2(address, order.fps)
    if address.scheme == "csi":
        return connect_gstreamer(address, csi_pipeline(address, order.fps), order.open_ms, order.read_ms)
    if address.scheme == "gst":
        return connect_gstreamer(address, address.target, order.open_ms, order.read_ms)
    return connect_rtsp(address, order.transport, order.open_ms, order.read_ms)
