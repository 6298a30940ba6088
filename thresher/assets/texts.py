"""English text for calibration and evaluation."""

from __future__ import annotations

__all__ = ["gutenberg", "state_of_the_union"]

from ..core.errors import OptionError, nearest
from .fetch import fetch
from .registry import ASSETS


def state_of_the_union(first_year: int, last_year: int) -> str:
    """Return the State of the Union addresses of some years, in order of time.

    Parameters
    ----------
    first_year, last_year : int
        Both included, within 1790 and 2021.

    Returns
    -------
    str
        The addresses, separated by empty lines.

    Raises
    ------
    OptionError
        If no address falls within the years.
    AssetError
        If the download fails.
    """
    folder = fetch(ASSETS["state-of-the-union"])
    files = [f for f in sorted(folder.iterdir()) if first_year <= int(f.name[:4]) <= last_year]
    if not files:
        raise OptionError(
            f"there is no State of the Union address from {first_year} to {last_year}; "
            "choose years from 1790 to 2021, the first not after the last"
        )
    return "\n\n".join(file.read_text(encoding="utf-8").strip() for file in files)


def gutenberg(title: str) -> str:
    """Return a book of Project Gutenberg.

    Parameters
    ----------
    title : str
        Short title, such as ``"emma"``, ``"moby_dick"``, ``"kjv"`` or ``"hamlet"``; 18 books
        are known, and a wrong one is answered with their names.

    Returns
    -------
    str
        The whole book.

    Raises
    ------
    OptionError
        If the book is unknown.
    AssetError
        If the download fails.
    """
    folder = fetch(ASSETS["gutenberg"])
    books = {file.stem.partition("-")[2]: file for file in sorted(folder.iterdir())}
    if title.lower() not in books:
        raise OptionError(f"there is no book {title!r}; {nearest(title, books)}")
    return books[title.lower()].read_text(encoding="utf-8")
