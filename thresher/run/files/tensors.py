"""One safetensors file: what its header says, and tensors read into memory of the process's own."""

from __future__ import annotations

__all__ = ["TensorFile", "spelled"]

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...core.errors import CheckpointError
from ..layouts.buffers import Outline

#: Types by the name that safetensors has for them.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
if hasattr(torch, "float8_e8m0fnu"):
    _DTYPES["F8_E8M0"] = torch.float8_e8m0fnu

#: How safetensors spells a type.
spelled = {dtype: name for name, dtype in _DTYPES.items()}


class TensorFile:
    """A safetensors file that is read, never mapped.

    A mapped tensor is the file: whoever writes to it afterwards changes indices that were checked,
    and where it was cut short a product ends the process. So tensors are copies. A model takes no
    more memory for it once it has run, about a millisecond longer to load for each megabyte, and
    shares none with other processes that have loaded the same file.

    Parameters
    ----------
    path : Path
        A regular file; a pipe, which would be waited for, is refused.

    Raises
    ------
    CheckpointError
        If it is missing or no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise CheckpointError(
                f"{str(path)!r} is missing or no regular file; fetch or write it again"
            )
        try:
            self._file = _open(path)
            self.names: list[str] = list(self._file.keys())
            self.metadata: dict[str, str] = self._file.metadata() or {}
        except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
            raise CheckpointError(
                f"{str(path)!r} cannot be read as safetensors ({error}); it is missing, truncated "
                "or corrupted: fetch or write it again"
            ) from error

    def outline(self, name: str) -> Outline:
        """Return shape and type of a tensor, which the header says.

        Raises
        ------
        CheckpointError
            If torch has no such type.
        """
        part = self._file.get_slice(name)
        kind = part.get_dtype()
        if kind not in _DTYPES:
            raise CheckpointError(
                f"tensor {name!r} in {str(self.path)!r} is of type {kind}, which is not read here; "
                "use the model's unquantised folder"
            )
        return Outline(tuple(part.get_shape()), _DTYPES[kind])

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor.

        Raises
        ------
        CheckpointError
            If the file has become shorter, or the tensor cannot be held.
        """
        self.outline(name)
        try:
            tensor: torch.Tensor = self._file.get_tensor(name)
            return tensor if _READS else tensor.clone()
        except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
            raise CheckpointError(
                f"tensor {name!r} in {str(self.path)!r} cannot be read ({error}); the file was "
                "changed or corrupted: fetch or write it again"
            ) from error


def _can_read() -> bool:
    """Return whether this safetensors can read files; early versions only map them."""
    from inspect import signature

    try:
        return "backend" in signature(safe_open).parameters
    except (TypeError, ValueError):
        return "backend" in (safe_open.__doc__ or "")


_READS = _can_read()


def _open(path: Path) -> Any:
    options = {"backend": "pread"} if _READS else {}
    return safe_open(path, framework="pt", **options)
