"""Plain JSON data as frozen, annotated structures; whatever does not fit is named by its place."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

from immunogate.errors import BundleError

MOST_NESTED = 32
"""Levels of nesting that free-form fields (provenance) may have."""


def decode(kind: Any, data: Any, where: str) -> Any:
    """Turn plain JSON data into the annotated type, naming the place of whatever does not fit.

    Args:
        kind: a dataclass, list, dict, union with None, or plain type.
        data: as `json.loads` gives it.
        where: what to call its place in errors.

    Raises:
        BundleError: a field is missing, unknown, of the wrong type or no finite number; it is named.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        _expect_plain(data, where)
        return data
    if origin in (types.UnionType, typing.Union):
        return None if data is None else decode(arguments[0], data, where)
    if origin is list:
        items = _expect(list, data, where)
        return [decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items)]
    if origin is dict:
        entries = _expect(dict, data, where)
        return {key: decode(arguments[1], value, f"{where}.{key}") for key, value in entries.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, _expect(dict, data, where), where)
    if kind is float:
        return _finite(_expect((int, float), data, where), where)
    return _expect(kind, data, where)


def _decode_dataclass(kind: Any, data: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise BundleError(f"{where}: unknown field {unknown[0]!r}")
    for item in dataclasses.fields(kind):
        optional = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        if item.name not in data and not optional:
            raise BundleError(f"{where}: the field {item.name!r} is missing")
    return kind(**{key: decode(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _expect_plain(data: Any, where: str, depth: int = 0) -> None:
    """Refuse what could not be written back as JSON: numbers that are not finite, and endless nesting."""
    if depth > MOST_NESTED:
        raise BundleError(f"{where}: nested more than {MOST_NESTED} levels deep")
    if isinstance(data, float):
        _finite(data, where)
    if isinstance(data, dict):
        for key, child in data.items():
            _expect_plain(child, f"{where}.{key}", depth + 1)
    if isinstance(data, list):
        for i, child in enumerate(data):
            _expect_plain(child, f"{where}[{i}]", depth + 1)


def _finite(number: float, where: str) -> float:
    try:
        converted = float(number)  # a whole number may be too large for this
    except OverflowError:
        converted = math.inf
    if isinstance(number, bool) or not math.isfinite(converted):
        raise BundleError(f"{where}: expected a finite number, got {str(number)[:20]}")
    return converted


def _expect(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is int):
        names = [k.__name__ for k in kind] if isinstance(kind, tuple) else [kind.__name__]
        raise BundleError(f"{where}: expected {' or '.join(names)}, got {type(data).__name__}")
    return data
