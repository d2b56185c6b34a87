"""What must be true of a document before it is drawn for somebody to sign."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from immunogate.calib.robustness.document import Document, Rate
from immunogate.errors import InputError

SLACK = 1e-6
"""Rounding that whoever wrote the document may have done."""


def check_document(document: Document) -> None:
    """Refuse a document whose figures contradict each other.

    Raises:
        InputError: a rate is not its counts, lies outside its interval, or a curve is none; says which.
    """
    for where, rate in _rates(document, "document"):
        if abs(rate.rate - rate.accepted / rate.of) > SLACK:
            raise InputError(f"{where}: {rate.accepted} of {rate.of} is not a rate of {rate.rate:g}")
        if not rate.low - SLACK <= rate.rate <= rate.high + SLACK:
            raise InputError(f"{where}: the rate {rate.rate:g} is outside its interval {rate.low:g} to {rate.high:g}")
    for index, curve in enumerate(document.det):
        if len(curve.fmr) != len(curve.fnmr) or not all(0 <= rate <= 1 for rate in (*curve.fmr, *curve.fnmr)):
            raise InputError(f"document.det[{index}]: expected as many fmr as fnmr, each between 0 and 1")
    for index, each in enumerate(document.configurations):
        if each.ms_per_face and not 0 < each.ms_per_face.p50 <= each.ms_per_face.p99:
            raise InputError(f"document.configurations[{index}].ms_per_face: expected 0 < p50 <= p99")
    for index, row in enumerate(document.rows):
        if row.eps is not None and row.eps < 0:
            raise InputError(f"document.rows[{index}].eps: expected 0 or more grey levels, got {row.eps:g}")


def _rates(value: Any, where: str) -> Iterator[tuple[str, Rate]]:
    if isinstance(value, Rate):
        yield where, value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _rates(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, tuple):
        for index, part in enumerate(value):
            yield from _rates(part, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _rates(part, f"{where}.{key}")
