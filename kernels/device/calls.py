"""The calls to the driver that a binding has to provide: the whole of what differs between PyCUDA and cuda-core.

Handles are the binding's own objects; nobody outside looks into them. No call here checks or counts anything:
`objects` does, once for all bindings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Kind = Literal["device", "pinned", "mapped"]
"""Memory of the device; of the host, fixed in place, for fast copies; the same, and the device reads and writes it."""

Dimensions = tuple[int, int, int]
Octets = npt.NDArray[np.uint8]

Argument = tuple[str, Any]
"""A kernel's argument by kind ("pointer", or the name of a NumPy type) and its value."""


@dataclass(frozen=True, eq=False)
class Memory:
    """One allocation.

    Attributes:
        address: as the device sees it; 0 where it does not.
        host: the same memory as the host sees it, (nbytes,) uint8; None for device memory.
        handle: what the binding frees.
    """

    address: int
    host: Octets | None
    handle: Any


class Calls(Protocol):
    """One open device through one binding; all calls come from the thread that opened it.

    Attributes:
        binding: pycuda or cuda-core.
        device_name: as the driver gives it.
        capability: compute capability.
        integrated: whether host and device share their memory, as on a Jetson.
        processors: streaming multiprocessors.
    """

    binding: str
    device_name: str
    capability: tuple[int, int]
    integrated: bool
    processors: int

    def allocate(self, kind: Kind, nbytes: int) -> Memory:
        """New memory of at least one byte."""

    def free(self, memory: Memory) -> None:
        """Give it back."""

    def to_device(self, address: int, source: Octets, stream: Any) -> None:
        """Copy (nbytes,) uint8 to the device; a pageable source may be changed once this returns."""

    def to_host(self, target: Octets, address: int, stream: Any) -> None:
        """Copy (nbytes,) uint8 from the device."""

    def on_device(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy from one place that the device sees to another."""

    def fill(self, address: int, octet: int, nbytes: int, stream: Any) -> None:
        """Set each byte."""

    def copy(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy from one address of the device to another."""

    def free_bytes(self) -> int:
        """Memory of the device that nobody holds."""

    def new_stream(self) -> Any:
        """A stream that does not wait for the default one."""

    def stream_address(self, stream: Any) -> int:
        """Its CUstream as a number, for libraries that queue work on it themselves."""

    def wait_for_stream(self, stream: Any) -> None:
        """Until all its work is done."""

    def free_stream(self, stream: Any) -> None:
        """Give it back."""

    def new_event(self) -> Any:
        """An event that keeps time."""

    def record(self, event: Any, stream: Any) -> None:
        """Mark this point of the stream."""

    def wait_for_event(self, event: Any) -> None:
        """Until the point was reached."""

    def let_wait(self, stream: Any, event: Any) -> None:
        """Later work of the stream begins only when the point was reached; nobody waits here."""

    def milliseconds(self, start: Any, end: Any) -> float:
        """From one reached event to the other."""

    def free_event(self, event: Any) -> None:
        """Give it back."""

    def load(self, cubin: bytes) -> Any:
        """A module."""

    def function(self, module: Any, name: str) -> Any:
        """One of its kernels."""

    def unload(self, module: Any) -> None:
        """Give it back."""

    def launch(
        self, function: Any, grid: Dimensions, block: Dimensions, shared: int, stream: Any, arguments: list[Argument]
    ) -> None:
        """Queue a kernel."""

    def begin_capture(self, stream: Any) -> None:
        """From here on the stream's work is noted down and not done."""

    def end_capture(self, stream: Any) -> Any:
        """What was noted down, as a graph that can be launched."""

    def drop_capture(self, stream: Any) -> None:
        """End noting down and forget it."""

    def launch_graph(self, graph: Any, stream: Any) -> None:
        """Queue all of it."""

    def free_graph(self, graph: Any) -> None:
        """Give it back."""

    def close(self) -> None:
        """Leave the primary context."""
