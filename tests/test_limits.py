"""JSON of strangers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.limits import MOST_NESTED, parse_json

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_what_json_writes_is_read_back(data: Any) -> None:
    assert parse_json(json.dumps(data)) == data


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    for depth in (1, MOST_NESTED):
        parse_json(opening * depth + "1" + closing * depth)
    for depth in (MOST_NESTED + 1, 400, 100_000):
        with pytest.raises(ValueError, match="levels deep"):
            parse_json(opening * depth + "1" + closing * depth)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('[{"b": {"c": 1, "d": 2, "c": 3}}]', "'c' is there twice"),
        ("", "Expecting value"),
        ("1 2", "Extra data"),
        ("[1,]", "Expecting|Illegal"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
