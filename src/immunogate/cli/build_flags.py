"""Flags of ``immunogate build`` for TensorRT's builder, under their own names and under trtexec's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from immunogate.engines.record import Flags

MOST_WORKSPACE = 1 << 20
"""MiB."""


def add_builder_flags(group: Any) -> None:
    """Add them to a group of flags."""
    group.add_argument(
        "--workspace", "--memPoolSize", type=_workspace, metavar="MiB",
        help="most scratch memory of a layer (left out: all of the device); trtexec's workspace:N is understood",
    )  # fmt: skip
    group.add_argument(
        "--timing-cache", "--timingCacheFile", type=Path, metavar="FILE",
        help="what earlier builds measured, used and renewed (left out: one in the user's cache)",
    )  # fmt: skip
    group.add_argument(
        "--no-timing-cache", "--noBuilderCache", action="store_true", help="measure everything anew and keep nothing"
    )
    group.add_argument(
        "--optimization-level", "--builderOptimizationLevel", type=int, choices=range(6), default=3, metavar="0..5",
        help="how long to search for faster kernels; higher takes longer to build (default 3)",
    )  # fmt: skip
    group.add_argument(
        "--tf32", action="store_true",
        help="round products of float32 networks to TF32: faster from Ampere on, at 10 instead of 23 bits",
    )  # fmt: skip
    group.add_argument(
        "--version-compatible", "--versionCompatible", "--vc", action="store_true",
        help="newer TensorRT releases load it too; the price: a larger, often slower engine that carries code, which "
        "this release therefore does not load, since bundles can not be signed yet",
    )  # fmt: skip
    group.add_argument(
        "--hardware-compatible", "--hardwareCompatibilityLevel", nargs="?", const="ampere+", default="none",
        choices=("none", "ampere+", "sameComputeCapability"), metavar="LEVEL",
        help="other GPUs load it too: ampere+ (meant where no level is given; not on a Jetson) or "
        "sameComputeCapability (TensorRT 10.13 and newer); the price: only kernels that suit all of them, so often "
        "slower (default none)",
    )  # fmt: skip


def _workspace(text: str) -> int:
    """MiB, as a number or in trtexec's way: ``workspace:2048``, ``workspace:2G``."""
    number = text.removeprefix("workspace:")
    unit = {"K": 1 / 1024, "M": 1, "G": 1024}.get(number[-1:].upper())
    try:
        mebibytes = int(number) if unit is None else int(float(number[:-1]) * unit)
    except (OverflowError, ValueError):
        raise argparse.ArgumentTypeError(f"expected MiB, or workspace:N as trtexec takes it, got {text!r}") from None
    if not 1 <= mebibytes <= MOST_WORKSPACE:
        raise argparse.ArgumentTypeError(f"must be in 1 .. {MOST_WORKSPACE} MiB, got {text!r}")
    return mebibytes


def builder_flags(arguments: argparse.Namespace) -> Flags:
    """What was given, as the builder takes it."""
    from immunogate.engines.record import Flags

    return Flags(
        arguments.version_compatible,
        arguments.hardware_compatible,
        arguments.tf32,
        arguments.workspace,
        arguments.optimization_level,
    )
