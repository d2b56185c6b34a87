"""Memory that a gate shares with one worker: a few slots for frames, without a name that could be left behind.

The memory has no path, not even in /dev/shm: it ends with the last process that holds it, however that one ends. Its
size is that of the largest frames allowed, but only pages that were written take up memory, so a camera may change
its resolution at any time.

Who may touch a slot is said by messages alone: a slot belongs to the worker until it has sent the slot's number, then
to the gate until it has sent the number back. No flag in the shared memory has to be read in the right order.
"""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np

from immunogate.runtime.camera.pixels import PIXEL_LIMIT
from immunogate.runtime.camera.worker.messages import SLOTS
from immunogate.structs import Pixels

SLOT_BYTES = PIXEL_LIMIT * 3


class FrameMemory:
    """`SLOTS` slots of `SLOT_BYTES` bytes.

    Args:
        descriptor: of the memory; stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._bytes = mmap.mmap(descriptor, SLOTS * SLOT_BYTES)

    def write(self, slot: int, pixels: Pixels) -> None:
        """Put a (H, W, 3) uint8 frame into a slot."""
        np.copyto(self._view(slot, pixels.shape[0], pixels.shape[1]), pixels)

    def read(self, slot: int, height: int, width: int) -> Pixels:
        """A copy of the (height, width, 3) uint8 frame in a slot.

        A copy, since the worker could write on: what is detected has to be what is recognised.
        """
        return np.array(self._view(slot, height, width))

    def _view(self, slot: int, height: int, width: int) -> Pixels:
        count = height * width * 3
        flat: Pixels = np.frombuffer(self._bytes, np.uint8, count, slot * SLOT_BYTES)
        return flat.reshape(height, width, 3)


def new_descriptor() -> int:
    """Memory for `FrameMemory`, empty; close the descriptor when both sides have mapped it.

    Its size is sealed: a worker that could shrink it would bring down the gate at its next read.

    Raises:
        OSError: there is no memory or no descriptor left.
    """
    descriptor = os.memfd_create("immunogate-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, SLOTS * SLOT_BYTES)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
