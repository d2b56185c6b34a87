"""A fake driver where there is no GPU: the host's memory as a device's, streams as queues, kernels on the host.

It is no model of a GPU's speed or of its machine code. `FakeCalls` is a third implementation of the calls in
``kernels/device/calls.py``. It finds every kernel's signature in the real source and takes a launch apart by it, so an
argument too many, of another type or in another place is found. New memory is full of rubbish. Work that is queued is
done at once, or, with ``lazy``, not before somebody waits for it: a device may do it at any time between the two, and
whoever reads a result too early, or changes pinned memory too early, gets other numbers in one of them.

`EmulatedCalls` runs the real kernels, thread by thread (see ``tests/kernels/cuda_on_host.h``). What stands in for
engines is in `fake_networks` and `fake_tensorrt`.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from immunogate.errors import ImmunogateError
from immunogate.kernels import compile as compiling
from immunogate.kernels.device import Device
from immunogate.kernels.device.calls import Argument, Dimensions, Kind, Memory, Octets
from immunogate.kernels.host_build import HostBuildError, find_compiler

Array = npt.NDArray[Any]
Work = Callable[[], None]
KINDS = {"int": "int32", "u32": "uint32", "u64": "uint64", "s64": "int64", "float": "float32", "double": "float64"}


class FakeStream:
    """A queue of work; ``noted`` is a graph in the making."""

    def __init__(self, *, lazy: bool) -> None:
        self.lazy = lazy
        self.pending: deque[Work] = deque()
        self.noted: list[Work] | None = None


class FakePoint:
    """A point of a stream; ``at`` is how many kernels had run when it was reached."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream, self.at = stream, -1


STREAMS: dict[int, tuple[FakeCalls, FakeStream]] = {}
"""All open streams, by the address under which a library knows them."""


def queue_at(address: int, work: Work) -> None:
    """Queue work as a library does that was given a stream's address."""
    calls, stream = STREAMS[address]
    calls.queue(stream, work)


class FakeCalls:
    """See above. ``launches`` are the kernels that ran, ``memory`` what is allocated; the rest counts.

    Args:
        lazy: nothing is done before somebody waits for it.
        integrated: whether the device says that it shares the host's memory.
        hasty: streams, counted from 0, whose work is done at once all the same.
    """

    binding, device_name, capability, processors = "fake", "Fake device", (9, 0), 4

    def __init__(self, *, lazy: bool = False, integrated: bool = False, hasty: tuple[int, ...] = ()) -> None:
        self.integrated = integrated
        self._hasty, self._made = hasty, 0
        self.memory: dict[int, Array] = {}
        self.launches: list[str] = []
        self.allocations = self.graph_launches = 0
        self.is_closed = False
        self._lazy = lazy
        self._streams: list[FakeStream] = []

    def run(self, name: str, grid: Dimensions, block: Dimensions, shared: int, values: list[tuple[str, Any]]) -> None:
        """Do a kernel's work; values with the names of the parameters."""
        raise NotImplementedError

    def queue(self, stream: FakeStream, work: Work) -> None:
        """In the stream's order, or into the graph that is being captured."""
        if stream.noted is not None:
            stream.noted.append(work)
            return
        stream.pending.append(work)
        if not stream.lazy:
            self._drain(stream)

    def _drain(self, stream: FakeStream, point: FakePoint | None = None) -> None:
        while stream.pending and (point is None or point.at < 0):
            stream.pending.popleft()()

    def allocate(self, kind: Kind, nbytes: int) -> Memory:
        self.allocations += 1
        octets = np.full(nbytes + 256, 0xA5, np.uint8)
        octets = octets[-octets.ctypes.data % 256 :][:nbytes]  # whoever reads what was never written sees rubbish
        self.memory[octets.ctypes.data] = octets
        return Memory(0 if kind == "pinned" else octets.ctypes.data, None if kind == "device" else octets, octets)

    def free(self, memory: Memory) -> None:
        for stream in self._streams:  # as the driver does
            self._drain(stream)
        del self.memory[memory.handle.ctypes.data]

    def to_device(self, address: int, source: Octets, stream: FakeStream) -> None:
        start, size = source.ctypes.data, source.nbytes
        fixed = any(start >= at and start + size <= at + held.nbytes for at, held in self.memory.items())
        kept = source if fixed else source.copy()  # pageable memory may be changed once this returns
        self.queue(stream, lambda: _move(address, kept.ctypes.data, size))

    def to_host(self, target: Octets, address: int, stream: FakeStream) -> None:
        self.queue(stream, lambda: _move(target.ctypes.data, address, target.nbytes))

    def on_device(self, target: int, source: int, nbytes: int, stream: FakeStream) -> None:
        self.queue(stream, lambda: _move(target, source, nbytes))

    def fill(self, address: int, octet: int, nbytes: int, stream: FakeStream) -> None:
        self.queue(stream, lambda: (ctypes.memset(address, octet, nbytes), None)[1])

    def copy(self, to: int, source: int, nbytes: int, stream: FakeStream) -> None:
        self.queue(stream, lambda: _move(to, source, nbytes))

    def free_bytes(self) -> int:
        return 2**30 - sum(octets.nbytes for octets in self.memory.values())

    def new_stream(self) -> FakeStream:
        self._streams.append(FakeStream(lazy=self._lazy and self._made not in self._hasty))
        self._made += 1
        STREAMS[id(self._streams[-1])] = self, self._streams[-1]
        return self._streams[-1]

    def stream_address(self, stream: FakeStream) -> int:
        return id(stream)

    def wait_for_stream(self, stream: FakeStream) -> None:
        assert stream.noted is None
        self._drain(stream)

    def free_stream(self, stream: FakeStream) -> None:
        self._drain(stream)
        self._streams.remove(stream)
        del STREAMS[id(stream)]

    def new_event(self) -> list[FakePoint]:
        return []

    def record(self, event: list[FakePoint], stream: FakeStream) -> None:
        point = FakePoint(stream)
        event[:] = [point]

        def reach() -> None:
            point.at = len(self.launches)

        self.queue(stream, reach)

    def wait_for_event(self, event: list[FakePoint]) -> None:
        for point in event:  # one that was never recorded keeps nobody waiting
            self._drain(point.stream, point)

    def let_wait(self, stream: FakeStream, event: list[FakePoint]) -> None:
        points = list(event)
        self.queue(stream, lambda: self.wait_for_event(points))

    def milliseconds(self, start: list[FakePoint], end: list[FakePoint]) -> float:
        assert start[0].at >= 0 <= end[0].at
        return float(end[0].at - start[0].at)

    def free_event(self, event: Any) -> None: ...

    def load(self, cubin: bytes) -> Any:
        return cubin.decode()

    def function(self, module: Any, name: str) -> Any:
        return name, signatures(module)[name]

    def unload(self, module: Any) -> None: ...

    def launch(
        self, function: Any, grid: Dimensions, block: Dimensions, shared: int, stream: Any, arguments: list[Argument]
    ) -> None:
        name, parameters = function
        assert [kind for kind, _ in arguments] == [kind for kind, _ in parameters], name
        values = [(parameter, value) for (_, parameter), (_, value) in zip(parameters, arguments, strict=True)]

        def work() -> None:
            self.launches.append(name)
            self.run(name, grid, block, shared, values)

        self.queue(stream, work)

    def begin_capture(self, stream: FakeStream) -> None:
        stream.noted = []

    def end_capture(self, stream: FakeStream) -> list[Work]:
        noted, stream.noted = stream.noted, None
        assert noted is not None
        return noted

    def drop_capture(self, stream: FakeStream) -> None:
        stream.noted = None

    def launch_graph(self, graph: list[Work], stream: FakeStream) -> None:
        self.graph_launches += 1
        for work in graph:
            self.queue(stream, work)

    def free_graph(self, graph: Any) -> None: ...

    def close(self) -> None:
        assert not self.memory
        self.is_closed = True


class EmulatedCalls(FakeCalls):
    """The same; launches run the real kernels.

    Args:
        library: from `build_emulator`.
        options: as of `FakeCalls`.
    """

    def __init__(self, library: ctypes.CDLL, **options: Any) -> None:
        super().__init__(**options)
        self._run = library.run_kernel
        self._run.restype = ctypes.c_char_p

    def run(self, name: str, grid: Dimensions, block: Dimensions, shared: int, values: list[tuple[str, Any]]) -> None:
        held = [np.array(value, None if isinstance(value, np.generic) else np.uint64) for _, value in values]
        pointers = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        sizes = [(ctypes.c_uint * 3)(*extent) for extent in (grid, block)]
        fault = self._run(name.encode(), *sizes, shared, pointers, len(held), 0)
        assert fault is None, f"{name}: {fault.decode()}"


def build_emulator(folder: Path) -> ctypes.CDLL:
    """All kernels, compiled with g++ into a library in ``folder``; skips where there is no compiler."""
    try:
        compiler = find_compiler()
    except HostBuildError as error:
        pytest.skip(str(error))
    here, path = Path(__file__).parents[1] / "kernels", folder / "kernels.so"
    # Fortified, a jump to another stack is taken for an error.
    flags = (
        "-std=c++17",
        "-O2",
        "-march=native",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-shared",
        "-fPIC",
        "-U_FORTIFY_SOURCE",
    )
    command = [compiler, *flags, f"-I{compiling.SOURCES}", "-o", str(path), str(here / "cuda_on_host.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(path))


def short_of_memory(device: Device, work: Callable[[], None]) -> int:
    """Do work that opens and closes; its first, then its second ... allocation fails, until it gets through.

    Each time nothing may stay open that was not before. How often it failed is returned.
    """
    calls: Any = device.calls
    real, before = calls.allocate, device.live
    for place in count():
        left = iter([False] * place + [True])

        def allocate(kind: Kind, nbytes: int, left: Iterator[bool] = left) -> Memory:
            if next(left, False):
                raise MemoryError("no memory is left")
            return real(kind, nbytes)  # type: ignore[no-any-return]

        calls.allocate = allocate
        try:
            work()
        except ImmunogateError as error:
            if "no memory is left" not in str(error):
                raise
            assert device.live == before
        else:
            return place
        finally:
            calls.allocate = real
    raise AssertionError("it never got through")


def name_as_code(name: str, architecture: str) -> compiling.Compiled:
    """In place of `compile.cubin_for`: to the fake, a kernel file's machine code is its own name."""
    assert architecture == "sm_90"
    return compiling.Compiled(name.encode(), "fake", "")


@cache
def signatures(file: str) -> dict[str, list[tuple[str, str]]]:
    """Kind and name of each parameter of the kernels in a file, macros written out."""
    command = ["g++", "-E", "-P", "-x", "c++", f"{compiling.SOURCES / file}.cu"]
    text = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    found = {}
    for name, parameters in re.findall(r'extern "C" __global__ void __launch_bounds__\(\d+\) (\w+)\(([^)]*)\)', text):
        found[name] = [_parameter(words) for words in parameters.split(",")]
    return found


def _parameter(words: str) -> tuple[str, str]:
    name = re.findall(r"\w+", words)[-1]
    return ("pointer" if "*" in words else KINDS[words.split()[0]]), name


def _move(target: int, source: int, nbytes: int) -> None:
    ctypes.memmove(target, source, nbytes)
