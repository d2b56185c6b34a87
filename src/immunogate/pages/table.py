"""Tables with headings for readers of the screen, which become cards on a phone.

The roles are written out because a browser forgets that a table is one when the sheet lays its rows out otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from immunogate.pages.markup import Html, Part, element


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: its heading, and the label before each value on a phone.
        number: whether its values stand at the right.
        head: what stands beside the title, for example the scale of its `beside`.
    """

    title: str
    number: bool = False
    head: Html | None = None


@dataclass(frozen=True)
class Group:
    """Rows below a heading of their own.

    Attributes:
        rows: one value for each column; the first one names the row.
        title: None for rows that need no heading.
        strong: indices of rows that are set in bold.
    """

    rows: Sequence[Sequence[Part]]
    title: Part = None
    strong: frozenset[int] = frozenset()


def beside(words: Part, drawing: Html) -> Html:
    """A value of a table in words, and drawn at their right where there is room, else below."""
    return element("div", element("div", words), drawing, class_="drawn")


def table(caption: Part, columns: Sequence[Column], groups: Sequence[Group]) -> Html:
    """A table.

    Args:
        caption: what it shows, units included.
        columns: at least one.
        groups: of rows.

    Raises:
        ValueError: a row has another number of values than there are columns.
    """
    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *map(_head, columns), role="row"), role="rowgroup"),
        *(_group(group, columns) for group in groups),
        role="table",
    )


def _head(column: Column) -> Html:
    # A scale stands where the drawings of the column stand, to the right of their numbers.
    title = column.title if column.head is None else beside(column.title, column.head)
    return element("th", title, scope="col", role="columnheader", class_="number" if column.number else None)


def _group(group: Group, columns: Sequence[Column]) -> Html:
    rows = [_row(row, columns, strong=index in group.strong) for index, row in enumerate(group.rows)]
    if group.title is not None:
        head = element("th", group.title, scope="rowgroup", colspan=len(columns), role="rowheader")
        rows.insert(0, element("tr", head, role="row"))
    return element("tbody", *rows, role="rowgroup")


def _row(values: Sequence[Part], columns: Sequence[Column], *, strong: bool) -> Html:
    if len(values) != len(columns):
        raise ValueError(f"expected {len(columns)} values in a row, got {len(values)}")
    cells = [element("th", values[0], scope="row", role="rowheader")]
    for value, column in zip(values[1:], columns[1:], strict=True):
        # The value is one element: on a phone it stands in a grid beside its label.
        held = element("div", value)
        cells.append(
            element("td", held, role="cell", class_="number" if column.number else None, data_label=column.title)
        )
    return element("tr", *cells, role="row", class_="strong" if strong else None)
