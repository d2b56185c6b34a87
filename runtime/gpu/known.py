"""The people whom faces are matched with, on the device."""

from __future__ import annotations

import numpy as np

from immunogate.kernels.device import Stream
from immunogate.kernels.queued import Queued
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu.memory import Memory
from immunogate.structs import expect_shape


class Known:
    """Templates of one gallery.

    Args:
        queued: the kernels that will match.
        templates: the people; there may be none.
        length: E.
        stream: where they are uploaded.

    Attributes:
        names: of the people.
        templates: (P, E) float32.
        persons: (P,) int32, numbers of the people.
        groups: blocks that share the work of one face.

    Raises:
        ValueError: templates of another length.
    """

    def __init__(self, queued: Queued, templates: Templates, length: int, stream: Stream) -> None:
        count = len(templates.names)
        if count:
            expect_shape("templates", templates.vectors, (count, length))
        self.names = list(templates.names)
        self._memory = Memory(queued.device, stream)
        vectors = np.ascontiguousarray(templates.vectors, np.float32).reshape(count, length)
        self.templates = self._memory.upload(vectors)
        self.persons = self._memory.upload(np.arange(count, dtype=np.int32))
        self.groups = queued.match_groups(count)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
