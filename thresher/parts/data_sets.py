"""Data sets of the package ``datasets``: in a folder of one's own, or by their names on the hub."""

from __future__ import annotations

__all__ = ["named_rows", "saved_rows"]

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..core.extras import naming_the_extra
from ..core.paths import data_set_of


def saved_rows(folder: Path) -> Iterable[Any]:
    """Return the rows of a folder that ``save_to_disk`` wrote.

    Raises
    ------
    DataError
        If it cannot be read, or holds several splits.
    MissingPackageError
        If ``datasets`` is not installed.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(each.name for each in folder.iterdir() if each.is_dir())
        raise DataError(
            f"{str(folder)!r} holds a data set's splits ({', '.join(splits)}); name the folder of "
            f"one of them, such as {str(folder / splits[0]) if splits else 'train'!r}"
        )
    with naming_the_extra():
        from datasets import load_from_disk
    try:
        return load_from_disk(str(folder))  # type: ignore[no-any-return]
    except Exception as error:  # whatever Arrow and JSON make of damaged files
        raise DataError(f"the data set {str(folder)!r} cannot be read: {error}") from error


def named_rows(text: str) -> Iterator[Any]:
    """Yield the rows of a data set that is named, fetching no more of it than is asked for.

    Parameters
    ----------
    text : str
        ``"datasets:NAME:SPLIT"``, or ``"datasets:NAME:CONFIGURATION:SPLIT"``; the name is one on
        the hub, or a folder that ``load_dataset`` takes.

    Raises
    ------
    DataError
        If it is spelled otherwise, or cannot be read; the message is that of ``datasets``.
    MissingPackageError
        If ``datasets`` is not installed.
    """
    *named, split = data_set_of(text)
    with naming_the_extra():
        from datasets import load_dataset
    try:
        yield from load_dataset(*named, split=split, streaming=True)
    except Exception as error:  # of the network, of what is not there, of files of any kind
        said = str(error).strip().partition("\n")[0]
        raise DataError(
            f"the data set {named[0]!r} cannot be read ({said}); check its name, its split and the "
            "network, or name a file"
        ) from error
