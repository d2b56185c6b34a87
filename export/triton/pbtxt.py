"""Protocol buffers' text format, as much of it as a model configuration needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Union


class Word(str):
    """A word that stands without quotes: the name of an enumeration's value."""

    __slots__ = ()


Scalar = str | int | bool  # a Word is a str
Message = Sequence[tuple[str, "Value"]]
Value = Union[Scalar, "Nested", list[int]]


class Nested:
    """A message within a message.

    Args:
        fields: names and values in their order; a name that comes twice is a repeated field.
    """

    def __init__(self, *fields: tuple[str, Value]) -> None:
        self.fields = fields


def text(fields: Message, indent: str = "") -> str:
    """The fields, one a line."""
    lines = []
    for name, value in fields:
        if isinstance(value, Nested):
            lines += [f"{indent}{name} {{", text(value.fields, f"{indent}  "), f"{indent}}}"]
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}")
    return "\n".join(line for line in lines if line)


def entries(name: str, pairs: dict[str, str]) -> list[tuple[str, Value]]:
    """A map of strings: one field for each of its entries."""
    return [(name, Nested(("key", key), ("value", value))) for key, value in pairs.items()]


def _scalar(value: Scalar | list[int]) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True)
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
