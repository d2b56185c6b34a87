"""The shell of a page, its sections and what stands in them besides tables and drawings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from immunogate.pages.markup import Html, Part, element, join
from immunogate.pages.style import SHEET

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'none'; base-uri 'none'; "
    "form-action 'none'"
)
"""Content Security Policy (W3C, level 3): the sheet inside the page, pictures inside the page, and nothing else."""

Kind = Literal["good", "warn", "bad", "fault"]


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading of the second level.

    Attributes:
        name: letters and hyphens, unique in the page: its anchor.
        title: the heading.
        body: what stands below.
    """

    name: str
    title: str
    body: Html

    def to_html(self) -> Html:
        """The section as markup."""
        heading = element("h2", self.title, id=self.name)
        return element("section", heading, self.body, aria_labelledby=self.name)


def page(title: str, head: Html, sections: Sequence[Section], foot: Part = None) -> str:
    """A whole page that loads nothing and runs nothing.

    Args:
        title: of the window, in plain text.
        head: what comes first; holds the only heading of the first level.
        sections: in their order; the contents that follow the head link to them.
        foot: last line.

    Returns:
        The document, to be written as UTF-8.
    """
    shell = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),  # browsers that find no icon ask the server for one
        element("title", title),
        element("style", Html(SHEET)),
    )
    links = [element("li", element("a", part.title, href=f"#{part.name}")) for part in sections]
    contents = element("nav", element("ol", *links), aria_label="Contents")
    parts = [part.to_html() for part in sections]
    end = element("footer", foot) if foot is not None else None
    body = element("body", element("main", element("header", head), contents, *parts), end)
    return f"<!DOCTYPE html>\n{element('html', shell, body, lang='en')}\n"


def band(kind: Kind, word: str, *children: Part) -> Html:
    """A coloured band that says in a word, with a sign before it, what its colour says."""
    sign = {"good": "\u2713", "warn": "!", "bad": "\u2715", "fault": "?"}[kind]
    shown = element("strong", element("span", sign, aria_hidden="true"), f" {word}")
    return element("div", element("p", shown), *children, class_=f"band {kind}")


def paragraph(*children: Part, class_: str | None = None) -> Html:
    """A paragraph."""
    return element("p", *children, class_=class_)


def listed(sentences: Iterable[Part]) -> Html:
    """A list with a dot before each entry."""
    return element("ul", *(element("li", sentence) for sentence in sentences))


def definitions(pairs: Mapping[str, Part]) -> Html:
    """Names and values, several beside one another where there is room."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in pairs.items()))


def figure(drawing: Html, caption: Part, title: str | None = None) -> Html:
    """A drawing or picture with its heading of the third level and its caption."""
    heading = element("h3", title) if title else None
    return element("figure", heading, drawing, element("figcaption", caption))


def figures(drawings: Iterable[Html]) -> Html:
    """Figures beside one another where there is room."""
    return element("div", join(drawings), class_="figures")
