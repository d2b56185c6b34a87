"""JSON that a stranger may have written, read with limits.

RFC 8259 leaves depth and equal keys to each reader; where two readers differ, one of them can be shown something that
the other does not see. So both are refused. Numbers that are not finite are for the caller to name by their field.
"""

from __future__ import annotations

import json
from typing import Any

MOST_NESTED = 64
"""Levels of lists and objects in each other."""


def parse_json(text: str) -> Any:
    """The document that ``text`` is.

    Raises:
        ValueError: it is no JSON, an object names a key twice, or it is nested more than `MOST_NESTED` levels deep. The
            caller has limited its length.
    """
    try:
        data = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MOST_NESTED} levels deep") from error
    _expect_shallow(data)
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return found


def _expect_shallow(data: Any) -> None:
    """Level by level, so that no depth costs stack."""
    level = [data]
    for _ in range(MOST_NESTED + 1):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {MOST_NESTED} levels deep")
