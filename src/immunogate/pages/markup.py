"""Elements of HTML and SVG in which every text is escaped unless it is markup already.

Reports show names and sentences out of files that somebody else wrote. Whatever is not `Html` is text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

VOID = frozenset({"br", "col", "hr", "img", "link", "meta"})
"""Elements of HTML without an end tag (HTML Living Standard, 13.1.2) that reports use."""

_UNFIT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters and halves of characters, which no page may hold, and marks that turn the direction of writing,
with which a name could make the text beside it read otherwise (Unicode Technical Report 36)."""


class Html(str):
    """Markup that is safe to stand in a page: made by this module, or by whoever answers for it."""

    __slots__ = ()


Part: TypeAlias = "str | Html | None"
"""What an element may hold: text, which is escaped, markup, or nothing."""


def escape(text: object) -> Html:
    """Text as markup: ``< > & " '`` as references, characters that are not for pages as U+FFFD."""
    return Html(html.escape(_UNFIT.sub("\ufffd", str(text)), quote=True))


def join(parts: Iterable[Part], between: str = "") -> Html:
    """Parts behind one another, each escaped unless it is markup; None is left out."""
    kept = (part if isinstance(part, Html) else escape(part) for part in parts if part is not None)
    return Html(escape(between).join(kept))


def element(name: str, /, *children: Part, **attributes: str | float | None) -> Html:
    """An element of HTML or SVG.

    Args:
        name: of the element.
        children: text, markup or None.
        attributes: underscores become hyphens, one at the end is dropped (``class_``); None leaves the attribute out,
            an empty text leaves it without a value. Numbers are written with at most two digits behind the point.
    """
    words = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    start = f"<{name}{words}>"
    return Html(start if name in VOID else f"{start}{join(children)}</{name}>")


def _attribute(key: str, value: str | float) -> str:
    name = key.removesuffix("_").replace("_", "-")
    if value == "":
        return f" {name}"
    text = value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}="{escape(text)}"'
