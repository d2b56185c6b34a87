"""Checks what a kernel is launched with, before the driver would take it at its word."""

from __future__ import annotations

from typing import get_args

import numpy as np

from immunogate.kernels.device.calls import Argument, Dimensions
from immunogate.kernels.device.driver import DeviceError

Scalar = np.int32 | np.uint32 | np.int64 | np.uint64 | np.float32 | np.float64
SCALARS: tuple[type[np.generic], ...] = get_args(Scalar)

LARGEST_GRID: Dimensions = (2**31 - 1, 65535, 65535)
LARGEST_BLOCK: Dimensions = (1024, 1024, 64)
MOST_THREADS = 1024
MOST_SHARED = 48 * 1024
"""Bytes of dynamic shared memory that every device gives without being asked specially."""


def checked_argument(kernel: str, place: int, argument: object) -> Argument:
    """A scalar or a null pointer as kind and value.

    Raises:
        TypeError: it is neither.
    """
    if argument is None:
        return "pointer", 0
    if isinstance(argument, SCALARS):
        return argument.dtype.name, argument
    names = ", ".join(kind.__name__ for kind in SCALARS)
    raise TypeError(f"{kernel}: argument {place} must be a Buffer, None, or one of {names}, got {type(argument)}")


def check_dimensions(kernel: str, grid: Dimensions, block: Dimensions, shared: int) -> None:
    """Refuse what no device takes.

    Raises:
        DeviceError: a size is 0 or below, or too large.
    """
    for name, sizes, largest in (("grid", grid, LARGEST_GRID), ("block", block, LARGEST_BLOCK)):
        fits = len(sizes) == 3 and all(1 <= size <= most for size, most in zip(sizes, largest, strict=True))
        if not fits:
            raise DeviceError(f"{kernel}: a {name} of {sizes} is not in 1 .. {largest}")
    if block[0] * block[1] * block[2] > MOST_THREADS:
        raise DeviceError(f"{kernel}: a block of {block} has more than {MOST_THREADS} threads")
    if not 0 <= shared <= MOST_SHARED:
        raise DeviceError(f"{kernel}: {shared} bytes of shared memory are not in 0 .. {MOST_SHARED}")
