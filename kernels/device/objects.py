"""Devices, streams, events, buffers, modules and graphs: checked, counted, and of one thread.

The same for every binding (`calls.Calls`). Whatever is made here is given back with `close`, or with the device; what
is still open when the device is closed is a leak, and is named.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy.typing as npt

from immunogate.kernels.device.arguments import check_dimensions, checked_argument
from immunogate.kernels.device.buffers import Array, Buffer, View
from immunogate.kernels.device.calls import Argument, Calls, Dimensions, Kind
from immunogate.kernels.device.driver import DeviceError
from immunogate.kernels.device.owned import Owned

log = logging.getLogger(__name__)


class Stream(Owned):
    """Work that is done in the order in which it was queued."""

    def __init__(self, device: Device) -> None:
        super().__init__(device, "stream", device.calls.new_stream())
        self.noted: list[Buffer] | None = None
        """Buffers used since a capture began; None outside of one."""

    @property
    def address(self) -> int:
        """Its CUstream as a number, for libraries that queue work on it themselves, as TensorRT does."""
        self.check()
        return self.device.calls.stream_address(self.handle)

    def synchronize(self) -> None:
        """Wait until all queued work is done.

        Raises:
            DeviceError: the stream is being captured.
        """
        self.check()
        if self.noted is not None:
            raise DeviceError("a stream can not be waited for while it is captured", "Wait after the graph's launch")
        self.device.calls.wait_for_stream(self.handle)

    def wait_for(self, event: Event) -> None:
        """Begin later work only when the event's point was reached; the calling thread goes on."""
        self.check()
        event.check()
        self.device.calls.let_wait(self.handle, event.handle)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Note down all that ``work`` queues on this stream, without doing it.

        The graph uses the very buffers that were queued: they can not be closed before it.
        """
        self.check()
        if self.noted is not None:
            raise DeviceError("this stream is being captured already", "Capture one graph after the other")
        self.device.calls.begin_capture(self.handle)
        self.noted = []
        try:
            work()
        except BaseException:
            self.noted = None
            self.device.calls.drop_capture(self.handle)
            raise
        used, self.noted = self.noted, None
        return Graph(self.device, self.device.calls.end_capture(self.handle), used)

    def note(self, *buffers: Buffer) -> None:
        """Remember buffers of queued work while the stream is captured."""
        if self.noted is not None:
            self.noted += buffers

    def _release(self) -> None:
        self.device.calls.free_stream(self.handle)


class Event(Owned):
    """A point in a stream, and when it was reached."""

    def __init__(self, device: Device) -> None:
        super().__init__(device, "event", device.calls.new_event())

    def record(self, stream: Stream) -> None:
        """Mark the point behind all that was queued so far."""
        self.check()
        stream.check()
        self.device.calls.record(self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait until the point was reached."""
        self.check()
        self.device.calls.wait_for_event(self.handle)

    def milliseconds_since(self, start: Event) -> float:
        """From another reached event to this one, on the device's clock."""
        self.check()
        start.check()
        return self.device.calls.milliseconds(start.handle, self.handle)

    def _release(self) -> None:
        self.device.calls.free_event(self.handle)


class Function:
    """A kernel of a module; it lives as long as that one."""

    def __init__(self, module: Module, name: str, handle: Any) -> None:
        self.module, self.name, self.handle = module, name, handle


class Module(Owned):
    """Compiled kernels.

    Args:
        device: that runs them.
        cubin: machine code for its architecture.
    """

    def __init__(self, device: Device, cubin: bytes) -> None:
        super().__init__(device, "module", device.calls.load(cubin))

    def function(self, name: str) -> Function:
        """One of the kernels, by its name in the source."""
        self.check()
        return Function(self, name, self.device.calls.function(self.handle, name))

    def _release(self) -> None:
        self.device.calls.unload(self.handle)


class Graph(Owned):
    """Work that was captured once and is queued as a whole. Make it with `Stream.capture`."""

    def __init__(self, device: Device, handle: Any, used: list[Buffer]) -> None:
        super().__init__(device, "graph", handle)
        self._used = used
        for buffer in used:
            buffer.graphs += 1

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""
        self.check()
        stream.check()
        self.device.calls.launch_graph(self.handle, stream.handle)

    def _release(self) -> None:
        for buffer in self._used:
            buffer.graphs -= 1
        self.device.calls.free_graph(self.handle)


class Device:
    """One GPU, in the primary context that other libraries of this process use too, owned by one thread.

    Args:
        calls: the binding.
        strict: `close` raises where something was not given back.
    """

    def __init__(self, calls: Calls, *, strict: bool = False) -> None:
        self.calls = calls
        self.name, self.capability, self.binding = calls.device_name, calls.capability, calls.binding
        self.processors, self.integrated = calls.processors, calls.integrated
        self._strict = strict
        self._owner = threading.current_thread()
        self._owned: dict[int, Owned] = {}
        self.made: Counter[str] = Counter()
        """How many objects of each sort were ever made: does not change while nothing is allocated."""
        self._open = True

    @property
    def architecture(self) -> str:
        """sm_90 for instance."""
        return f"sm_{self.capability[0]}{self.capability[1]}"

    @property
    def live(self) -> dict[str, int]:
        """How many objects of each sort are open."""
        return dict(Counter(item.label for item in self._owned.values()))

    def check_thread(self) -> None:
        """Raise `DeviceError` where the device is closed or another thread calls."""
        if threading.current_thread() is not self._owner:
            raise DeviceError(
                f"the GPU was opened by thread {self._owner.name!r} and is used by {threading.current_thread().name!r}",
                "Use it from the thread that opened it, or open it where it is used",
            )
        if not self._open:
            raise DeviceError("this device was closed", "Open it again")

    def stream(self) -> Stream:
        """A new stream, which does not wait for others."""
        self.check_thread()
        return Stream(self)

    def event(self) -> Event:
        """A new event, which keeps time."""
        self.check_thread()
        return Event(self)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike, kind: Kind = "device") -> Buffer:
        """A new array, its content undefined.

        Raises:
            DeviceError: there is not so much memory.
        """
        self.check_thread()
        return Buffer(self, shape, dtype, kind)

    def free_bytes(self) -> int:
        """Memory of the device that nobody holds, in bytes."""
        self.check_thread()
        return self.calls.free_bytes()

    def upload(self, values: Array, stream: Stream) -> Buffer:
        """A new array of the device with these values."""
        buffer = self.empty(values.shape, values.dtype)
        try:
            buffer.put(values, stream)
        except BaseException:
            buffer.close()
            raise
        return buffer

    def module(self, cubin: bytes) -> Module:
        """Load compiled kernels."""
        self.check_thread()
        return Module(self, cubin)

    def launch(
        self,
        function: Function,
        grid: Dimensions,
        block: Dimensions,
        stream: Stream,
        arguments: Sequence[object],
        shared: int = 0,
    ) -> None:
        """Queue a kernel.

        Args:
            function: the kernel.
            grid: blocks along x, y, z.
            block: threads of a block along x, y, z.
            stream: where it is queued.
            arguments: in the kernel's order: buffers, None for a null pointer, and NumPy scalars, whose type is the
                parameter's; a plain number has no type and is refused.
            shared: bytes of dynamic shared memory.

        Raises:
            DeviceError: something is closed, of another device or thread, or no device takes such a grid.
            TypeError: an argument of another kind.
        """
        function.module.check()
        stream.check()
        check_dimensions(function.name, grid, block, shared)
        values: list[Argument] = []
        for place, argument in enumerate(arguments):
            if isinstance(argument, View):
                buffer = argument.buffer
                buffer.check()
                if buffer.device is not self or buffer.start == 0:
                    raise DeviceError(f"{function.name}: the device does not see the buffer of argument {place}")
                stream.note(buffer)
                values.append(("pointer", argument.address))
            else:
                values.append(checked_argument(function.name, place, argument))
        self.calls.launch(function.handle, grid, block, shared, stream.handle, values)

    def close(self) -> None:
        """Give everything back and leave the context; a second time does nothing.

        Raises:
            DeviceError: the device is strict, and something had not been closed before; it is closed all the same.
        """
        if not self._open:
            return
        self.check_thread()
        leaked = self.live
        for item in sorted(self._owned.values(), key=lambda item: not isinstance(item, Graph)):
            item.close()
        self._open = False
        self.calls.close()
        if leaked:
            what = ", ".join(f"{count} {label}{'s' if count > 1 else ''}" for label, count in leaked.items())
            if self._strict:
                raise DeviceError(f"not given back before the device was closed: {what}", "Close each of them")
            log.warning("not given back before the device was closed: %s", what)

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
