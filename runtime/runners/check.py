"""Compares a runner with ONNX Runtime's CPU provider: a gate trusts no device that gives other numbers."""

from __future__ import annotations

import numpy as np

from immunogate.kernels.device.driver import DeviceError
from immunogate.runtime.runners.base import Array, Runner

LARGEST_ERROR = 1e-2
"""Of one row of an output: length of the difference to the length of what the CPU gives. For embeddings of unit length
this bounds what a similarity can move by. Networks hold their precision in the ONNX, so both sides compute the same:
what differs is the order of sums and, in FP16, the rounding between operators."""

LARGEST_INT8_ERROR = 1e-1
"""The same where values between operators are rounded to 8 bits: a sum that differs in its last bit is now and then
rounded to the next level, and these steps add up over the layers. Such a network is to be calibrated where it runs."""

MOST_ROWS, LONGEST_SIDE = 2, 640
"""Of the made-up batch, where the network takes any length."""


def made_up_batch(shape: list[int | str], largest: tuple[int, ...]) -> Array:
    """float32 in [0, 1) of a network's input shape; the same numbers at every call.

    Args:
        shape: the network's.
        largest: the largest input it will be given; what was compiled for a range of sizes takes this one.
    """
    limits = (MOST_ROWS, *(LONGEST_SIDE for _ in shape[1:]))
    sides = [
        own if isinstance(own, int) else min(most, limit)
        for own, most, limit in zip(shape, largest, limits, strict=True)
    ]
    return np.random.default_rng(1).uniform(0, 1, sides).astype(np.float32)


def tolerance_for(model: bytes) -> float:
    """What `check_against_cpu` accepts of a network, by the content of its ONNX file."""
    return LARGEST_INT8_ERROR if b"QuantizeLinear" in model else LARGEST_ERROR  # an operator's name stands in clear


def check_against_cpu(runner: Runner, cpu: Runner, largest: tuple[int, ...], tolerance: float = LARGEST_ERROR) -> None:
    """One made-up batch through a runner and through the CPU.

    Args:
        runner: that is to be trusted.
        cpu: the same network on the CPU.
        largest: as `immunogate.runtime.runners.base.Network` has it.
        tolerance: see `tolerance_for`.

    Raises:
        DeviceError: the runner fails, has other outputs, or its numbers differ by more than is accepted.
    """
    mend = "Use --runner cpu, and report the device"
    batch = made_up_batch(cpu.input_shape, largest)
    expected = cpu.run(batch)
    try:
        found = runner.run(batch)
    except Exception as error:  # each runner raises classes of its own
        raise DeviceError(f"{runner.kind} fails on {runner.name}: {error}", mend) from error
    for name, wanted in expected.items():
        if name not in found or found[name].shape != wanted.shape:
            raise DeviceError(f"{runner.kind} gives no {name} of shape {wanted.shape} from {runner.name}", mend)
        differs = largest_error(found[name], wanted)
        if not differs <= tolerance:  # so that NaN is no agreement
            raise DeviceError(
                f"{runner.kind} computes other numbers than the CPU from {runner.name}: {name} differ by {differs:.2g} "
                f"of their length, at most {tolerance:g} is accepted",
                mend,
            )


def largest_error(found: Array, wanted: Array) -> float:
    """Over rows of (B, ...): length of the difference, relative to the length of what was wanted."""
    rows, right = (np.asarray(values, np.float64).reshape(len(wanted), -1) for values in (found, wanted))
    lengths = np.maximum(np.linalg.norm(right, axis=1), 1e-6)
    return float((np.linalg.norm(rows - right, axis=1) / lengths).max())
