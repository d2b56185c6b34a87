"""From a camera's frame to answers without leaving the GPU.

    frame -> upload -> letterbox -> detector -> (cells to faces, on the CPU) -> warp of all faces -> face path

Two slots and two streams: while the faces of one frame are computed, the next one is uploaded. What comes back from the
detector is small, and the few cells with a face in them become boxes on the CPU, as without a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np
import numpy.typing as npt

from immunogate.kernels.device import Stream
from immunogate.kernels.queued import Queued
from immunogate.runtime.align import similarity_to_large_crop
from immunogate.runtime.detect import Detector
from immunogate.runtime.gpu.answers import Answers, joined
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.gpu.frame_slot import FrameSlot
from immunogate.runtime.gpu.network import DeviceNetwork
from immunogate.structs import Floats

SLOTS = 2


class FramePath:
    """The frames of one camera, all of one size. It belongs to the thread that opened the device.

        slot = path.upload(first)
        while ...:
            path.detect(slot)
            following = path.upload(next)       # while the GPU detects
            faces = slot.faces()
            answers = path.recognise(slot, faces.landmarks, frames, numbers)
            slot = following

    Args:
        queued: the kernels.
        network: the detector on the device; stays the caller's.
        detector: decodes what the network says.
        face_path: what happens to faces; stays the caller's.
        size: height and width of a frame.
        kind: bgr, (H, W, 3), or nv12, (3 H / 2, W).

    Raises:
        ValueError: an NV12 picture of odd height or width, or an unknown kind.
    """

    def __init__(
        self,
        queued: Queued,
        network: DeviceNetwork,
        detector: Detector,
        face_path: FacePath,
        size: tuple[int, int],
        kind: str = "bgr",
    ) -> None:
        self._faces, self._closing, self._next = face_path, ExitStack(), 0
        try:
            self._copying: Stream = queued.device.stream()
            self._closing.callback(self._copying.close)
            self._slots: list[FrameSlot] = []
            for _ in range(SLOTS):
                slot = FrameSlot(queued, network, detector, size, kind, self._copying, face_path.stream)
                self._closing.callback(slot.close)
                self._slots.append(slot)
        except BaseException:
            self._closing.close()
            raise

    def upload(self, pixels: npt.NDArray[np.uint8]) -> FrameSlot:
        """Queue a frame's way to the device, in the slot of the frame before the last.

        Raises:
            ValueError: another shape or dtype than the path's.
        """
        slot = self._slots[self._next]
        slot.upload(pixels)
        self._next = (self._next + 1) % SLOTS
        return slot

    def detect(self, slot: FrameSlot) -> None:
        """Queue the search for faces; `FrameSlot.faces` waits for it."""
        slot.queue_detection()

    def recognise(self, slot: FrameSlot, landmarks: Floats, frames: Sequence[int], numbers: Sequence[int]) -> Answers:
        """Align, purify, recognise and match faces of a frame; there is at least one.

        Args:
            slot: that holds the frame.
            landmarks: (N, 5, 2) float32 in pixels of the frame.
            frames: frame number of each face, part of its clone key.
            numbers: track (or other lasting) number of each face, part of its clone key.

        Raises:
            ValueError: landmarks are impossible, or there are none.
        """
        path, found = self._faces, []
        slot.await_upload()
        matrices, shrinks = crops_to_frame(landmarks)
        for first in range(0, len(landmarks), path.buckets[-1]):
            part = slice(first, first + path.buckets[-1])
            count = len(landmarks[part])
            bucket = path.bucket(count)
            bucket.places.host["crop_to_frame"][:count] = matrices[part]
            bucket.places.host["shrinks"][:count] = shrinks[part]
            bucket.put_warped(count, slot.picture, path.stream)
            slot.keep()
            found.append(path.run(bucket, count, frames[part], numbers[part]))
        if not found:
            raise ValueError("landmarks: expected at least one face, got none")
        return joined(found)

    def close(self) -> None:
        """Give everything back but what is the caller's. A second time does nothing."""
        self._closing.close()

    def __enter__(self) -> FramePath:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def crops_to_frame(landmarks: Floats) -> tuple[Floats, npt.NDArray[np.int32]]:
    """What the warp kernels take: (N, 6) float32 matrices from an enlarged crop to the frame, (N,) int32 enlargements.

    Args:
        landmarks: (N, 5, 2) float32.

    Raises:
        ValueError: as `immunogate.runtime.align.similarity_to_template`.
    """
    matrices, shrinks = np.empty((len(landmarks), 6), np.float32), np.empty(len(landmarks), np.int32)
    for row, points in enumerate(landmarks):
        matrix, shrinks[row] = similarity_to_large_crop(points)
        matrices[row] = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2].ravel()
    return matrices, shrinks
