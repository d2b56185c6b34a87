"""The driver through PyCUDA; graphs, which PyCUDA does not have, through ctypes on its streams."""

from __future__ import annotations

from typing import Any

import numpy as np

from immunogate.kernels.device.calls import Argument, Dimensions, Kind, Memory, Octets
from immunogate.kernels.device.driver_calls import DriverCalls

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the default stream."""


class PyCudaCalls:
    """See `immunogate.kernels.device.calls.Calls`.

    Args:
        index: number of the device.

    Raises:
        ImportError: PyCUDA is not installed or does not fit the driver.
    """

    binding = "pycuda"

    def __init__(self, index: int) -> None:
        import pycuda.driver as driver

        self._driver = driver
        self._index, self._own = index, DriverCalls()
        driver.init()
        device = driver.Device(index)
        self.device_name = str(device.name())
        self.capability: tuple[int, int] = tuple(device.compute_capability())
        about = driver.device_attribute
        self.integrated = bool(device.get_attribute(about.INTEGRATED))
        self.processors = int(device.get_attribute(about.MULTIPROCESSOR_COUNT))
        self._context = device.retain_primary_context()
        self._context.push()

    def allocate(self, kind: Kind, nbytes: int) -> Memory:
        if kind == "device":
            handle = self._driver.mem_alloc(nbytes)
            return Memory(int(handle), None, handle)
        mapped = kind == "mapped"
        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        host = self._driver.pagelocked_empty(nbytes, np.uint8, mem_flags=flags)
        return Memory(int(host.base.get_device_pointer()) if mapped else 0, host, host.base)

    def free(self, memory: Memory) -> None:
        memory.handle.free()

    def to_device(self, address: int, source: Octets, stream: Any) -> None:
        self._driver.memcpy_htod_async(address, source, stream)

    def to_host(self, target: Octets, address: int, stream: Any) -> None:
        self._driver.memcpy_dtoh_async(target, address, stream)

    def on_device(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        self._driver.memcpy_dtod_async(target, source, nbytes, stream)

    def fill(self, address: int, octet: int, nbytes: int, stream: Any) -> None:
        self._driver.memset_d8_async(address, octet, nbytes, stream)

    def copy(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        self._driver.memcpy_dtod_async(to, source, nbytes, stream)

    def free_bytes(self) -> int:
        return int(self._driver.mem_get_info()[0])

    def new_stream(self) -> Any:
        return self._driver.Stream(NON_BLOCKING)

    def stream_address(self, stream: Any) -> int:
        return int(stream.handle)

    def wait_for_stream(self, stream: Any) -> None:
        stream.synchronize()

    def free_stream(self, stream: Any) -> None:
        """PyCUDA gives it back when the last reference goes."""

    def new_event(self) -> Any:
        return self._driver.Event()

    def record(self, event: Any, stream: Any) -> None:
        event.record(stream)

    def wait_for_event(self, event: Any) -> None:
        event.synchronize()

    def let_wait(self, stream: Any, event: Any) -> None:
        stream.wait_for_event(event)

    def milliseconds(self, start: Any, end: Any) -> float:
        return float(end.time_since(start))

    def free_event(self, event: Any) -> None:
        """PyCUDA gives it back when the last reference goes."""

    def load(self, cubin: bytes) -> Any:
        return self._driver.module_from_buffer(cubin)

    def function(self, module: Any, name: str) -> Any:
        return module.get_function(name)

    def unload(self, module: Any) -> None:
        """PyCUDA gives it back when the last reference goes."""

    def launch(
        self, function: Any, grid: Dimensions, block: Dimensions, shared: int, stream: Any, arguments: list[Argument]
    ) -> None:
        function.prepare(["P" if kind == "pointer" else np.dtype(kind).char for kind, _ in arguments])
        values = [value for _, value in arguments]
        function.prepared_async_call(grid, block, stream, *values, shared_size=shared)

    def begin_capture(self, stream: Any) -> None:
        self._own.begin_capture(stream.handle)

    def end_capture(self, stream: Any) -> Any:
        return self._own.end_capture(stream.handle)

    def drop_capture(self, stream: Any) -> None:
        self._own.drop_capture(stream.handle)

    def launch_graph(self, graph: Any, stream: Any) -> None:
        self._own.launch_graph(graph, stream.handle)

    def free_graph(self, graph: Any) -> None:
        self._own.free_graph(graph)

    def close(self) -> None:
        # PyCUDA's detach pushes the context, gives it back and leaves it on the thread's stack. The last user takes the
        # context away, and whether one that is gone can be popped no manual says: it is kept until it was popped.
        self._context.pop()
        self._own.keep_primary_context(self._index)
        self._context.detach()
        self._own.pop_context()
        self._own.leave_primary_context(self._index)
