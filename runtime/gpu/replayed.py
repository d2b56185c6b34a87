"""Work that is queued again and again: as one graph, once it has run."""

from __future__ import annotations

from collections.abc import Callable

from immunogate.kernels.device import Graph, Stream


class Replayed:
    """Queues the same work each time.

    The first time it is queued piece by piece, for libraries still allocate then, and captured after that.

    Args:
        work: queues it on a stream, the same kernels with the same addresses each time.
        capturable: whether all of it may be captured; else it is queued piece by piece always.
    """

    def __init__(self, work: Callable[[Stream], None], *, capturable: bool) -> None:
        self._work, self._capturable = work, capturable
        self._graph: Graph | None = None

    @property
    def is_captured(self) -> bool:
        """Whether a graph is replayed."""
        return self._graph is not None

    def queue(self, stream: Stream) -> None:
        """Queue it."""
        if self._graph is not None:
            self._graph.launch(stream)
            return
        self._work(stream)
        if self._capturable:
            stream.synchronize()
            self._graph = stream.capture(lambda: self._work(stream))

    def close(self) -> None:
        """Give the graph back."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None
