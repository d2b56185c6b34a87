"""Comparisons of one computation with another: what was measured, what is allowed, as data and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from immunogate.structs import Floats


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        output: what is compared.
        between: the two computations.
        measure: how, with its unit.
        value: what was measured.
        limit: what is allowed.
        passed: whether the value keeps the limit.
    """

    output: str
    between: str
    measure: str
    value: float
    limit: float
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def least_cosine(first: Floats, second: Floats) -> float:
    """The least cosine of (B, E) embeddings of unit length with their counterparts."""
    return float(np.einsum("ij,ij->i", first, second).min())


def pair_shift(first: Floats, second: Floats) -> float:
    """The largest shift of the score of any pair of (B, E) embeddings."""
    return float(np.abs(first @ first.T - second @ second.T).max())


def at_most(output: str, between: str, measure: str, value: float, limit: float) -> Check:
    """A value that may be as large as the limit."""
    return Check(output, between, measure, value, limit, bool(value <= limit))


def at_least(output: str, between: str, measure: str, value: float, limit: float) -> Check:
    """A value that may be as small as the limit."""
    return Check(output, between, measure, value, limit, bool(value >= limit))


def same_bytes(output: str, between: str, first: bytes, second: bytes) -> Check:
    """Whether two files are the same; the value is the number of bytes that differ."""
    differing = abs(len(first) - len(second)) + sum(a != b for a, b in zip(first, second, strict=False))
    return Check(output, between, "bytes that differ", float(differing), 0.0, differing == 0)


def table(checks: Sequence[Check]) -> str:
    """The checks as text."""
    rows = [f"{'output':<30}{'between':<26}{'measure':<20}{'value':>12}{'limit':>10}"]
    for check in checks:
        mark = "ok" if check.passed else "FAILED"
        rows.append(
            f"{check.output:<30}{check.between:<26}{check.measure:<20}{check.value:>12.3g}{check.limit:>10.3g}  {mark}"
        )
    return "\n".join(rows)
