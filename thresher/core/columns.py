"""Tables on terminals of any width: one that is too wide is parted between its columns."""

from __future__ import annotations

__all__ = ["Fitted", "parts_of"]

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Column, Table


class Fitted:
    """A table that is parted where the terminal is too narrow for all of its columns.

    Parameters
    ----------
    table : rich.table.Table
        Its cells are texts.
    names : int, default 1
        How many of its first columns name the rows: every part has them.
    """

    def __init__(self, table: Table, names: int = 1) -> None:
        self.table, self._names = table, names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the table, or its parts; rich calls this."""
        widths = [_width(column) for column in self.table.columns]
        parts = parts_of(widths, options.max_width, self._names)
        for index, part in enumerate(parts):
            title = self.table.title if index == 0 else None
            caption = self.table.caption if index == len(parts) - 1 else None
            yield _part(self.table, part, title, caption)


def parts_of(widths: Sequence[int], most: int, names: int = 1) -> list[list[int]]:
    """Return which columns each part of a table has: those that name the rows, and what fits.

    Parameters
    ----------
    widths : sequence of int
        Characters that each column needs.
    most : int
        Characters that a line has room for.
    names : int, default 1
        How many of the first columns name the rows.
    """
    named = list(range(names))
    parts = [named]
    for column in range(names, len(widths)):
        wider = [*parts[-1], column]
        # Beside each cell there are two blanks and a line, and a line ends the row.
        if parts[-1] != named and sum(widths[i] + 3 for i in wider) + 1 > most:
            parts.append([*named, column])
        else:
            parts[-1] = wider
    return parts


def _width(column: Column) -> int:
    from rich.text import Text

    cells = (column.header, *column.cells)
    texts = (cell if isinstance(cell, Text) else Text.from_markup(str(cell)) for cell in cells)
    return max(text.cell_len for text in texts)


def _part(whole: Table, columns: Sequence[int], title: Any, caption: Any) -> Table:
    from rich.table import Table

    part = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    chosen = [whole.columns[index] for index in columns]
    for column in chosen:
        part.add_column(column.header, justify=column.justify, overflow="fold")
    for row in zip(*(list(column.cells) for column in chosen), strict=True):
        part.add_row(*row)
    return part
