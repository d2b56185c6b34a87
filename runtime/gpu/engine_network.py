"""An engine that has memory of its own as a network on the device's memory."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from immunogate.kernels.device import DeviceError, Stream, View
from immunogate.runtime.gpu.network import rows_of


@runtime_checkable
class Engine(Protocol):
    """What a runner of engines offers to a path that stays on the device.

    Attributes:
        name, input_name, input_shape, output_names, output_shapes: as of `immunogate.runtime.runners.base.Runner`.
        buckets: batch sizes that it runs, ascending; none where its rows have no fixed shape.
    """

    name: str
    input_name: str
    input_shape: list[int | str]
    output_names: list[str]
    output_shapes: list[list[int | str]]
    buckets: tuple[int, ...]

    def bucket_for(self, count: int) -> int:
        """The smallest batch size that takes so many rows."""

    def input_view(self, bucket: int) -> View:
        """Where the rows of a batch of this size are read."""

    def output_view(self, bucket: int, name: str) -> View:
        """Where an output of a batch of this size is written; it holds until the next run of any size."""

    def enqueue(self, bucket: int, stream: Stream) -> None:
        """Queue one batch of exactly this size, without a copy, without waiting."""


class EngineNetwork:
    """See `immunogate.runtime.gpu.network.DeviceNetwork`.

    Rows are copied into the engine's own memory and out of it, within the device: all sizes of an engine share that
    memory, and a path holds many rows of which the engine takes some at a time.

    Args:
        engine: stays the caller's; it has at least one batch size.
    """

    capturable = True

    def __init__(self, engine: Engine) -> None:
        self.name, self.input_name, self.input_shape = engine.name, engine.input_name, engine.input_shape
        self.output_names, self.output_shapes = engine.output_names, engine.output_shapes
        self.largest = engine.buckets[-1]
        self._engine = engine

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Look whether the engine takes inputs of this shape.

        Raises:
            DeviceError: it does not.
        """
        takes = self._engine.input_view(self._engine.bucket_for(shape[0])).shape
        if takes[1:] != shape[1:]:
            raise DeviceError(f"the engine of {self.name} takes rows of {list(takes[1:])}, not {list(shape[1:])}")

    def enqueue(self, batch: View, outputs: dict[str, View], stream: Stream) -> None:
        """Queue the copies and one run."""
        engine, count = self._engine, batch.shape[0]
        bucket = engine.bucket_for(count)
        rows_of(engine.input_view(bucket), 0, count).copy_from(batch, stream)
        engine.enqueue(bucket, stream)
        for name, out in outputs.items():
            out.copy_from(rows_of(engine.output_view(bucket, name), 0, count), stream)

    def close(self) -> None:
        """The engine is its owner's."""
