"""Tokenizers of folders, and of models of the hub."""

from __future__ import annotations

__all__ = ["holds_tokenizer", "read_tokenizer"]

from pathlib import Path
from typing import Any

#: Of which a folder with a tokenizer has one: its words, or what it is called.
_FILES = ("*token*", "*vocab*", "*.model", "merges.txt", "*.bpe")


def holds_tokenizer(folder: Path) -> bool:
    """Return whether a folder has a file of a tokenizer."""
    return any(file for kind in _FILES for file in folder.glob(kind))


def read_tokenizer(name: str | Path, **options: Any) -> Any:
    """Return a model's tokenizer.

    Parameters
    ----------
    name : str or Path
        A folder, or a model of the hub.
    **options
        Of ``AutoTokenizer.from_pretrained``, which may raise anything.

    Raises
    ------
    OSError
        If the folder holds none. Some versions of transformers, such as 5.0, would make one without
        words up, by the model's architecture.
    """
    from transformers import AutoTokenizer

    folder = Path(name)
    if folder.is_dir() and not holds_tokenizer(folder):
        raise OSError(f"{str(name)!r} has no file of a tokenizer")
    return AutoTokenizer.from_pretrained(name, **options)
