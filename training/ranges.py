"""The check that all settings of a training share."""

from __future__ import annotations

from collections.abc import Mapping

from immunogate.errors import UsageError


def expect_within(settings: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse settings outside of their ranges, both ends included; NaN is outside of any.

    Args:
        settings: with an attribute for each name.
        ranges: by name.

    Raises:
        UsageError: a value is out of its range; says which.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise UsageError(f"{name} must be in {low:g} .. {high:g}, got {value}")
