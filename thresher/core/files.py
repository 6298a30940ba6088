"""Writing files whole or not at all."""

from __future__ import annotations

__all__ = ["write_error", "write_text"]

import errno
import os
from pathlib import Path

from .errors import CheckpointError


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Parameters
    ----------
    path : Path
        Replaced in one step once the text is on disk beside it.
    text : str
        Written as UTF-8.

    Raises
    ------
    CheckpointError
        If it cannot be written, for example on a full disk; what was there before stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def write_error(path: Path, error: Exception) -> CheckpointError:
    """Return the error to raise when `path` could not be written."""
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    hint = "the disk is full: free room and run the same command again" if full else str(error)
    return CheckpointError(f"cannot write {str(path)!r}: {hint}")
