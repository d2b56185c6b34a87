"""Where a check of tools/kernel_parity.py happens: memory full of rubbish, drawn sizes, comparing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels.device import Buffer, Device, View
from immunogate.kernels.queued import Queued
from immunogate.runtime.gpu.memory import Memory

Array = npt.NDArray[Any]
GREY = 127.5
TOLERANCE = 1e-3
"""Grey levels by which float32 sums may differ from float64's."""


@dataclass(frozen=True)
class Limits:
    """Up to where shapes are drawn, each from 1: faces, clones, genes (or eigenfaces), pixels, templates."""

    batch: int
    clones: int
    genes: int
    pixels: int
    templates: int


class Place:
    """A device with its kernels and memory for one check."""

    def __init__(self, device: Device, seed: int, limits: Limits) -> None:
        self.device, self.limits = device, limits
        self.draw = np.random.default_rng(seed)
        self.stream = device.stream()
        self.memory = Memory(device, self.stream)
        self.queued = Queued(device)

    def size(self, most: int) -> int:
        """1 to ``most``, small ones as likely as large ones; now and then the largest itself."""
        return most if self.draw.random() < 0.1 else int(np.exp(self.draw.uniform(0, np.log(most + 1))))

    def put(self, values: Array) -> Buffer:
        """On the device."""
        return self.memory.upload(np.ascontiguousarray(values))

    def rubbish(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
        """Memory to be written to: NaN, or numbers that nobody computes."""
        octets = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 0xFF, np.uint8)
        return self.put(octets.view(dtype).reshape(shape))

    def get(self, view: View) -> Array:
        """From the device."""
        return view.get(self.stream)

    def close(self) -> None:
        """Give everything back."""
        self.memory.close()
        self.queued.close()
        self.stream.close()


def same(name: str, found: Array, want: Array) -> None:
    """Equal to the bit."""
    assert np.array_equal(found, want), f"{name}: not the definition's, first at {np.argwhere(found != want)[:1]}"


def near(name: str, found: Array, want: Array, most: float) -> None:
    """Within a tolerance; NaN is not."""
    worst = float(np.abs(found.astype(np.float64) - want).max(initial=0.0))
    assert worst <= most, f"{name}: off by {worst:g}, more than {most:g}"
