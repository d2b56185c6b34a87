"""Frozen dataclasses to plain JSON values and back, and the JSON Schema that says what the plain values look like.

Fields may be str, int, float, bool, another such dataclass, a Literal of words, ``X | None``, ``tuple[X, ...]`` and
``dict[str, X]``; that is all a report needs, and each of them has one form in JSON.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from typing import Any, TypeVar

from immunogate.errors import InputError

T = TypeVar("T")
MOST = sys.float_info.max
"""JSON has larger numbers, and infinite ones."""

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_WORDS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def to_plain(value: Any) -> Any:
    """A dataclass, or a part of one, as values that JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(part) for key, part in value.items()}
    return [to_plain(part) for part in value] if isinstance(value, tuple) else value


def from_plain(kind: type[T], data: Any, where: str = "document") -> T:
    """A dataclass from plain values.

    Args:
        kind: the dataclass.
        data: from JSON.
        where: what it is, for errors.

    Raises:
        InputError: a field is missing, unknown, or of another type; says which.
    """
    made: T = _read(kind, data, where)
    return made


def schema_of(kind: type, title: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a dataclass: every field required, no other allowed."""
    definitions: dict[str, Any] = {}
    root = _schema(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _read(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_record(kind, data, where)
    if origin is types.UnionType:
        if data is None:
            return None
        return _read(_not_none(arguments), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise _wrong(where, "a list", data)
        return tuple(_read(arguments[0], part, f"{where}[{place}]") for place, part in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise _wrong(where, "an object", data)
        return {key: _read(arguments[1], part, f"{where}.{key}") for key, part in data.items()}
    if origin is typing.Literal:
        if data not in arguments:
            raise _wrong(where, f"one of {', '.join(map(str, arguments))}", data)
        return data
    return _read_simple(kind, data, where)


def _read_simple(kind: Any, data: Any, where: str) -> Any:
    # JSON writes 1.0 as it likes, and to Python a bool is a whole number.
    whole = isinstance(data, int) and not isinstance(data, bool)
    if kind is float and (whole or isinstance(data, float)) and -MOST <= data <= MOST:
        return float(data)
    if (kind is int and whole) or (kind in (str, bool) and isinstance(data, kind)):
        return data
    raise _wrong(where, _NAMES[kind], data)


def _read_record(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(where, "an object", data)
    kinds = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    for name in sorted(names ^ set(data)):
        raise InputError(f"{where}: field {name} is {'missing' if name in names else 'unknown'}")
    values = {name: _read(kinds[name], data[name], f"{where}.{name}") for name in data}
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        name = kind.__name__  # type: ignore[union-attr]
        if name not in definitions:
            definitions[name] = {}  # so that a record may hold itself
            hints = typing.get_type_hints(kind)
            fields = {field.name: _schema(hints[field.name], definitions) for field in dataclasses.fields(kind)}
            about = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
            definitions[name] = {"description": (kind.__doc__ or "").split("\n")[0], **about}
        return {"$ref": f"#/$defs/{name}"}
    if origin is types.UnionType:
        return {"anyOf": [_schema(_not_none(arguments), definitions), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    return {"type": _WORDS[kind]}


def _not_none(arguments: tuple[Any, ...]) -> Any:
    (kind,) = [argument for argument in arguments if argument is not type(None)]
    return kind


def _wrong(where: str, expected: str, data: Any) -> InputError:
    return InputError(f"{where}: expected {expected}, got {str(data)[:60]!r}")
