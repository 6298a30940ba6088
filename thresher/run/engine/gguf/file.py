"""A GGUF file taken apart: what it says of the model, and where its tensors are."""

from __future__ import annotations

__all__ = ["GGUFFile"]

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....core.errors import CheckpointError, NumericalError
from ....core.extras import naming_the_extra
from ..formats import FLOATS as DTYPES
from ..formats import Matrix, encode
from ..quantize import GROUP
from .blocks import BLOCKS, FLOATS, unpack

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
#: Types of values by their number: single ones as struct names them, and the two others.
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
#: Arrays longer than this are vocabularies, which nothing here asks for.
_LONGEST = 1024


@dataclass(frozen=True)
class _Found:
    shape: tuple[int, ...]  # rows first
    kind: int
    offset: int


class GGUFFile:
    """A GGUF file, memory-mapped.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    metadata : dict of str to Any
        What the file says of its model; arrays of more than 1024 entries are left out.
    shapes : dict of str to tuple of int
        Of its tensors, by their names.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is no GGUF file of version 2 or 3, or ends early.

    References
    ----------
    GGUF, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._bytes = np.memmap(self.path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}") from error
        cursor = _Cursor(self.path, self._bytes)
        magic = cursor.take(4)
        if magic != _MAGIC:
            raise CheckpointError(f"{self.path} is no GGUF file: it begins with {magic!r}")
        version = cursor.scalar("I")
        if version not in _VERSIONS:
            raise CheckpointError(
                f"{self.path} is of GGUF version {version}; versions 2 and 3 of little-endian "
                "machines can be read"
            )
        tensors, entries = cursor.scalar("Q"), cursor.scalar("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(entries):
            name = cursor.string()
            self.metadata[name] = cursor.value(cursor.scalar("I"), name)
        self._found: dict[str, _Found] = {}
        for _ in range(tensors):
            name, found = cursor.tensor()
            if name in self._found:
                raise CheckpointError(f"{self.path} holds two tensors called {name!r}")
            self._found[name] = found
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise CheckpointError(f"{self.path}: general.alignment is {alignment!r}")
        self._start = -(-cursor.place // alignment) * alignment
        self.shapes = {name: found.shape for name, found in self._found.items()}

    def matrix(self, name: str) -> Matrix:
        """Return a matrix as the file stores it, without rounding where the engine has its format.

        Others are rounded to eight bits, as their few bits are the file's own.

        Raises
        ------
        CheckpointError
            If there is no such matrix, or it is cut off, or of an unknown type.
        NumericalError
            If it holds numbers that are not finite.
        """
        found = self._one(name, 2)
        rows, columns = found.shape
        called = f"{name} of {self.path}"
        if found.kind in FLOATS:
            return encode(called, self._floats(name, found), FLOATS[found.kind])
        if found.kind not in BLOCKS:
            return encode(called, self._foreign(name, found), "int8")
        kind = BLOCKS[found.kind]
        raw = self._raw(name, found, rows * columns // GROUP * kind.size)
        matrix = unpack(kind, raw.view(rows, -1, kind.size))
        numbers = (matrix.scales, matrix.minimums)
        if not all(bool(x.isfinite().all()) for x in numbers if x is not None):
            raise NumericalError(f"{called} holds scales that are not finite")
        return matrix

    def vector(self, name: str) -> Tensor:
        """Return a vector in float32; raises as :meth:`matrix` does."""
        found = self._one(name, 1)
        values = self._floats if found.kind in FLOATS else self._foreign
        vector = values(name, found).float()
        if not bool(vector.isfinite().all()):
            raise NumericalError(f"{name} of {self.path} holds numbers that are not finite")
        return vector

    def _one(self, name: str, dimensions: int) -> _Found:
        if name not in self._found:
            raise CheckpointError(f"{self.path} holds no tensor {name!r}")
        found = self._found[name]
        if len(found.shape) != dimensions:
            raise CheckpointError(f"{self.path}: tensor {name!r} has the shape {found.shape}")
        if found.kind in BLOCKS and found.shape[-1] % GROUP:
            raise CheckpointError(
                f"{self.path}: rows of {name!r} are {found.shape[-1]} long, not whole blocks of 32"
            )
        return found

    def _raw(self, name: str, found: _Found, size: int) -> Tensor:
        first = self._start + found.offset
        if first + size > len(self._bytes):
            raise CheckpointError(
                f"{self.path} ends before its tensor {name!r}: it is {len(self._bytes)} bytes long "
                f"and the tensor ends at {first + size}; fetch the file again"
            )
        return torch.from_numpy(np.array(self._bytes[first : first + size]))

    def _floats(self, name: str, found: _Found) -> Tensor:
        dtype = DTYPES[FLOATS[found.kind]]
        raw = self._raw(name, found, math.prod(found.shape) * dtype.itemsize)
        return raw.view(dtype).view(found.shape)

    def _foreign(self, name: str, found: _Found) -> Tensor:
        """Return a tensor of another type in float32, by the package `gguf`."""
        with naming_the_extra():
            import gguf
        try:
            kind = gguf.GGMLQuantizationType(found.kind)
            block, size = gguf.GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} is of the type {found.kind}, which is not known"
            ) from error
        if found.shape[-1] % block:
            raise CheckpointError(
                f"{self.path}: rows of {name!r} are {found.shape[-1]} long, not whole blocks of "
                f"{block}"
            )
        raw = self._raw(name, found, math.prod(found.shape) // block * size).numpy()
        try:
            values = gguf.dequantize(raw.reshape(*found.shape[:-1], -1), kind)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} is of the type {kind.name}, which cannot be read"
            ) from error
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).view(found.shape)


class _Cursor:
    """Reads one value after another, and says where a file that ends early does."""

    def __init__(self, path: Path, held: Any) -> None:
        self.path, self.held, self.place = path, held, 0

    def take(self, size: int) -> bytes:
        if size > len(self.held) - self.place:
            raise CheckpointError(
                f"{self.path} ends at byte {len(self.held)}, within a value that begins at "
                f"{self.place}; fetch the file again"
            )
        taken = self.held[self.place : self.place + size].tobytes()
        self.place += size
        return bytes(taken)

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8", "replace")

    def value(self, kind: int, name: str) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise CheckpointError(f"{self.path}: {name!r} has the unknown type {kind}")
        entries, count = self.scalar("I"), self.scalar("Q")
        if entries not in _SCALARS and entries != _STRING:
            raise CheckpointError(
                f"{self.path}: {name!r} is an array of the type {entries}, which cannot be read"
            )
        if entries in _SCALARS:
            code = _SCALARS[entries]
            raw = self.take(count * struct.calcsize("<" + code))
            return list(struct.unpack(f"<{count}{code}", raw)) if count <= _LONGEST else None
        kept = [self.string() for _ in range(min(count, _LONGEST))]
        for _ in range(count - len(kept)):
            self.take(self.scalar("Q"))
        return kept if count <= _LONGEST else None

    def tensor(self) -> tuple[str, _Found]:
        name, dimensions = self.string(), self.scalar("I")
        if not 1 <= dimensions <= 4:
            raise CheckpointError(f"{self.path}: tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self.scalar("Q") for _ in range(dimensions))
        return name, _Found(shape[::-1], self.scalar("I"), self.scalar("Q"))
