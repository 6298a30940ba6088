"""Writing sparse model folders shard by shard."""

from __future__ import annotations

__all__ = [
    "LOADER_HINT",
    "CheckpointWriter",
    "config_entries",
    "save_tensors",
    "shard_file",
    "write_index",
]

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...core.errors import CheckpointError
from ...core.files import replace, write_error, write_text
from ..layouts import formats
from .checkpoint import INDEX_FILE, SHARDS, Checkpoint, Shards, plain_config
from .companions import RECORD_FILE, copy_companions

#: Stands where transformers looks for the name of the weights' file. Without Thresher it finds no
#: file called so and stops with this sentence in its message, instead of random weights.
LOADER_HINT = (
    "this folder is sparse: `import thresher` before from_pretrained, or write an ordinary "
    "folder with `thresher export`"
)


def config_entries(quantization: dict[str, Any]) -> dict[str, Any]:
    """Return what a sparse folder's config.json has besides the model's own configuration.

    Parameters
    ----------
    quantization : dict
        ``group``, ``packed`` and ``layouts`` as far as there are any.
    """
    version = {"quant_method": "thresher", "format_version": formats.FORMAT_VERSION}
    return {
        "transformers_weights": LOADER_HINT,
        "quantization_config": {**quantization, **version},
    }


def save_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all.

    Raises
    ------
    CheckpointError
        If it cannot be written, for example on a full disk; what was there before stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, temporary, metadata={"format": "pt", **(metadata or {})})
        temporary.chmod(0o666 & ~_umask())
        replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def write_index(folder: Path, shards: Iterable[Path], name: str = INDEX_FILE) -> None:
    """Write the index of a folder's shards, which says where each tensor is.

    Raises
    ------
    CheckpointError
        If two shards hold the same tensor.
    """
    weight_map: dict[str, str] = {}
    total = 0
    for path in sorted(shards):
        total += path.stat().st_size
        with safe_open(path, framework="pt") as handle:
            held = list(handle.keys())
        if twice := [tensor for tensor in held if tensor in weight_map]:
            raise CheckpointError(
                f"{twice[0]!r} was written to {weight_map[twice[0]]} and to {path.name}"
            )
        weight_map |= dict.fromkeys(held, path.name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_text(folder / name, json.dumps(index, indent=2) + "\n")


def shard_file(folder: Path, number: int) -> Path:
    """Return the file of a sparse folder's shard."""
    return folder / SHARDS.replace("*", f"{number:05d}")


def _umask() -> int:
    # The library writes files that only their owner can read; a model is for sharing.
    current = os.umask(0)
    os.umask(current)
    return current


class CheckpointWriter:
    """Writes a model folder shard by shard, packed, and completes it at the end.

    How a weight is packed is read off its support: as positions where every group of a row keeps
    equally many, as a bitmask otherwise.

    Parameters
    ----------
    folder : Path
        Where the shards are collected; those of an unfinished run may lie there.
    source : Path
        The dense model's folder, whose configuration and other files are copied.
    dtype : torch.dtype, optional
        What the weights were converted to, for the configuration.
    """

    def __init__(self, folder: Path, source: Path, dtype: torch.dtype | None = None) -> None:
        self.folder = folder
        self.source = source
        self.dtype = dtype
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        self._group = Shards.in_folder(folder).stored.group

    def add(
        self, shard: int, tensors: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]
    ) -> None:
        """Write one shard, packing the tensors that have a mask.

        Parameters
        ----------
        shard : int
            Its number; writing the same number again replaces it.
        tensors : dict of str to Tensor
            Dense weights by stored name.
        masks : dict of str to Tensor
            Supports of those to be packed, of their shapes.
        """
        packed: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            mask = masks.get(name)
            if mask is None or bool(mask.all()):
                packed[name] = tensor
                continue
            if self._group is None:
                self._group = formats.group_of(mask)
            parts = formats.pack(tensor, mask, self._group)
            packed |= {name + suffix: part for suffix, part in parts.items()}
        group = {"group": str(self._group)} if self._group else {}
        save_tensors(packed, self.shard(shard), group)

    def shard(self, number: int) -> Path:
        """Return the file that a shard is written to."""
        return shard_file(self.folder, number)

    def finish(self, record: str | None) -> None:
        """Write index, configuration and record, and copy all other files.

        Parameters
        ----------
        record : str or None
            JSON text on how the model was made, kept as ``thresher.json``.

        Raises
        ------
        CheckpointError
            If a tensor of the source was not written, or twice.
        """
        self._check_complete()
        write_index(self.folder, self.folder.glob(SHARDS))
        copy_companions(self.source, self.folder)
        config = plain_config(self.source)
        group = {"group": self._group} if self._group else {}
        config |= config_entries(group)
        if self.dtype is not None:
            config["dtype"] = str(self.dtype).removeprefix("torch.")
            config.pop("torch_dtype", None)
        write_text(self.folder / "config.json", json.dumps(config, indent=2) + "\n")
        if record is not None:
            write_text(self.folder / RECORD_FILE, record)

    def _check_complete(self) -> None:
        """Raise unless every tensor of the source was written, once, and no other."""
        wanted, written = set(Checkpoint(self.source)), Counter(Shards.in_folder(self.folder).names)
        faults = {
            "was not written": sorted(wanted - written.keys()),
            "was written, and the source does not have it": sorted(written.keys() - wanted),
            "was written more than once": sorted(n for n, times in written.items() if times > 1),
        }
        for fault, names in faults.items():
            if names:
                raise CheckpointError(
                    f"{names[0]!r} (and {len(names) - 1} more) of {str(self.source)!r} {fault}; "
                    f"{str(self.folder)!r} is not finished"
                )
