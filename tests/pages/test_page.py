"""The shell of a page and its tables, as a parser reads them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from immunogate.pages.markup import Html, element
from immunogate.pages.page import POLICY, Section, band, definitions, figure, listed, page
from immunogate.pages.table import Column, Group, beside, table


def test_the_shell_forbids_everything_but_its_own_sheet_and_pictures() -> None:
    text = page("a <b>", element("h1", "x"), [Section("one", "First & only", Html("<p>body</p>"))], "foot")
    assert text.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv=')
    policy = {part.split()[0]: part.split()[1:] for part in POLICY.split("; ")}
    assert policy == {
        "default-src": ["'none'"], "style-src": ["'unsafe-inline'"], "img-src": ["data:"], "script-src": ["'none'"],
        "base-uri": ["'none'"], "form-action": ["'none'"],
    }  # fmt: skip
    assert "<title>a &lt;b&gt;</title>" in text
    assert '<section aria-labelledby="one"><h2 id="one">First &amp; only</h2><p>body</p></section>' in text
    assert '<nav aria-label="Contents"><ol><li><a href="#one">First &amp; only</a></li></ol></nav>' in text
    assert text.endswith("<footer>foot</footer></body></html>\n")


def test_a_band_says_in_a_word_what_its_colour_says() -> None:
    root = ElementTree.fromstring(band("bad", "BROKEN", "why"))
    assert root.attrib["class"] == "band bad"
    assert "".join(root.itertext()) == "\u2715 BROKENwhy"


def test_small_parts() -> None:
    assert listed(["a", "<"]) == "<ul><li>a</li><li>&lt;</li></ul>"
    assert definitions({"k": "v"}) == "<dl><div><dt>k</dt><dd>v</dd></div></dl>"
    assert figure(Html("<svg></svg>"), "c", "t") == ("<figure><h3>t</h3><svg></svg><figcaption>c</figcaption></figure>")


def test_a_table_names_its_columns_rows_and_groups() -> None:
    columns = [Column("What"), Column("How much", number=True), Column("Drawn", head=Html("<i></i>"))]
    made = table("Sizes in mm", columns, [Group([["a", "1", None], ["b", "2", "x"]], "first", frozenset({1}))])
    root = ElementTree.fromstring(made)
    assert root.findtext("caption") == "Sizes in mm"
    heads = root.findall("thead/tr/th")
    assert [head.attrib["scope"] for head in heads] == ["col"] * 3
    assert ["".join(head.itertext()) for head in heads] == ["What", "How much", "Drawn"]
    scopes = [head.attrib["scope"] for head in root.findall("tbody/tr/th")]
    assert scopes == ["rowgroup", "row", "row"]
    cells = root.findall("tbody/tr/td")
    assert [cell.attrib["data-label"] for cell in cells] == ["How much", "Drawn"] * 2
    assert [row.attrib.get("class") for row in root.findall("tbody/tr")] == [None, None, "strong"]
    assert {part.attrib["role"] for part in root.iter() if part.tag in ("tr", "td", "th", "thead", "tbody")} == {
        "row", "cell", "columnheader", "rowheader", "rowgroup",
    }  # fmt: skip


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 values in a row, got 1"):
        table("", [Column("a"), Column("b")], [Group([["a"]])])


def test_a_value_beside_its_drawing() -> None:
    assert beside("<", Html("<svg></svg>")) == '<div class="drawn"><div>&lt;</div><svg></svg></div>'
