"""Devices by their data sheets, to say what a bundle could do there at best. Predictions; nothing here was measured.

Dense rates throughout, without the factor of two for sparsity. "fp32" is TF32 on the tensor cores, which TensorRT may
use for float32 networks: a floor takes the highest rate that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from immunogate.profiling.roofline import Rates, Work

_ADA = "NVIDIA Ada GPU Architecture whitepaper, appendix; boost clock, FP16 with FP16 accumulation"
_ORIN = "TF32 taken as half of FP16"


@dataclass(frozen=True)
class DeviceSheet:
    """One device.

    Attributes:
        bandwidth_gb_s: of its memory.
        tf32: dense tera-operations a second.
        fp16: likewise.
        int8: likewise.
        source: of the figures.
    """

    bandwidth_gb_s: float
    tf32: float
    fp16: float
    int8: float
    source: str

    def rates(self) -> Rates:
        """In bytes and operations a second."""
        by_precision = {"fp32": self.tf32, "fp16": self.fp16, "int8": self.int8}
        return Rates(self.bandwidth_gb_s * 1e9, {name: 1e12 * rate for name, rate in by_precision.items()})


DEVICES: dict[str, DeviceSheet] = {
    "Orin Nano Super": DeviceSheet(
        102, 8.35, 16.7, 33.4, f"NVIDIA Jetson Orin Nano Super Developer Kit: 67 sparse TOPS, 102 GB/s; {_ORIN}"
    ),
    "Orin NX 16GB": DeviceSheet(
        102.4, 7.5, 15.0, 30.0, f"NVIDIA Jetson Orin NX data sheet: 1024 cores at 918 MHz, without DLA; {_ORIN}"
    ),
    "AGX Orin 64GB": DeviceSheet(
        204.8, 21.3, 42.6, 85.2, f"NVIDIA Jetson AGX Orin Technical Brief 1.2: 170 sparse TOPS of the GPU; {_ORIN}"
    ),
    "RTX 4060": DeviceSheet(272, 15.1, 60.5, 121, _ADA),
    "RTX 4090": DeviceSheet(1008, 82.6, 330.3, 660.6, _ADA),
    "H200": DeviceSheet(4800, 494.5, 989, 1979, "NVIDIA H200 Tensor Core GPU data sheet, SXM"),
}


def predicted(works: Sequence[Work]) -> dict[str, Any]:
    """Floors of each stage on each device in milliseconds, their sum, what bounds them, where the figures are from."""
    found = {}
    for name, sheet in DEVICES.items():
        rates = sheet.rates()
        stages = {work.stage: round(rates.floor_ms(work), 6) for work in works}
        found[name] = {
            "kind": "prediction from data sheets",
            "source": sheet.source,
            "stages_ms": stages,
            "bound": {work.stage: rates.bound(work) for work in works},
            "total_ms": round(sum(stages.values()), 6),
        }
    return found
