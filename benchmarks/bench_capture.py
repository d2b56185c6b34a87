"""What it costs to bring a frame from a camera's worker to the gate: two copies through shared memory, and a message.

The copies alone in one process, and the whole way between two: from the frame in the worker's hands to a frame of the
gate's own. The second holds the time that the system takes to wake the gate, which on a busy machine is most of it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Options, finish, guarded, parse, say
from environment import environment

from immunogate.runtime.camera.live import LiveCamera
from immunogate.runtime.camera.worker.memory import FrameMemory, new_descriptor
from immunogate.runtime.camera.worker.messages import Order

SIZES = {"1280x720": (720, 1280), "1920x1080": (1080, 1920)}
FPS = 25.0
STILL = """
import sys, threading, time
import numpy as np
from immunogate.runtime.camera.worker.main import Kind, Link, end_with_the_gate
from immunogate.runtime.camera.worker.memory import FrameMemory
from immunogate.runtime.camera.worker.sources import Taken
end_with_the_gate()
link = Link(int(sys.argv[1]), FrameMemory(int(sys.argv[2])))
height, width = map(int, link.order().uri.split())
threading.Thread(target=link.listen, daemon=True).start()
picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
link.say(Kind.OPENED)
index = 0
while True:
    time.sleep(1 / 25)
    link.put(Taken(picture, index, time.monotonic_ns(), time.time()))
    index += 1
"""
"""A worker that shows one picture over and over: its frames cost nothing to make."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_capture", __doc__, argv)
    before = environment()
    measured = measure(options)
    return finish("bench_capture", options, before, measured, [], table(measured))


def measure(options: Options) -> dict[str, Any]:
    """Milliseconds of each part, for each size."""
    sizes = dict(list(SIZES.items())[:1]) if options.quick else SIZES
    found = {}
    for name, (height, width) in sizes.items():
        say(name)
        found[name] = {
            "bytes": height * width * 3,
            **copies(height, width, 100 if options.quick else 2000),
            "between processes": between_processes(height, width, 20 if options.quick else 500),
        }
    return {"frames_per_second": FPS, "sizes": found}


def copies(height: int, width: int, rounds: int) -> dict[str, Any]:
    """The copy into a slot and the one out of it, each frame in a slot other than the last."""
    descriptor = new_descriptor()
    memory = FrameMemory(descriptor)
    os.close(descriptor)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    spent: dict[str, list[float]] = {"copy in": [], "copy out": [], "both": []}
    for turn in range(rounds + 8):
        start = time.perf_counter_ns()
        memory.write(turn % 4, picture)
        middle = time.perf_counter_ns()
        memory.read(turn % 4, height, width)
        end = time.perf_counter_ns()
        if turn >= 8:  # the first ones ask the system for the pages
            for name, passed in zip(spent, (middle - start, end - middle, end - start), strict=True):
                spent[name].append(passed / 1e6)
    return {name: percentiles(samples) for name, samples in spent.items()}


def between_processes(height: int, width: int, frames: int) -> dict[str, Any]:
    """From the frame in the worker's hands to a frame of the gate's own."""
    ages = []
    with LiveCamera("still", Order(f"{height} {width}"), command=[sys.executable, "-c", STILL]) as camera:
        for frame in camera:
            ages.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
            if len(ages) == frames:
                break
    return percentiles(ages)


def percentiles(samples: list[float]) -> dict[str, Any]:
    """Median, 99th percentile and most, in milliseconds."""
    p50, p99 = np.percentile(samples, [50, 99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3), "max_ms": round(max(samples), 3),
            "n": len(samples)}  # fmt: skip


def table(measured: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = [f"{'frame':<12}{'part':<20}{'p50, ms':>9}{'p99, ms':>9}{'max, ms':>9}{'n':>6}"]
    for size, parts in measured["sizes"].items():
        for part, row in parts.items():
            if part != "bytes":
                figures = f"{row['p50_ms']:>9.3f}{row['p99_ms']:>9.3f}{row['max_ms']:>9.3f}{row['n']:>6}"
                lines.append(f"{size:<12}{part:<20}{figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
