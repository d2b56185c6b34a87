"""One frame on its way: pinned memory, the device's, and what the detector said of it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels.device import Device, Event, Stream
from immunogate.kernels.queued import Queued
from immunogate.manifest import DETECTOR_OUTPUTS
from immunogate.runtime.detect import Detector
from immunogate.runtime.gpu.bucket import Picture
from immunogate.runtime.gpu.memory import Field, Memory
from immunogate.runtime.gpu.network import DeviceNetwork, reshaped
from immunogate.runtime.gpu.replayed import Replayed
from immunogate.structs import Faces, expect_dtype, expect_shape

CHANNELS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""Numbers of a cell in each kind of the detector's outputs."""


class FrameSlot:
    """A frame of one size at fixed addresses.

    Args:
        queued: the kernels.
        network: the detector on the device; stays the caller's.
        detector: decodes what the network says.
        size: height and width of the picture.
        kind: bgr or nv12.
        copying: stream of the upload.
        computing: stream of everything else.

    Attributes:
        picture: the frame on the device, once it is uploaded.

    Raises:
        ValueError: an NV12 picture of odd height or width, or an unknown kind.
        DeviceError: the network does not take the size, or there is not so much memory.
    """

    def __init__(
        self,
        queued: Queued,
        network: DeviceNetwork,
        detector: Detector,
        size: tuple[int, int],
        kind: str,
        copying: Stream,
        computing: Stream,
    ) -> None:
        shape, padded = shape_of(size, kind), detector.sizes(size)[1]
        network.prepare((1, 3, *padded))  # whoever refuses the size does it before anything is allocated
        self._queued, self._network, self._detector, self._size = queued, network, detector, size
        self._copying, self._computing = copying, computing
        self._shrunk = detector.sizes(size)[0]
        with ExitStack() as undone:
            memory = Memory(queued.device, computing)
            undone.callback(memory.close)
            self._frame = memory.shared({"pixels": (shape, np.uint8)})
            self.picture = Picture(self._frame.views["pixels"], kind)
            self._planes = memory.empty((1, 3, *padded), np.float32)
            self._said = memory.shared({name: _output(name, padded) for name in DETECTOR_OUTPUTS})
            self._uploaded, self._detected, self._free = (_event(queued.device, undone) for _ in range(3))
            self._closing = undone.pop_all()
        self._is_awaited = True
        self._detection = Replayed(self._detect, capturable=network.capturable)

    def upload(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Queue the way of a frame to the device; the work of other slots goes on meanwhile.

        Args:
            pixels: uint8 of the slot's size and kind; may be changed once this returns.

        Raises:
            ValueError: another shape or dtype.
        """
        expect_dtype("pixels", pixels, np.uint8)
        expect_shape("pixels", pixels, self.picture.pixels.shape)
        self._free.synchronize()  # whoever still reads what stood here; a copy that nobody read may be overtaken
        self._frame.host["pixels"][...] = pixels
        self._frame.send(self._copying)
        self._uploaded.record(self._copying)
        self._is_awaited = False

    def await_upload(self) -> None:
        """Queue nothing that needs the frame before it is there; other frames' work that is queued goes on."""
        if not self._is_awaited:
            self._computing.wait_for(self._uploaded)
            self._is_awaited = True

    def queue_detection(self) -> None:
        """Queue letterbox and network, and the way of its outputs to the host."""
        self.await_upload()
        self._detection.queue(self._computing)
        self._detected.record(self._computing)
        self.keep()

    def keep(self) -> None:
        """The picture stays until all work that was queued so far is done."""
        self._free.record(self._computing)

    def faces(self) -> Faces:
        """The faces of the frame, as `immunogate.runtime.detect.Detector.detect` gives them; waits for them."""
        return self._detector.decode(self.outputs(), self._size)

    def outputs(self) -> dict[str, npt.NDArray[Any]]:
        """What the network said of the frame, until the next one; waits for it."""
        self._detected.synchronize()
        return dict(self._said.host)

    def _detect(self, stream: Stream) -> None:
        pixels = reshaped(self.picture.pixels, (1, *self.picture.pixels.shape))
        nv12 = self.picture.kind == "nv12"
        letterbox = self._queued.letterbox_nv12 if nv12 else self._queued.letterbox_bgr
        letterbox(stream, pixels, self._planes, self._shrunk)
        self._network.enqueue(self._planes, self._said.views, stream)
        self._said.fetch(stream)

    def close(self) -> None:
        """Give everything back."""
        self._detection.close()
        self._closing.close()


def _event(device: Device, closing: ExitStack) -> Event:
    event = device.event()
    closing.callback(event.close)
    return event


def shape_of(size: tuple[int, int], kind: str) -> tuple[int, ...]:
    """Of the array of a picture of this height and width.

    Raises:
        ValueError: an NV12 picture of odd height or width, or an unknown kind.
    """
    height, width = size
    if kind == "bgr":
        return height, width, 3
    if kind != "nv12":
        raise ValueError(f"kind: expected bgr or nv12, got {kind!r}")
    if height % 2 or width % 2:
        raise ValueError(f"NV12: expected an even height and width, got {height} and {width}")
    return 3 * height // 2, width


def _output(name: str, padded: tuple[int, int]) -> Field:
    kind, stride = name.split("_")
    return (1, padded[0] // int(stride) * (padded[1] // int(stride)), CHANNELS[kind]), np.float32
