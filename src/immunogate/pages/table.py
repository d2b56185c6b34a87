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
        head: what stands below the title, for example a scale.
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


def table(caption: Part, columns: Sequence[Column], groups: Sequence[Group]) -> Html:
    """A table.

    Args:
        caption: what it shows, units included.
        columns: at least one.
        groups: of rows.

    Raises:
        ValueError: a row has another number of values than there are columns.
    """
    heads = (element("th", column.title, column.head, scope="col", role="columnheader",
                     class_="number" if column.number else None) for column in columns)  # fmt: skip
    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads, role="row"), role="rowgroup"),
        *(_group(group, columns) for group in groups),
        role="table",
    )


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
