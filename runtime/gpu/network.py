"""What a network on the device's memory has to do, whoever runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from immunogate.kernels.device import Stream, View


class DeviceNetwork(Protocol):
    """A network that reads and writes arrays of the device at the addresses it is given.

    An engine that reads and writes memory of its own is one by `immunogate.runtime.gpu.engine_network`.

    Attributes:
        name: what it is called in errors.
        input_name, input_shape, output_names, output_shapes: as of `immunogate.runtime.runners.base.Runner`.
        largest: rows of one run at the most.
        capturable: whether `enqueue` may be captured into a graph; else graphs are not used.
    """

    name: str
    input_name: str
    input_shape: list[int | str]
    output_names: list[str]
    output_shapes: list[list[int | str]]
    largest: int
    capturable: bool

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Get ready for inputs of this shape: whatever `enqueue` would have to allocate is allocated here."""

    def enqueue(self, batch: View, outputs: dict[str, View], stream: Stream) -> None:
        """Queue one run from ``batch``, float32 of a prepared shape, into ``outputs``, float32 arrays by name.

        Nothing is waited for, copied to the host or allocated. Where it is captured, the addresses go into the graph,
        and the buffers are told to the stream (`Stream.note`).
        """

    def close(self) -> None:
        """Give back what was allocated."""


def enqueue_rows(network: DeviceNetwork, batch: View, output: str, out: View, stream: Stream) -> None:
    """Queue as many runs as (R, ...) rows need, from ``batch`` into ``out``."""
    for first, count in parts(batch.shape[0], network.largest):
        network.enqueue(rows_of(batch, first, count), {output: rows_of(out, first, count)}, stream)


def prepare_rows(network: DeviceNetwork, shape: tuple[int, ...]) -> None:
    """Get ready for `enqueue_rows` of a batch of this shape."""
    for _, count in parts(shape[0], network.largest):
        network.prepare((count, *shape[1:]))


def parts(rows: int, largest: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each run, as few runs as can be."""
    for first in range(0, rows, largest):
        yield first, min(largest, rows - first)


def rows_of(view: View, first: int, count: int) -> View:
    """Some rows of an array."""
    row = view.nbytes // view.shape[0]
    return view.buffer.view((count, *view.shape[1:]), view.dtype, view.offset + first * row)


def reshaped(view: View, shape: tuple[int, ...]) -> View:
    """The same memory as an array of another shape."""
    return view.buffer.view(shape, view.dtype, view.offset)
