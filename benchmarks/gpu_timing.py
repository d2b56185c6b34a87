"""Timing on a GPU: device events, warm and cold caches, replayed graphs, and what the device can do at best.

The host is slower than a kernel of a few microseconds. So before each timed piece a kernel waits on the device until
the host has queued all of it: events then see the device alone. Cold: 512 MiB are overwritten before each piece, many
times a last-level cache. Warm: nothing is. Replayed: a graph of many pieces, its time shared out, as a pipeline runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels import compile as compiling
from immunogate.kernels.device import Buffer, Device, Stream, open_device

WARM_UPS = 50
COVER_NS = 200_000
"""For which the device waits while the host queues: far more than a few launches take."""

IN_FLIGHT = 64
"""Timed pieces that are queued before the host waits for them."""

YARDSTICKS = Path(__file__).with_name("cuda")
Work = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Microseconds of one piece of work over ``n`` runs."""

    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    n: int


def spread(samples_us: Sequence[float]) -> Spread:
    """Of at least one sample, which must be a number.

    Raises:
        ValueError: there is none, or one is not finite or below zero.
    """
    if not samples_us or not all(math.isfinite(sample) and sample >= 0 for sample in samples_us):
        raise ValueError("samples: expected at least one, all finite and not below 0")
    middle, high, highest = (round(float(found), 3) for found in np.percentile(samples_us, [50, 90, 99]))
    return Spread(middle, high, highest, round(max(samples_us), 3), len(samples_us))


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        rounds: timed runs of each piece, at least.
        trains: replays of a graph.
        pieces: of work in such a graph.
        flush: bytes that are overwritten to empty the caches.
        stretch: bytes over which bandwidth is measured.
        multiplications: rounds of the multiplying yardstick.
    """

    rounds: int
    trains: int
    pieces: int
    flush: int
    stretch: int
    multiplications: int


FULL = Size(200, 40, 20, 512 << 20, 1 << 30, 4096)
QUICK = Size(20, 5, 5, 512 << 20, 256 << 20, 1024)


@dataclass(frozen=True)
class Ceilings:
    """What the device does at best, measured.

    Attributes:
        copy_gb_per_s: bytes read and bytes written of a large copy.
        read_gb_per_s: of a large sum that only reads.
        multiply_per_s: products of 32 by 32 to 64 bits.
        nothing_us: between two events with nothing between them; it is in every time by events.
    """

    copy_gb_per_s: float
    read_gb_per_s: float
    multiply_per_s: float
    nothing_us: float

    def floor_us(self, nbytes: float, multiplications: float = 0.0) -> float:
        """The larger of two times: that for the bytes at the copy's rate, and that for the products."""
        return max(nbytes / self.copy_gb_per_s / 1e3, multiplications / self.multiply_per_s * 1e6)


class Bench:
    """An open device, a stream, memory that is given back at the end, and clocks.

    Args:
        size: how much is done.
        device: by default the first one, opened for this object.

    Raises:
        DeviceError: there is no driver, no device or no binding.
        CompileError: there is no compiler for the yardsticks.
    """

    def __init__(self, size: Size, device: Device | None = None) -> None:
        self.size = size
        self._closing = ExitStack()
        try:
            self.device = device or self._closing.enter_context(open_device())
            self.stream = self._closing.enter_context(closing(self.device.stream()))
            code = compiling.cubin_for("yardsticks", self.device.architecture, YARDSTICKS).code
            self._yardsticks = self._closing.enter_context(closing(self.device.module(code)))
            self._wait, self._read, self._multiply = (
                self._yardsticks.function(name) for name in ("wait_for", "read_all", "multiply_all")
            )
            self._flushed = self.empty((size.flush,), np.uint8)
            self._sink = self.zeros((4,), np.uint32)
            self._events = [
                tuple(self._closing.enter_context(closing(self.device.event())) for _ in range(2))
                for _ in range(IN_FLIGHT)
            ]
        except BaseException:
            self._closing.close()
            raise

    def put(self, values: npt.NDArray[Any]) -> Buffer:
        """An array on the device, until the end."""
        return self._closing.enter_context(closing(self.device.upload(np.ascontiguousarray(values), self.stream)))

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
        """The same, its content undefined."""
        return self._closing.enter_context(closing(self.device.empty(shape, dtype)))

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
        """The same, of zeros."""
        buffer = self.empty(shape, dtype)
        buffer.zero(self.stream)
        return buffer

    def at_the_end(self, work: Work) -> None:
        """Do this before the device is closed."""
        self._closing.callback(work)

    def cover(self, stream: Stream) -> None:
        """Keep the stream busy while the host queues."""
        self.device.launch(self._wait, (1, 1, 1), (32, 1, 1), stream, [np.uint64(COVER_NS)])

    def events(
        self, works: Sequence[Work], *, cold: bool, rounds: int | None = None, stream: Stream | None = None
    ) -> list[float]:
        """Microseconds of each of ``rounds`` runs, by device events; the works take turns on the stream."""
        stream = stream or self.stream
        found: list[float] = []
        rounds = rounds or self.size.rounds
        warm_ups = min(WARM_UPS, 2 * rounds)
        for first in range(0, warm_ups + rounds, IN_FLIGHT):
            pairs = self._events[: min(IN_FLIGHT, warm_ups + rounds - first)]
            for turn, (start, end) in enumerate(pairs):
                if cold:
                    self._flushed.zero(stream)
                self.cover(stream)
                start.record(stream)
                works[(first + turn) % len(works)]()
                end.record(stream)
            stream.synchronize()
            found += [end.milliseconds_since(start) * 1e3 for start, end in pairs]
        return found[warm_ups:]

    def replayed(self, works: Sequence[Work]) -> list[float]:
        """Microseconds a piece, from graphs of ``size.pieces`` pieces."""
        pieces = self.size.pieces

        def train() -> None:
            for turn in range(pieces):
                works[turn % len(works)]()

        graph = self.stream.capture(train)
        try:
            times = self.events([lambda: graph.launch(self.stream)], cold=False, rounds=self.size.trains)
        finally:
            graph.close()
        return [time / pieces for time in times]

    def ceilings(self) -> Ceilings:
        """Measure them; a few seconds."""
        nbytes, blocks = self.size.stretch, 8 * self.device.processors
        source, target = self.device.empty((nbytes,), np.uint8), self.device.empty((nbytes,), np.uint8)
        source.zero(self.stream)
        rounds = self.size.multiplications

        def read() -> None:
            arguments = [source, np.uint64(nbytes // 16), self._sink]
            self.device.launch(self._read, (blocks, 1, 1), (256, 1, 1), self.stream, arguments)

        def multiply() -> None:
            arguments = [self._sink, np.int32(rounds)]
            self.device.launch(self._multiply, (blocks, 1, 1), (256, 1, 1), self.stream, arguments)

        works: list[Work] = [lambda: target.copy(source, self.stream), read, multiply, lambda: None]
        middles = [spread(self.events([work], cold=False)).p50_us for work in works]
        source.close()
        target.close()
        copy, reading, multiplying, nothing = (max(middle, 1e-3) for middle in middles)
        return Ceilings(
            round(2 * nbytes / copy / 1e3, 1),
            round(nbytes / reading / 1e3, 1),
            round(blocks * 256 * 8 * rounds / multiplying * 1e6),
            middles[3] if middles[3] > 0 else nothing,
        )

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()


def times(bench: Bench, works: Sequence[Work], *, replay: bool = True) -> dict[str, Any]:
    """Cold, warm and replayed times of one piece of work, each measured twice; `run_to_run` is how far p50 moved.

    replay: also as a graph; a work that launches a graph itself can not be captured into another.
    """
    found: dict[str, Any] = {}
    ways: dict[str, Callable[[], list[float]]] = {
        "cold": lambda: bench.events(works, cold=True),
        "warm": lambda: bench.events(works, cold=False),
    }
    if replay:
        ways["replayed"] = lambda: bench.replayed(works)
    for name, way in ways.items():
        first, second = spread(way()), spread(way())
        apart = abs(first.p50_us - second.p50_us) / max(min(first.p50_us, second.p50_us), 1e-9)
        found[name] = {**asdict(first), "again_p50_us": second.p50_us, "run_to_run": round(apart, 4)}
    return found
