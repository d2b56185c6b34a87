"""Memory of a path: everything is allocated once, at fixed addresses, and given back together."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels.device import Buffer, Device, Stream, View

ALIGNED = 256
"""Bytes; every array begins at a multiple, as some libraries ask."""

Field = tuple[tuple[int, ...], type[np.generic]]
"""Shape and dtype."""


class Memory:
    """Allocates arrays of the device and gives all of them back.

    Args:
        device: where.
        stream: in whose order they are first written.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self.device, self.stream = device, stream
        self._held = ExitStack()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
        """An array, its content undefined."""
        return self._keep(self.device.empty(shape, dtype))

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
        """An array of zeros."""
        buffer = self.empty(shape, dtype)
        buffer.zero(self.stream)
        return buffer

    def upload(self, values: npt.NDArray[Any]) -> Buffer:
        """An array with these values."""
        return self._keep(self.device.upload(values, self.stream))

    def shared(self, fields: dict[str, Field]) -> Shared:
        """Arrays that host and device exchange."""
        return Shared(self, fields)

    def close(self) -> None:
        """Give all of it back; graphs that use it are closed before."""
        self._held.close()

    def _keep(self, buffer: Buffer) -> Buffer:
        self._held.callback(buffer.close)
        return buffer


class Shared:
    """A few arrays that go from host to device, or back, in one copy.

    Where host and device share their memory, as on a Jetson, nothing is copied: the device reads and writes the host's.

    Args:
        memory: allocates them.
        fields: their names, shapes and dtypes, in the order in which they lie.

    Attributes:
        views: the arrays as the device sees them.
        host: the same as the host sees them: what `send` takes and what `fetch` brings.
    """

    def __init__(self, memory: Memory, fields: dict[str, Field]) -> None:
        places, size = _places(fields)
        device = memory.device
        if device.integrated:
            self._far = self._near = memory._keep(device.empty((size,), np.uint8, "mapped"))
        else:
            self._far = memory.empty((size,), np.uint8)
            self._near = memory._keep(device.empty((size,), np.uint8, "pinned"))
        self.views = {name: self._far.view(*fields[name], at) for name, at in places.items()}
        self.host = {name: _host(self._near.view(*fields[name], at)) for name, at in places.items()}
        self._far.zero(memory.stream)
        memory.stream.synchronize()  # on shared memory it would else come after what the host writes next
        for values in self.host.values():
            values[...] = 0

    def send(self, stream: Stream) -> None:
        """Queue the copy to the device; the host's side stays as it is until that is done."""
        if self._far is not self._near:
            self._far.copy_from(self._near, stream)

    def fetch(self, stream: Stream) -> None:
        """Queue the copy to the host; it is there when the stream has come so far."""
        if self._far is not self._near:
            self._near.copy_from(self._far, stream)


def _places(fields: dict[str, Field]) -> tuple[dict[str, int], int]:
    """Where each array begins, and bytes of all."""
    places, at = {}, 0
    for name, (shape, dtype) in fields.items():
        places[name] = at
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        at += -(-nbytes // ALIGNED) * ALIGNED
    return places, at


def _host(view: View) -> npt.NDArray[Any]:
    values = view.host
    if values is None:
        raise TypeError("only pinned and mapped memory is the host's too")
    return values
