"""An engine that has memory of its own as a network on the device's memory."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from immunogate.kernels.device import DeviceError, Stream, View
from immunogate.runtime.gpu.network import rows_of

Size = int | tuple[int, ...]
"""A batch size, or a whole input shape."""


@runtime_checkable
class Engine(Protocol):
    """What a runner of engines offers to a path that stays on the device.

    Attributes:
        name, input_name, input_shape, output_names, output_shapes: as of `immunogate.runtime.runners.base.Runner`.
        buckets: batch sizes that it runs, ascending; none where its rows have no fixed shape, so that a whole shape
            stands for a size.
    """

    name: str
    input_name: str
    input_shape: list[int | str]
    output_names: list[str]
    output_shapes: list[list[int | str]]
    buckets: tuple[int, ...]

    def bucket_for(self, count: int) -> int:
        """The smallest batch size that takes so many rows."""

    def hold(self, shape: tuple[int, ...]) -> None:
        """Get ready for a whole input shape, and stay so."""

    def input_view(self, size: Size) -> View:
        """Where the rows of a batch of this size are read."""

    def output_view(self, size: Size, name: str) -> View:
        """Where an output of a batch of this size is written; it holds until the next run of any size."""

    def enqueue(self, size: Size, stream: Stream) -> None:
        """Queue one batch of exactly this size, without a copy, without waiting."""


class EngineNetwork:
    """See `immunogate.runtime.gpu.network.DeviceNetwork`.

    Rows are copied into the engine's own memory and out of it, within the device: all sizes of an engine share that
    memory, and a path holds many rows of which the engine takes some at a time.

    Args:
        engine: stays the caller's.
    """

    capturable = True

    def __init__(self, engine: Engine) -> None:
        self.name, self.input_name, self.input_shape = engine.name, engine.input_name, engine.input_shape
        self.output_names, self.output_shapes = engine.output_names, engine.output_shapes
        self.largest = max(engine.buckets, default=1)
        self._engine = engine

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Look whether the engine takes inputs of this shape.

        Raises:
            DeviceError, EngineError: it does not.
        """
        if not self._engine.buckets:
            self._engine.hold(shape)
        takes = self._engine.input_view(self._size_for(shape)).shape
        if takes[1:] != shape[1:]:
            raise DeviceError(f"the engine of {self.name} takes rows of {list(takes[1:])}, not {list(shape[1:])}")

    def enqueue(self, batch: View, outputs: dict[str, View], stream: Stream) -> None:
        """Queue the copies and one run."""
        engine, count = self._engine, batch.shape[0]
        size = self._size_for(batch.shape)
        rows_of(engine.input_view(size), 0, count).copy_from(batch, stream)
        engine.enqueue(size, stream)
        for name, out in outputs.items():
            out.copy_from(rows_of(engine.output_view(size, name), 0, count), stream)

    def _size_for(self, shape: tuple[int, ...]) -> Size:
        return self._engine.bucket_for(shape[0]) if self._engine.buckets else shape

    def close(self) -> None:
        """The engine is its owner's."""
