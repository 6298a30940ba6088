"""Writing a safetensors file tensor by tensor, with no more than one in memory."""

from __future__ import annotations

__all__ = ["stream_tensors"]

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ...core.errors import CheckpointError
from ...core.files import replace, write_error
from .tensors import spelled

#: Data begins at a multiple of it, as the format's own library has it.
_ALIGNMENT = 8


def stream_tensors(
    path: Path, outlines: Mapping[str, torch.Tensor], read: Callable[[str], torch.Tensor]
) -> None:
    """Write a safetensors file whole or not at all, asking for one tensor at a time.

    The library of the format takes all tensors of a file at once, which for a file of 5 GB is more
    than some machines have that write a large model block by block.

    Parameters
    ----------
    path : Path
        File to write.
    outlines : mapping of str to Tensor
        Shapes and types by name; data is not looked at.
    read : callable
        Returns the tensor of a name.

    Raises
    ------
    CheckpointError
        If it cannot be written, for example on a full disk, or a tensor is of another shape or type
        than its outline; what was there before stays.

    References
    ----------
    The safetensors format: eight bytes with the length of a header in JSON, the header, and the
    tensors one after another, those of wider types first, so that each is aligned.
    """
    order = sorted(outlines, key=lambda name: (-outlines[name].element_size(), name))
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(_header({name: outlines[name] for name in order}))
            for name in order:
                tensor = read(name).contiguous()
                _check_outline(name, tensor, outlines[name])
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _header(outlines: Mapping[str, torch.Tensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, outline in outlines.items():
        end = begin + outline.numel() * outline.element_size()
        entries[name] = {
            "dtype": spelled[outline.dtype],
            "shape": list(outline.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _check_outline(name: str, tensor: torch.Tensor, outline: torch.Tensor) -> None:
    # Anything else would shift what follows, in a file that can be read all the same.
    if (tensor.shape, tensor.dtype) != (outline.shape, outline.dtype):
        raise CheckpointError(
            f"{name!r} was {outline.dtype} {tuple(outline.shape)} and is now {tensor.dtype} "
            f"{tuple(tensor.shape)}; something else writes to its folder, run the command again"
        )
