"""Digests that tell whether files are the same as before."""

from __future__ import annotations

__all__ = ["file_digest", "folder_digest"]

import hashlib
from pathlib import Path


def file_digest(file: Path) -> str:
    """Return the digest of a file's contents."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def folder_digest(folder: Path) -> str:
    """Return the digest of a model folder's configuration and weights."""
    digest = hashlib.blake2b((folder / "config.json").read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name} {file_digest(file)}".encode())
    return digest.hexdigest()
