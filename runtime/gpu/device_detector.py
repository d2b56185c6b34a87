"""A detector whose letterbox and network run on the GPU, in the place of the CPU's."""

from __future__ import annotations

import logging

from immunogate.errors import ImmunogateError
from immunogate.kernels.device import Stream
from immunogate.kernels.queued import Queued
from immunogate.runtime.detect import Detector
from immunogate.runtime.gpu.frame_slot import FrameSlot
from immunogate.runtime.gpu.network import DeviceNetwork
from immunogate.runtime.runners.base import Runner
from immunogate.structs import Faces, Pixels

log = logging.getLogger(__name__)

MOST_SIZES = 4
"""Sizes of pictures for which memory is held: a camera's frames, the turned views of a face, and two more."""


class DeviceDetector(Detector):
    """As `Detector`; pictures of the first few sizes that come are letterboxed and searched on the device.

    It belongs to the thread that opened the device.

    Args:
        runner: the network on the host, for pictures of other sizes.
        longest_side: larger frames are shrunk to this many pixels.
        network: the same network on the device; stays the caller's.
        queued: the kernels.
        stream: where all work is queued.
    """

    def __init__(
        self, runner: Runner, longest_side: int, network: DeviceNetwork, queued: Queued, stream: Stream
    ) -> None:
        super().__init__(runner, longest_side)
        self._network, self._queued, self._stream = network, queued, stream
        self._slots: dict[tuple[int, int], FrameSlot | None] = {}

    def detect(self, pixels: Pixels) -> Faces:
        """As `Detector.detect`."""
        slot = self._slot((pixels.shape[0], pixels.shape[1]))
        if slot is None:
            return super().detect(pixels)
        slot.upload(pixels)
        slot.queue_detection()
        return slot.faces()

    def _slot(self, size: tuple[int, int]) -> FrameSlot | None:
        if size not in self._slots and len(self._slots) < MOST_SIZES:
            self._slots[size] = self._new_slot(size)
        return self._slots.get(size)

    def _new_slot(self, size: tuple[int, int]) -> FrameSlot | None:
        try:
            return FrameSlot(self._queued, self._network, self, size, "bgr", self._stream, self._stream)
        except ImmunogateError as error:  # an engine for one size takes no other
            log.info("pictures of %d x %d are not searched on the GPU: %s", size[1], size[0], error)
            return None

    def close(self) -> None:
        """Give the memory back."""
        for slot in self._slots.values():
            if slot is not None:
                slot.close()
        self._slots.clear()
