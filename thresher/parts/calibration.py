"""Text for calibration and evaluation, cut into windows of tokens."""

from __future__ import annotations

__all__ = [
    "EMBEDDED",
    "beginning",
    "embedded_text",
    "file_windows",
    "read_text",
    "row_windows",
    "split_windows",
    "token_windows",
    "warn_of_fewer",
]

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..core.errors import DataError
from ..core.files import json_lines
from ..core.paths import DATA_SET, check_text, missing
from .data_sets import named_rows, saved_rows
from .rows import joined_text

#: What records call the text that is used where the user names none.
EMBEDDED = "Python's documentation"
_JSON_LINES = (".jsonl", ".ndjson", ".json")
#: Characters per token never exceed this by much.
_CHARACTERS = 64


def embedded_text() -> str:
    """Return Python's own documentation, the English text that every Python carries."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics))


def read_text(path: str | Path) -> str:
    """Read a UTF-8 text file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    str

    Raises
    ------
    DataError
        If the file is missing, empty, binary, or not UTF-8 (naming the first bad byte).
    """
    file = Path(path)
    if not file.is_file():
        raise missing("text file", file, DataError)
    raw = file.read_bytes()
    if b"\0" in raw:
        raise DataError(
            f"text file {str(path)!r} holds bytes of zero, as binary files and UTF-16 do; name a "
            "file of text, in UTF-8"
        )
    try:
        # Not with a byte order mark, which would be a character of the text.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"text file {str(path)!r} is not UTF-8: byte {raw[error.start]:#04x} at position "
            f"{error.start}; convert it, for example with iconv -t UTF-8"
        ) from None
    if not text.strip():
        raise DataError(f"text file {str(path)!r} is empty")
    return text


def token_windows(
    tokenizer: Any, texts: str | Iterable[str], *, length: int, count: int | None = None
) -> torch.Tensor:
    """Tokenise texts, join them and cut consecutive windows.

    Each begins as the tokenizer begins a text: without a first token such as ``<bos>``, models
    that were trained with one (Gemma) do not predict.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        Called once on the joined text, and to see what it puts before a text.
    texts : str or iterable of str
        Joined with blank lines.
    length : int
        Tokens per window.
    count : int, optional
        Most windows to cut; default all that fit.

    Returns
    -------
    Tensor of shape (windows, length), int64

    Raises
    ------
    DataError
        If the text is empty or shorter than one window.
    """
    text = texts if isinstance(texts, str) else "\n\n".join(texts)
    if not text.strip():
        raise DataError("the text is empty; pass at least one window of text")
    # The rest would not be used.
    if count is not None:
        text = text[: _CHARACTERS * length * count]
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    first = beginning(tokenizer)
    if first and ids[: len(first)] == first:  # a chat's template has put it there
        ids = ids[len(first) :]
    # Windows of a token or two are all text.
    first = first if len(first) < length - 1 else []
    step = length - len(first)
    available = len(ids) // step
    if available == 0:
        raise DataError(
            f"the text has {len(ids)} tokens, fewer than one window of {length}; "
            "pass more text or shorten the windows"
        )
    windows = available if count is None else min(count, available)
    cut = torch.tensor(ids[: windows * step], dtype=torch.int64).reshape(windows, step)
    begin = torch.tensor(first, dtype=torch.int64).expand(windows, len(first))
    return torch.cat([begin, cut], dim=1)


def beginning(tokenizer: Any) -> list[int]:
    """Return the tokens that a tokenizer puts before a text."""
    if not getattr(tokenizer, "all_special_ids", None):
        return []
    alone, whole = (
        list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (False, True)
    )
    places = range(len(whole) - len(alone) + 1)
    found = next((n for n in places if whole[n : n + len(alone)] == alone), 0)
    return whole[:found]


def row_windows(
    rows: Iterable[tuple[str, Any]], tokenizer: Any, *, length: int, count: int | None = None
) -> torch.Tensor:
    """Cut windows from rows that hold texts or chats, reading no more rows than are needed.

    Parameters
    ----------
    rows : iterable of (str, str or mapping)
        See :func:`~thresher.parts.rows.joined_text`.
    tokenizer, length, count
        See :func:`token_windows`.

    Raises
    ------
    DataError
        If a row cannot be used, or there is less than one window.
    """
    most = math.inf if count is None else _CHARACTERS * length * count
    text = joined_text(rows, tokenizer, most)
    return token_windows(tokenizer, text, length=length, count=count)


def file_windows(
    file: str | Path | None, tokenizer: Any, *, length: int, count: int | None = None
) -> torch.Tensor:
    """Cut windows from a file of the user's, whatever kind it is of.

    Parameters
    ----------
    file : str or Path, optional
        A UTF-8 text file; one of JSON lines (named ``.jsonl``, ``.ndjson`` or ``.json``), whose
        objects have a ``text``, or a chat as ``messages`` or ``conversations``; a folder that
        ``save_to_disk`` of the package ``datasets`` wrote, with such rows; or the name of such a
        data set, see :func:`~thresher.parts.data_sets.named_rows`. By default Python's
        documentation.
    tokenizer, length, count
        See :func:`token_windows`.

    Returns
    -------
    Tensor of shape (windows, length), int64

    Raises
    ------
    DataError
        If it cannot be read, naming the line or row; or holds less than one window.
    MissingPackageError
        If it is a data set's folder and ``datasets`` is not installed.
    """
    if file is None:
        return token_windows(tokenizer, embedded_text(), length=length, count=count)
    path = Path(file)
    check_text(path)
    named = str(file).startswith(DATA_SET)
    if named or path.is_dir():
        found = enumerate(named_rows(str(file)) if named else saved_rows(path))
        rows = ((f"row {index} of {str(path)!r}", row) for index, row in found)
        return row_windows(rows, tokenizer, length=length, count=count)
    text = read_text(path)
    if path.suffix.lower() in _JSON_LINES:
        lines = ((f"line {n} of {str(path)!r}", row) for n, row in json_lines(text, path))
        return row_windows(lines, tokenizer, length=length, count=count)
    return token_windows(tokenizer, text, length=length, count=count)


def split_windows(
    windows: torch.Tensor, calibration: int, held_out: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Share windows out: the first ones to calibrate on, those after them to evaluate on.

    Parameters
    ----------
    windows : Tensor of shape (windows, length), int64
        In the order of the text.
    calibration, held_out : int
        Most windows of either kind. Where there are fewer than both together, a quarter of them
        is held out all the same, and at least one.

    Returns
    -------
    calibration : Tensor of shape (windows, length), int64
        At least one window.
    held_out : Tensor of shape (windows, length), int64
        None where there is only one window.
    """
    windows = windows[: calibration + held_out]
    spare = min(held_out, max(0, len(windows) - 1), max(1, len(windows) // 4))
    used = min(calibration, len(windows) - spare)
    return windows[:used], windows[used:]


def warn_of_fewer(found: int, asked: int, length: int, what: str) -> None:
    """Warn where data gives fewer windows than were asked for.

    Parameters
    ----------
    found, asked : int
        Windows.
    length : int
        Tokens of each.
    what : str
        The data's name.
    """
    if found < asked:
        warnings.warn(
            f"{what} gives {found} window{'s' * (found != 1)} of {length} tokens, fewer than the "
            f"{asked} asked for; pass more text, or ask for fewer or shorter windows",
            stacklevel=4,
        )
