"""What this machine can do at best, measured: bytes a second by triad and reading, operations a second by products."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from immunogate.kernels.cpu import usable_threads
from immunogate.runtime.profile.product_network import product_rate
from immunogate.structs import Floats

ARRAY = 24 << 20
"""Numbers in each array: 100 MB, more than the caches of most machines hold."""

BLOCK = 1 << 15
"""Numbers in a block, so that what is between two passes of the triad stays in a core's own cache."""

SIDE = 512
ROUNDS, PRODUCTS = 5, 100


@dataclass(frozen=True)
class MachineRates:
    """What was measured, the best of several rounds.

    Attributes:
        triad: bytes a second of a = b + s c, three arrays counted (McCalpin, STREAM).
        read: bytes a second of a sum of squares, one array.
        sgemm: operations a second of a float32 product of 512 x 512 matrices by NumPy's BLAS.
        product: the same by ONNX Runtime.
        threads: that worked.
    """

    triad: float
    read: float
    sgemm: float
    product: float
    threads: int


def machine_rates(threads: int | None = None, array: int = ARRAY, side: int = SIDE) -> MachineRates:
    """Measure, in about two seconds.

    Args:
        threads: to use; by default as many as the stages do.
        array: numbers in each array.
        side: of the matrices.
    """
    count = threads or usable_threads()
    arrays = [np.full(array, value, np.float32) for value in (0.0, 1.0, 2.0)]
    parts = [slice(array * part // count, array * (part + 1) // count) for part in range(count)]
    with ThreadPoolExecutor(count, "rates") as pool, threadpool_limits(1, "blas"):
        triad = _best(lambda: list(pool.map(lambda part: _triad(*(one[part] for one in arrays)), parts)))
        read = _best(lambda: list(pool.map(lambda part: _read(arrays[1][part]), parts)))
    left, right = (np.full((side, side), 0.5, np.float32) for _ in range(2))
    with threadpool_limits(count, "blas"):
        sgemm = _best(lambda: left @ right, PRODUCTS)
    product = product_rate(side, count, PRODUCTS)
    return MachineRates(3 * 4 * array / triad, 4 * array / read, 2 * side**3 / sgemm, product, count)


def _triad(a: Floats, b: Floats, c: Floats) -> None:
    for first in range(0, len(a), BLOCK):
        part = slice(first, first + BLOCK)
        np.multiply(c[part], np.float32(3), out=a[part])
        np.add(a[part], b[part], out=a[part])


def _read(a: Floats) -> float:
    return sum(float(np.dot(a[first : first + BLOCK], a[first : first + BLOCK])) for first in range(0, len(a), BLOCK))


def _best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of the fastest of several rounds, after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
