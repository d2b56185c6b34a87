"""Arrays in memory that a device uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels.device.calls import Kind, Memory, Octets
from immunogate.kernels.device.driver import DeviceError
from immunogate.kernels.device.owned import Owned

if TYPE_CHECKING:
    from immunogate.kernels.device.objects import Device, Stream

Array = npt.NDArray[Any]


class View:
    """A part of a buffer's memory as an array of its own shape and dtype. Make it with `Buffer.view`.

    Attributes:
        buffer: whose memory it is.
        shape, dtype, nbytes: as of an array.
        offset: bytes of the buffer before it.
    """

    def __init__(self, buffer: Buffer, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int = 0) -> None:
        self.buffer, self.shape, self.dtype, self.offset = buffer, shape, np.dtype(dtype), offset
        self.nbytes = bytes_of(shape, dtype)

    @property
    def address(self) -> int:
        """Where it begins, as the device sees it."""
        return self.buffer.start + self.offset

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        """By which torch, CuPy and Numba take the same memory as an array of theirs, without a copy.

        CUDA Array Interface, version 3. Whoever does has to wait for the stream that fills it, and to let go of it
        before it is closed.

        Raises:
            DeviceError: the buffer is closed, or the device does not see it.
        """
        self.buffer.check()
        if not self.buffer.start:
            raise DeviceError(
                f"the device does not see a {self.buffer.kind} buffer", "Use one of the device, or mapped"
            )
        found = {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "strides": None}
        return {**found, "version": 3}

    @property
    def host(self) -> Array | None:
        """The array itself for pinned and mapped memory, None for device memory."""
        octets = self.buffer.octets
        return (
            None
            if octets is None
            else octets[self.offset : self.offset + self.nbytes].view(self.dtype).reshape(self.shape)
        )

    def put(self, values: Array, stream: Stream) -> View:
        """Copy an array of this shape and dtype here; the view itself is returned.

        Raises:
            DeviceError: the buffer is closed, or the stream is captured.
            ValueError: another shape or dtype.
        """
        self._check_copy(values, stream)
        host = self.host
        if host is not None:
            stream.synchronize()  # whoever still reads what stood here
            host[...] = values
        elif self.nbytes:
            octets = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            self.buffer.device.calls.to_device(self.address, octets, stream.handle)
        return self

    def copy_from(self, source: View, stream: Stream) -> View:
        """Queue a copy within the device's memory, or between it and pinned memory; the view itself is returned.

        Nobody waits, so it may be captured: the host's side is read or written when the stream comes to it.

        Raises:
            DeviceError: a buffer is closed, or the device sees neither of them.
            ValueError: another shape or dtype.
        """
        if source.shape != self.shape or source.dtype != self.dtype:
            raise ValueError(f"buffer: expected {self.dtype} {self.shape}, got {source.dtype} {source.shape}")
        for buffer in (self.buffer, source.buffer):
            buffer.check()
        stream.check()
        stream.note(self.buffer, source.buffer)
        calls, target, origin = self.buffer.device.calls, self.host, source.host
        if self.buffer.start and source.buffer.start:
            calls.on_device(self.address, source.address, self.nbytes, stream.handle)
        elif self.buffer.start and origin is not None:
            calls.to_device(self.address, origin.reshape(-1).view(np.uint8), stream.handle)
        elif source.buffer.start and target is not None:
            calls.to_host(target.reshape(-1).view(np.uint8), source.address, stream.handle)
        else:
            raise DeviceError("can not queue a copy from pinned to pinned memory", "Copy it on the host")
        return self

    def get(self, stream: Stream) -> Array:
        """A copy as an array, once all that the stream was given before is done.

        Raises:
            DeviceError: the buffer is closed, or the stream is captured.
        """
        found = np.empty(self.shape, self.dtype)
        self._check_copy(found, stream)
        host = self.host
        if host is None and self.nbytes:
            octets = found.reshape(-1).view(np.uint8)
            self.buffer.device.calls.to_host(octets, self.address, stream.handle)
        stream.synchronize()
        if host is not None:
            found[...] = host
        return found

    def copy(self, source: View, stream: Stream) -> View:
        """Copy another view of the same size on the device, in the stream's order; the view itself is returned.

        Raises:
            DeviceError: a buffer is closed, or the device does not see it.
            ValueError: the sizes differ.
        """
        if source.nbytes != self.nbytes:
            raise ValueError(f"buffer: expected {self.nbytes} bytes, got {source.nbytes}")
        for buffer in (self.buffer, source.buffer):
            buffer.check()
            if not buffer.start:
                raise DeviceError(f"the device does not see a {buffer.kind} buffer", "Use one of the device, or mapped")
        stream.check()
        stream.note(self.buffer, source.buffer)
        if self.nbytes:
            self.buffer.device.calls.copy(self.address, source.address, self.nbytes, stream.handle)
        return self

    def zero(self, stream: Stream) -> View:
        """Set all bytes to 0 in the stream's order; the view itself is returned."""
        self.buffer.check()
        stream.check()
        stream.note(self.buffer)
        host = self.host
        if host is not None and not self.buffer.start:  # the device does not see it
            stream.synchronize()
            host[...] = 0
        elif self.nbytes:
            self.buffer.device.calls.fill(self.address, 0, self.nbytes, stream.handle)
        return self

    def _check_copy(self, values: Array, stream: Stream) -> None:
        self.buffer.check()
        stream.check()
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(f"buffer: expected {self.dtype} {self.shape}, got {values.dtype} {values.shape}")
        if stream.noted is not None:
            raise DeviceError("an array can not be copied while a stream is captured", "Use a mapped buffer in graphs")


class Buffer(Owned, View):
    """An array in memory of its own. Make it with `Device.empty` or `Device.upload`.

    Raises:
        DeviceError: there is not so much memory.

    Attributes:
        kind: device, pinned or mapped.
        start: its address, as the device sees it; 0 for pinned memory.
        octets: all its bytes as the host sees them; None for device memory.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike, kind: Kind) -> None:
        memory = _allocated(device, kind, max(bytes_of(shape, dtype), 1))
        Owned.__init__(self, device, f"{kind} buffer", memory)
        View.__init__(self, self, shape, dtype)
        self.kind, self.start = kind, memory.address
        self.octets: Octets | None = memory.host
        self.graphs = 0
        """How many open graphs use it."""

    def view(self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int = 0) -> View:
        """A part of its memory as another array, from ``offset`` bytes on.

        Raises:
            ValueError: the array would not lie inside the buffer.
        """
        if offset < 0 or offset + bytes_of(shape, dtype) > self.nbytes:
            raise ValueError(f"buffer: {np.dtype(dtype)} {shape} at {offset} is not inside its {self.nbytes} bytes")
        return View(self, shape, dtype, offset)

    def _release(self) -> None:
        if self.graphs:
            raise DeviceError("this buffer is used by a graph", "Close the graph first")
        self.octets = None
        self.device.calls.free(self.handle)


def _allocated(device: Device, kind: Kind, nbytes: int) -> Memory:
    try:
        return device.calls.allocate(kind, nbytes)
    except Exception as error:  # each binding raises a class of its own
        raise DeviceError(
            f"{device.name} gives no {nbytes:,} bytes of {kind} memory: {error}",
            "End other programs that use it, or use the CPU: --backend cpu, --runner cpu",
        ) from error


def bytes_of(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Of an array."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
