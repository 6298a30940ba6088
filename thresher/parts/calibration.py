"""Text for calibration and evaluation, cut into windows of tokens."""

from __future__ import annotations

__all__ = ["embedded_text", "read_text", "split_windows", "token_windows"]

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..core.errors import DataError


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
        If the file is missing, empty, or not UTF-8 (naming the first bad byte).
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"text file {str(path)!r} does not exist")
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8")
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

    Parameters
    ----------
    tokenizer : transformers tokenizer
        Called once on the joined text, without special tokens.
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
    # Characters per token never exceed this by much, so the rest would not be used.
    if count is not None:
        text = text[: 64 * length * count]
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    available = len(ids) // length
    if available == 0:
        raise DataError(
            f"the text has {len(ids)} tokens, fewer than one window of {length}; "
            "pass more text or shorten the windows"
        )
    windows = available if count is None else min(count, available)
    return torch.tensor(ids[: windows * length], dtype=torch.int64).reshape(windows, length)


def split_windows(
    windows: torch.Tensor, calibration: int, held_out: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Share windows out: the first ones to calibrate on, those after them to evaluate on.

    Parameters
    ----------
    windows : Tensor of shape (windows, length), int64
        In the order of the text.
    calibration, held_out : int
        Most windows of either kind. Where there are fewer than both together, at most a quarter
        is held out, and at least one.

    Returns
    -------
    calibration : Tensor of shape (windows, length), int64
        At least one window.
    held_out : Tensor of shape (windows, length), int64, or None
        None where there is only one window.
    """
    windows = windows[: calibration + held_out]
    spare = min(held_out, max(0, len(windows) - 1), max(1, len(windows) // 4))
    used = min(calibration, len(windows) - spare)
    return windows[:used], windows[used:] if spare else None
