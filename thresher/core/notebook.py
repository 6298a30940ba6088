"""Tables for notebooks: what objects show of themselves as HTML."""

from __future__ import annotations

__all__ = ["html_of", "html_of_parts", "html_table"]

import dataclasses
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def html_table(caption: str, rows: Iterable[Sequence[object]], heads: Sequence[object] = ()) -> str:
    """Return a table as HTML; the first cell of every row names it.

    Parameters
    ----------
    caption : str
        What the table is of.
    rows : iterable of sequence
        Cells, as text or as what becomes text.
    heads : sequence, optional
        Of the columns.
    """
    parts = ["<table>", f"<caption>{_text(caption)}</caption>"]
    if heads:
        cells = "".join(f'<th scope="col">{_text(head)}</th>' for head in heads)
        parts.append(f"<thead><tr>{cells}</tr></thead>")
    parts.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in rest)
        parts.append(f'<tr><th scope="row">{_text(first)}</th>{cells}</tr>')
    return "".join([*parts, "</tbody></table>"])


def html_of(table: Table) -> str:
    """Return a table of the terminal as HTML, what is said below it included.

    Parameters
    ----------
    table : rich.table.Table
        Its cells are texts.
    """
    columns = [list(column.cells) for column in table.columns]
    heads = [column.header for column in table.columns]
    shown = html_table(str(table.title or ""), zip(*columns, strict=True), heads)
    return shown + (f"<p>{_text(table.caption)}</p>" if table.caption else "")


def html_of_parts(composed: Any) -> str:
    """Return the fields of a dataclass as HTML.

    Parameters
    ----------
    composed : dataclass
        Made of parts that say what they are.
    """
    fields = dataclasses.fields(composed)
    rows = [(field.name, repr(getattr(composed, field.name))) for field in fields]
    return html_table(type(composed).__name__, rows)


def _text(value: Any) -> str:
    return escape(str(value))
