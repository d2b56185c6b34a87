"""The people whom faces are matched with, on the device."""

from __future__ import annotations

import numpy as np

from immunogate.kernels.device import Stream
from immunogate.kernels.queued import Queued
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu.memory import Memory
from immunogate.structs import expect_shape

ROOM = 256
"""People for whom there is room from the beginning: a few hundred kilobytes."""


class Known:
    """Templates of one gallery, in memory with room for more: graphs hold its address and its size.

    Places without a person hold NaN, which is never nearer than anything.

    Args:
        queued: the kernels that will match.
        room: people at the most.
        length: E.
        stream: in whose order they are exchanged.

    Attributes:
        names: of the people.
        templates: (room, E) float32.
        persons: (room,) int32, numbers of the people.
        groups: blocks that share the work of one face.

    Raises:
        DeviceError: there is not so much memory.
    """

    def __init__(self, queued: Queued, room: int, length: int, stream: Stream) -> None:
        self.names: list[str] = []
        self._stream, self._memory = stream, Memory(queued.device, stream)
        try:
            self.templates = self._memory.upload(np.full((room, length), np.nan, np.float32))
            self.persons = self._memory.upload(np.arange(room, dtype=np.int32))
        except BaseException:
            self._memory.close()
            raise
        self.groups = queued.match_groups(room)

    @property
    def room(self) -> int:
        """People at the most."""
        return self.templates.shape[0]

    def exchange(self, templates: Templates) -> None:
        """Hold these people from now on; there is room for them.

        Raises:
            ValueError: templates of another length.
        """
        count = len(templates.names)
        vectors = np.full(self.templates.shape, np.nan, np.float32)
        if count:
            expect_shape("templates", templates.vectors, (count, vectors.shape[1]))
            vectors[:count] = templates.vectors
        self.templates.put(vectors, self._stream)
        self.names = list(templates.names)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


def room_for(count: int) -> int:
    """Room that so many people are given: a power of two."""
    return int(max(ROOM, 1 << (count - 1).bit_length() if count else 0))
