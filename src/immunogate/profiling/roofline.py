"""How fast a stage could be: bytes over bandwidth, operations over the rate of products, whichever is longer.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures",
Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CLOSE = 0.95
"""A stage below this share of its floor was served by a cache."""


@dataclass(frozen=True)
class Work:
    """What a stage has to do at the least for one frame.

    Attributes:
        stage: its path.
        bytes: that it has to move.
        flops: that it has to compute.
        precision: whose rate holds for the arithmetic: fp32, fp16 or int8.
    """

    stage: str
    bytes: float
    flops: float
    precision: str = "fp32"


@dataclass(frozen=True)
class Rates:
    """What a machine can do.

    Attributes:
        bandwidth: bytes a second.
        flops: operations a second in fp32, fp16 and int8.
    """

    bandwidth: float
    flops: dict[str, float]

    def floor_ms(self, work: Work) -> float:
        """Milliseconds that the stage takes at the least."""
        return 1e3 * max(work.bytes / self.bandwidth, work.flops / self.flops[work.precision])

    def bound(self, work: Work) -> str:
        """What holds the stage up at its floor: memory or arithmetic."""
        by_memory = work.bytes / self.bandwidth >= work.flops / self.flops[work.precision]
        return "memory" if by_memory else "arithmetic"


def stage_row(work: Work, rates: Rates, measured_ms: float | None) -> dict[str, Any]:
    """A stage beside its floor.

    Args:
        work: of the stage.
        rates: of this machine, measured.
        measured_ms: median of the stage, None where it was not seen.
    """
    floor = rates.floor_ms(work)
    times = measured_ms / floor if measured_ms is not None and floor > 0 else None
    bound = rates.bound(work)
    if times is not None and times < CLOSE and bound == "memory":
        bound = "memory, from a cache"
    return {
        **asdict(work),
        "floor_ms": round(floor, 5),
        "measured_ms": None if measured_ms is None else round(measured_ms, 4),
        "gap_ms": None if measured_ms is None else round(measured_ms - floor, 4),
        "times_floor": None if times is None else round(times, 2),
        "bound": bound,
    }
