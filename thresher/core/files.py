"""Reading JSON without surprises, and writing files whole or not at all."""

from __future__ import annotations

__all__ = ["json_lines", "read_json", "replace", "sync", "write_error", "write_text"]

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import CheckpointError, DataError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Of a key that occurs twice in an object the last value counts, and the words NaN and Infinity
    are taken as numbers: Python's own reader, which other libraries use on the same files, does so.

    Parameters
    ----------
    path : Path
        A regular file in UTF-8.
    remedy : str
        What the user can do if it is damaged, for the message.

    Raises
    ------
    CheckpointError
        If there is no such file, or it is no JSON object.
    """
    if not path.is_file():
        raise CheckpointError(f"{str(path)!r} is not a file; {remedy}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as JSON: {error}; {remedy}") from error
    except RecursionError as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read as JSON: it is nested too deeply; {remedy}"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{str(path)!r} holds {type(found).__name__} {_short(found)}, expected an object with "
            f"keys; {remedy}"
        )
    return found


def json_lines(text: str, name: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a text that has one JSON object a line.

    Parameters
    ----------
    text : str
        Empty lines are passed over.
    name : str or Path
        The file that it is of, for the message.

    Returns
    -------
    list of (int, dict)
        With the numbers of their lines, from 1.

    Raises
    ------
    DataError
        Naming the first line that holds no JSON object, and what it holds.
    """
    found = []
    # Not splitlines, which takes characters for ends of lines that JSON has inside its strings.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"line {number} of {str(name)!r} is no JSON: {_short(line)} ({error}); every line "
                "must be one JSON object"
            ) from error
        if not isinstance(value, dict):
            raise DataError(
                f"line {number} of {str(name)!r} holds {type(value).__name__} {_short(value)}, "
                "expected an object with keys; every line must be one JSON object"
            )
        found.append((number, value))
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


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
        replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # of a folder that cannot be written at all
            temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def replace(temporary: Path, path: Path) -> None:
    """Put a finished file in its place, so that it is there whole even after a power cut."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        # A file of the user's that was copied with its rights; nothing to be done about it.
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: Path, error: Exception) -> CheckpointError:
    """Return the error to raise when `path` could not be written; it says what to do."""
    number, said = getattr(error, "errno", None), str(error)
    # Of a file that it wrote a part of, NumPy says how much, and not why.
    full = number in _FULL or "No space left" in said or " requested and " in said
    if full:
        hint = "the disk is full: free room and run the same command again"
    elif number == errno.EISDIR:
        hint = "it is a folder; name a file in it"
    elif number == errno.ENOENT and not path.parent.is_dir():
        hint = f"there is no folder {str(path.parent)!r}; make it first"
    elif number in (errno.ENOENT, errno.ENOTDIR):
        hint = f"nothing can be written into {str(path.parent)!r}; choose another place"
    elif number in _REFUSED:
        hint = f"{said}; choose a folder that you may write to, or change its rights"
    else:
        hint = said
    return CheckpointError(f"cannot write {str(path)!r}: {hint}")
