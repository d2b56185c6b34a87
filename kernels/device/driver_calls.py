"""Calls to the driver that both bindings make in one way, through ctypes: graphs, and keeping the primary context."""

from __future__ import annotations

import ctypes
from typing import Any

from immunogate.kernels.device.driver import LIBRARY, DeviceError

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not spoil a capture."""


class DriverCalls:
    """Streams and graphs go by their addresses; an instantiated graph is a `ctypes.c_void_p`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)

    def begin_capture(self, stream: int) -> None:
        """From here on the stream's work is noted down and not done."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(THREAD_LOCAL))

    def end_capture(self, stream: int) -> ctypes.c_void_p:
        """What was noted down, ready for launch."""
        noted, graph = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(noted))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(graph), noted, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", noted)
        return graph

    def drop_capture(self, stream: int) -> None:
        """A capture that failed has no graph, and ending it says so: there is nothing to do about it."""
        noted = ctypes.c_void_p()
        self._library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(noted))
        if noted:
            self._call("cuGraphDestroy", noted)

    def launch_graph(self, graph: ctypes.c_void_p, stream: int) -> None:
        """Queue all of it."""
        self._call("cuGraphLaunch", graph, ctypes.c_void_p(stream))

    def free_graph(self, graph: ctypes.c_void_p) -> None:
        """Give it back."""
        self._call("cuGraphExecDestroy", graph)

    def keep_primary_context(self, index: int) -> None:
        """One more user of the device's primary context: it stays alive until `leave_primary_context`."""
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(index))

    def leave_primary_context(self, index: int) -> None:
        """One user less."""
        self._call("cuDevicePrimaryCtxRelease_v2", ctypes.c_int(index))

    def pop_context(self) -> None:
        """Take the current context off this thread."""
        popped = ctypes.c_void_p()
        self._call("cuCtxPopCurrent_v2", ctypes.byref(popped))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise DeviceError(f"{name} failed with error {status}", "See CUresult in the CUDA driver's manual")
