"""The driver through PyCUDA. Its graphs are five calls that PyCUDA does not have, made through ctypes on its stream."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from immunogate.kernels.device.calls import Argument, Dimensions, Kind, Memory, Octets
from immunogate.kernels.device.driver import LIBRARY, DeviceError

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the default stream."""

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not spoil a capture."""


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
        self._graphs = _GraphCalls()
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
        self._graphs.begin(stream.handle)

    def end_capture(self, stream: Any) -> Any:
        return self._graphs.end(stream.handle)

    def drop_capture(self, stream: Any) -> None:
        self._graphs.drop(stream.handle)

    def launch_graph(self, graph: Any, stream: Any) -> None:
        self._graphs.launch(graph, stream.handle)

    def free_graph(self, graph: Any) -> None:
        self._graphs.free(graph)

    def close(self) -> None:
        self._context.pop()
        self._context.detach()
        self._graphs.pop_context()  # detach pushes the context to release it, and leaves it there


class _GraphCalls:
    """Stream capture and graphs, on the handles of PyCUDA's streams."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)

    def begin(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(THREAD_LOCAL))

    def end(self, stream: int) -> ctypes.c_void_p:
        noted, graph = self._end(stream), ctypes.c_void_p()
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(graph), noted, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", noted)
        return graph

    def drop(self, stream: int) -> None:
        """A capture that failed has no graph, and ending it says so: there is nothing to do about it."""
        noted = ctypes.c_void_p()
        self._library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(noted))
        if noted:
            self._call("cuGraphDestroy", noted)

    def launch(self, graph: ctypes.c_void_p, stream: int) -> None:
        self._call("cuGraphLaunch", graph, ctypes.c_void_p(stream))

    def free(self, graph: ctypes.c_void_p) -> None:
        self._call("cuGraphExecDestroy", graph)

    def pop_context(self) -> None:
        popped = ctypes.c_void_p()
        self._call("cuCtxPopCurrent_v2", ctypes.byref(popped))

    def _end(self, stream: int) -> ctypes.c_void_p:
        noted = ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(noted))
        return noted

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise DeviceError(f"{name} failed with error {status}", "See CUresult in the CUDA driver's manual")
