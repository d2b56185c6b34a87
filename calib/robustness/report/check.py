"""What must be true of a document before it is drawn for somebody to sign."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from immunogate.calib.intervals import wilson
from immunogate.calib.robustness.document import Document, Rate
from immunogate.errors import InputError

SLACK = 1e-6
"""Rounding that whoever wrote the document may have done."""

MOST = 10**12
"""Pairs that can have been compared."""

FASTEST, SLOWEST = 1e-6, 1e9
"""Milliseconds a face that can have been measured: a nanosecond to eleven days."""


def check_document(document: Document) -> None:
    """Refuse a document whose figures contradict each other.

    Raises:
        InputError: a rate is not its counts, its interval is another, or a curve is none; says which.
    """
    for where, rate in _rates(document, "document"):
        _check_rate(where, rate)
    for index, curve in enumerate(document.det):
        if len(curve.fmr) != len(curve.fnmr) or not all(0 <= rate <= 1 for rate in (*curve.fmr, *curve.fnmr)):
            raise InputError(f"document.det[{index}]: expected as many fmr as fnmr, each between 0 and 1")
    for index, each in enumerate(document.configurations):
        if each.ms_per_face and not FASTEST <= each.ms_per_face.p50 <= each.ms_per_face.p99 <= SLOWEST:
            where = f"document.configurations[{index}].ms_per_face"
            raise InputError(f"{where}: expected {FASTEST:g} <= p50 <= p99 <= {SLOWEST:g} ms")
    for index, row in enumerate(document.rows):
        if row.eps is not None and not 0 <= row.eps <= 255:
            raise InputError(f"document.rows[{index}].eps: expected 0 to 255 grey levels, got {row.eps:g}")


def _check_rate(where: str, rate: Rate) -> None:
    if rate.of > MOST:
        raise InputError(f"{where}: expected at most {MOST:,} pairs")
    if abs(rate.rate - rate.accepted / rate.of) > SLACK:
        raise InputError(f"{where}: {rate.accepted} of {rate.of} is not a rate of {rate.rate:g}")
    low, high = wilson(rate.accepted, rate.of)
    if abs(rate.low - low) > SLACK or abs(rate.high - high) > SLACK:
        raise InputError(
            f"{where}: {rate.low:g} to {rate.high:g} is not the Wilson interval of {rate.accepted} of {rate.of}, "
            f"which is {low:g} to {high:g}"
        )


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
