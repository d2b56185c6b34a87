"""The sheet's own colours against each other, and that it asks for nothing (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re

import pytest

from immunogate.pages.style import DARK, LIGHT, LOOKS, SHEET

SCHEMES = {"light": LIGHT, "dark": DARK}


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_texts_are_readable_and_drawings_seen(scheme: str) -> None:
    colours = SCHEMES[scheme]
    for ink in ("ink", "muted", "link", "good", "warn", "bad", "fault"):
        for ground in ("ground", "panel"):
            assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for kind in ("good", "warn", "bad", "fault"):
        for ink in (kind, "ink"):
            assert _contrast(colours[ink], colours[f"{kind}-ground"]) >= 4.5, (ink, kind)
    for look in range(LOOKS):
        assert _contrast(colours[f"s{look}"], colours["ground"]) >= 3, look


def test_both_schemes_name_the_same_colours_and_every_colour_used_is_named() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert set(re.findall(r"var\(--([\w-]+)\)", SHEET)) <= LIGHT.keys()


def test_the_sheet_loads_nothing_and_ends_no_element() -> None:
    assert not re.search(r"url\(|@import|@font-face|<", SHEET)
    assert SHEET.count("{") == SHEET.count("}")
