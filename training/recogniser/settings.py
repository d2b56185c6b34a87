"""All that decides how a recogniser is distilled."""

from __future__ import annotations

from dataclasses import dataclass

from immunogate.errors import UsageError
from immunogate.training.ranges import expect_within

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class DistilSettings:
    """How a student learns from its teacher.

    Attributes:
        steps: optimiser steps in all.
        batch: faces a step.
        block: batches that are made and labelled together; bounds memory (about 0.3 MB a face).
        reuse: times each made face is used, in another order each time: labelling costs as much as learning.
        pace: share of their length that dense convolutions move in a step, at its peak; rises over ``warmup`` steps
            and falls along a cosine to nothing.
        learning_rate: peak of Adam's, for all other weights; rises and falls likewise.
        warmup: steps.
        relation: weight of the squared differences between the batch's cosines, student against teacher.
        hints: weight of the teacher's maps at first; falls to 0 at ``hints_until``.
        hints_until: share of all steps.
        mixed: share of faces that are mixed of two people.
        bend: faces are bent by smooth random shifts of a deviation of up to so many pixels. From about 4 on, the
            teacher takes the bent face for a new person.
        projected: share of faces that lose a part of their finer eigenfaces, as purified ones do.
        settle: share of all steps, at the end, in which the strength of all variations falls to ``calm``.
        calm: strength of variations at the end, 0 (none) to 1 (as before).
        average: decay of the moving average of the student, which is what is kept.
        precision: of the convolutions, float32 or bfloat16, which is twice as fast where the processor has it.
        seed: of everything drawn. Each draw depends on it, the step and its purpose alone.
        validate_every: steps between two validations, at each of which the state is saved.

    Raises:
        UsageError: a value is unknown or out of range.
    """

    steps: int = 5000
    batch: int = 64
    block: int = 8
    reuse: int = 3
    pace: float = 0.03
    learning_rate: float = 3e-3
    warmup: int = 200
    relation: float = 10.0
    hints: float = 1.0
    hints_until: float = 0.7
    mixed: float = 0.7
    bend: float = 5.0
    projected: float = 0.15
    settle: float = 0.35
    calm: float = 0.4
    average: float = 0.998
    precision: str = "float32"
    seed: int = 0
    validate_every: int = 250

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"unknown precision {self.precision!r}", f"Use one of: {', '.join(PRECISIONS)}")
        ranges: dict[str, tuple[float, float]] = {
            "steps": (1, 10**8),
            "batch": (2, 65536),
            "block": (1, 4096),
            "reuse": (1, 64),
            "pace": (1e-8, 1),
            "learning_rate": (1e-8, 1),
            "warmup": (0, 10**8),
            "relation": (0, 1e4),
            "hints": (0, 1e4),
            "hints_until": (0.0, 1),
            "mixed": (0, 1),
            "bend": (0, 20),
            "projected": (0, 1),
            "settle": (0, 1),
            "calm": (0, 1),
            "average": (0, 0.999999),
            "seed": (0, 2**63 - 1),
            "validate_every": (1, 10**8),
        }
        expect_within(self, ranges)

    def strength(self, step: int) -> float:
        """How strong variations are at a step: 1, and in the last part falling in a line to ``calm``."""
        begin = self.steps * (1 - self.settle)
        if step <= begin:
            return 1.0
        return 1.0 - (1.0 - self.calm) * min(1.0, (step - begin) / max(1.0, self.steps - begin))

    def hint_weight(self, step: int) -> float:
        """How much the teacher's maps count at a step."""
        end = self.hints_until * self.steps
        return self.hints * max(0.0, 1 - step / end) if end > 0 else 0.0
