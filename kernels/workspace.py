"""Memory on the device that is kept between calls, as large as the largest so far: a gate soon stops allocating."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels.device import Buffer, Device, Stream, View


class Workspace:
    """Named arrays; what was in one is lost when the same name is asked for again.

    Args:
        device: where they lie.
        stream: in whose order they are used.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device, self._stream = device, stream
        self._buffers: dict[str, Buffer] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> View:
        """An array, its content undefined."""
        return self._held(name, shape, dtype)[0].view(shape, dtype)

    def zeros(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> View:
        """An array that is zero when it is new, and that its users leave zero."""
        buffer, new = self._held(name, shape, dtype)
        if new:
            buffer.zero(self._stream)
        return buffer.view(shape, dtype)

    def put(self, name: str, values: npt.NDArray[Any]) -> View:
        """An array with these values."""
        return self.empty(name, values.shape, values.dtype).put(values, self._stream)

    def close(self) -> None:
        """Give all of it back."""
        for buffer in self._buffers.values():
            buffer.close()
        self._buffers.clear()

    def _held(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[Buffer, bool]:
        needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        held = self._buffers.get(name)
        if held is not None and held.nbytes >= needed:
            return held, False
        if held is not None:
            self._stream.synchronize()  # whoever still uses what is given back
            held.close()
        self._buffers[name] = self._device.empty((needed,), np.uint8)
        return self._buffers[name], True
