"""The driver through cuda-core 0.5 or newer.

Memory and copies go through cuda-bindings, which it stands on; graphs through ctypes, for its own change with versions.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from immunogate.kernels.device.calls import Argument, Dimensions, Kind, Memory, Octets
from immunogate.kernels.device.driver import DeviceError
from immunogate.kernels.device.driver_calls import DriverCalls


class CoreCalls:
    """See `immunogate.kernels.device.calls.Calls`.

    Args:
        index: number of the device.

    Raises:
        ImportError: cuda-core or cuda-bindings is not installed.
    """

    binding = "cuda-core"

    def __init__(self, index: int) -> None:
        import cuda.core as core
        from cuda.bindings import driver

        if not hasattr(core, "Device"):
            raise ImportError(f"it is version {core.__version__}, and 0.5 or newer is needed")
        self._core, self._driver = core, driver
        self._device = core.Device(index)
        self._device.set_current()  # retains the primary context
        self.device_name = str(self._device.name)
        major, minor = self._device.compute_capability
        self.capability = (int(major), int(minor))
        self.integrated = bool(self._device.properties.integrated)
        self.processors = int(self._device.properties.multiprocessor_count)
        new = hasattr(core.EventOptions(), "timing_enabled")  # as it is called since 1.0
        self._timed = core.EventOptions(**{"timing_enabled" if new else "enable_timing": True})
        self._own = DriverCalls()

    def allocate(self, kind: Kind, nbytes: int) -> Memory:
        if kind == "device":
            address = int(self._call("cuMemAlloc", nbytes))
            return Memory(address, None, address)
        mapped = kind == "mapped"
        flags = int(self._driver.CU_MEMHOSTALLOC_DEVICEMAP) if mapped else 0
        at = int(self._call("cuMemHostAlloc", nbytes, flags))
        host = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(at))
        return Memory(int(self._call("cuMemHostGetDevicePointer", at, 0)) if mapped else 0, host, at)

    def free(self, memory: Memory) -> None:
        self._call("cuMemFree" if memory.host is None else "cuMemFreeHost", memory.handle)

    def to_device(self, address: int, source: Octets, stream: Any) -> None:
        self._call("cuMemcpyHtoDAsync", address, source.ctypes.data, source.nbytes, stream.handle)

    def to_host(self, target: Octets, address: int, stream: Any) -> None:
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, address, target.nbytes, stream.handle)

    def on_device(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        self._call("cuMemcpyDtoDAsync", target, source, nbytes, stream.handle)

    def fill(self, address: int, octet: int, nbytes: int, stream: Any) -> None:
        self._call("cuMemsetD8Async", address, octet, nbytes, stream.handle)

    def copy(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        self._call("cuMemcpyDtoDAsync", to, source, nbytes, stream.handle)

    def free_bytes(self) -> int:
        found: tuple[int, int] = self._call("cuMemGetInfo", several=True)
        return int(found[0])

    def new_stream(self) -> Any:
        return self._device.create_stream(options=self._core.StreamOptions(nonblocking=True))

    def stream_address(self, stream: Any) -> int:
        return int(stream.handle)

    def wait_for_stream(self, stream: Any) -> None:
        stream.sync()

    def free_stream(self, stream: Any) -> None:
        stream.close()

    def new_event(self) -> Any:
        return self._device.create_event(options=self._timed)

    def record(self, event: Any, stream: Any) -> None:
        stream.record(event)

    def wait_for_event(self, event: Any) -> None:
        event.sync()

    def let_wait(self, stream: Any, event: Any) -> None:
        stream.wait(event)

    def milliseconds(self, start: Any, end: Any) -> float:
        return float(end - start)

    def free_event(self, event: Any) -> None:
        event.close()

    def load(self, cubin: bytes) -> Any:
        code = self._core.ObjectCode.from_cubin(cubin)
        _ = code.handle  # loads it: else its first kernel would, which may be while a stream is captured
        return code

    def function(self, module: Any, name: str) -> Any:
        return module.get_kernel(name)

    def unload(self, module: Any) -> None:
        """cuda-core gives it back when the last reference goes."""

    def launch(
        self, function: Any, grid: Dimensions, block: Dimensions, shared: int, stream: Any, arguments: list[Argument]
    ) -> None:
        config = self._core.LaunchConfig(grid=grid, block=block, shmem_size=shared)
        # A Python integer is a pointer to cuda-core, a NumPy scalar is passed by its type.
        values = [int(value) if kind == "pointer" else value for kind, value in arguments]
        self._core.launch(stream, config, function, *values)

    def begin_capture(self, stream: Any) -> None:
        self._own.begin_capture(int(stream.handle))

    def end_capture(self, stream: Any) -> Any:
        return self._own.end_capture(int(stream.handle))

    def drop_capture(self, stream: Any) -> None:
        self._own.drop_capture(int(stream.handle))

    def launch_graph(self, graph: Any, stream: Any) -> None:
        self._own.launch_graph(graph, int(stream.handle))

    def free_graph(self, graph: Any) -> None:
        self._own.free_graph(graph)

    def close(self) -> None:
        """cuda-core keeps the primary context until the process ends."""

    def _call(self, name: str, *arguments: Any, several: bool = False) -> Any:
        status, *found = getattr(self._driver, name)(*arguments)
        if int(status):
            raise DeviceError(f"{name} failed: {status.name}", "See CUresult in the CUDA driver's manual")
        return found if several else found[0] if found else None
