"""Text stays text, whatever stands in it."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from immunogate.pages.markup import Html, element, escape, join


class Reader(HTMLParser):
    """What a parser finds: tags and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc",))))
def test_a_text_makes_no_tag_and_reads_as_it_was(text: str) -> None:
    found = _read(element("p", text, title=text or None))
    assert [tag for tag, _ in found.tags] == ["p"]
    shown = str(escape(text))
    assert found.text == _read(shown).text
    if "\ufffd" not in shown:
        assert found.text == text
        assert found.tags[0][1].get("title", "") == text


def test_markup_is_not_escaped_twice_and_text_once() -> None:
    assert element("p", element("b", "a < b"), " & c", None) == "<p><b>a &lt; b</b> &amp; c</p>"
    assert join(["<", Html("<br>")], ", ") == "&lt;, <br>"


def test_attributes() -> None:
    assert (
        element("a", class_="x", aria_label='"', href=None, hidden="") == '<a class="x" aria-label="&quot;" hidden></a>'
    )
    assert element("line", x1=1.005, x2=2.0, y1=0) == '<line x1="1" x2="2" y1="0"></line>'
    assert element("meta", name="n") == '<meta name="n">'


def test_characters_that_no_page_may_hold_and_marks_that_turn_the_writing_round_are_replaced() -> None:
    for character in "\x00\x1b\x85\u202e\u2066\ud800\uffff":
        assert escape(f"a{character}b") == "a\ufffdb"
    escape("\ud800").encode()
    assert escape("tab\tline\n") == "tab\tline\n"
