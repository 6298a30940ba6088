"""Model folders: reading safetensors one tensor at a time, writing sparse ones atomically."""

from __future__ import annotations

__all__ = ["Checkpoint", "CheckpointWriter", "resolve", "save_tensors"]

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...core.errors import CheckpointError
from ...core.files import write_error, write_text
from ...parts.patterns import NM
from ..layouts import formats
from .stored import StoredWeights

RECORD_FILE = "thresher.json"
_INDEX_FILE = "model.safetensors.index.json"
_SINGLE_FILE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
#: Files that make a model folder complete besides its weights.
_COMPANIONS = ("*.json", "*.txt", "*.jinja", "*.model", "*.py", "*.md", "LICENSE*")


def resolve(model: str | Path) -> Path:
    """Return the local folder of a model, downloading a hub name's safetensors if needed.

    Parameters
    ----------
    model : str or Path
        A folder, or a name such as ``"HuggingFaceTB/SmolLM2-135M"``.

    Returns
    -------
    Path

    Raises
    ------
    CheckpointError
        If it is neither.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or str(model).count("/") > 1 or str(model).startswith("."):
        raise CheckpointError(f"model folder {str(model)!r} does not exist")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), allow_patterns=["*.safetensors", *_COMPANIONS]))
    except Exception as error:
        raise CheckpointError(
            f"{str(model)!r} is neither a folder here nor a model that the hub gave: {error}"
        ) from error


class Checkpoint:
    """A folder of safetensors, dense or packed, read one tensor at a time.

    Parameters
    ----------
    folder : str or Path
        A Hugging Face model folder.

    Raises
    ------
    CheckpointError
        If the folder has no safetensors (pickles are refused), or a file is truncated.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files = self._locate()
        self._stored = self._read_stored()
        self._parts = self._find_packed()
        for file in sorted(set(self._files.values())):
            with self._open(file) as handle:
                held = set(handle.keys())
            missing = [n for n, f in self._files.items() if f == file and n not in held]
            if missing:
                raise CheckpointError(
                    f"{file.name} lacks tensor {missing[0]!r}, which the index of "
                    f"{str(self.folder)!r} promises; fetch the model again"
                )

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of dense weights, packed ones under their dense name."""
        inside = {part for parts in self._parts.values() for part in parts}
        yield from (name for name in self._files if name not in inside)
        yield from sorted(self._parts)

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._parts

    def is_packed(self, name: str) -> bool:
        """Return whether a weight is stored packed."""
        return name in self._parts

    def tensor(self, name: str) -> torch.Tensor:
        """Return a weight, unpacked if it is stored packed."""
        return self.tensor_and_mask(name)[0]

    def tensor_and_mask(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return a weight and, when it is stored packed, its support."""
        if not self.is_packed(name):
            return self._raw(name), None
        return self._stored.dense(name, self.packed(name))

    def packed(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a packed weight by suffix."""
        return {part.removeprefix(name): self._raw(part) for part in self._parts[name]}

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a weight takes on disk."""
        if self.is_packed(name):
            return formats.packed_bytes(self.packed(name))
        return formats.packed_bytes({"": self._raw(name)})

    def dense_bytes(self, name: str) -> int:
        """Return the bytes that a weight would take as a dense tensor of its dtype."""
        if not self.is_packed(name):
            return self.stored_bytes(name)
        parts = self.packed(name)
        (size, *_) = (part.element_size() for part in parts.values() if part.is_floating_point())
        return int(parts["_shape"].prod()) * size

    def file_of(self, name: str) -> Path:
        """Return the file that holds a weight."""
        return self._files[f"{name}_shape" if self.is_packed(name) else name]

    def _raw(self, name: str) -> torch.Tensor:
        if name not in self._files:
            raise CheckpointError(f"{str(self.folder)!r} has no tensor {name!r}")
        with self._open(self._files[name]) as handle:
            tensor: torch.Tensor = handle.get_tensor(name)
            return tensor

    def _open(self, file: Path) -> Any:
        try:
            return safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{str(file)!r} cannot be read as safetensors ({error}); it is missing, truncated "
                "or corrupted: fetch or write it again"
            ) from error

    def _locate(self) -> dict[str, Path]:
        index = self.folder / _INDEX_FILE
        if index.is_file():
            try:
                weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            except (ValueError, KeyError) as error:
                raise CheckpointError(f"{str(index)!r} is not a weight index: {error}") from error
            return {name: self.folder / file for name, file in weight_map.items()}
        single = self.folder / _SINGLE_FILE
        if single.is_file():
            with self._open(single) as handle:
                return dict.fromkeys(handle.keys(), single)
        pickles = [p for pattern in _PICKLES for p in self.folder.glob(pattern)]
        if pickles:
            raise CheckpointError(
                f"{str(self.folder)!r} holds its weights as a pickle ({pickles[0].name}), which "
                "can run code and is never opened; convert it in a throw-away environment with "
                "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER), or "
                "fetch the safetensors revision"
            )
        raise CheckpointError(
            f"{str(self.folder)!r} has no weights: expected {_SINGLE_FILE} or {_INDEX_FILE}"
        )

    def _find_packed(self) -> dict[str, list[str]]:
        """Return the tensors of every packed weight, which has at least a shape and one more."""
        weights = [n.removesuffix("_shape") for n in self._files if n.endswith("_shape")]
        parts = {name: self._stored.parts_of(name, self._files) for name in weights}
        return {name: found for name, found in parts.items() if len(found) > 1}

    def _read_stored(self) -> StoredWeights:
        config = self.folder / "config.json"
        if not config.is_file():
            return StoredWeights()
        quantization = json.loads(config.read_text(encoding="utf-8")).get("quantization_config")
        if not quantization or quantization.get("quant_method") != "thresher":
            return StoredWeights()
        check_version(quantization, str(self.folder))
        group = quantization.get("group")
        return StoredWeights(int(group) if group else None, quantization.get("layouts"))


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, configuration and the like, but neither weights nor records."""
    for pattern in _COMPANIONS:
        for file in source.glob(pattern):
            if file.name not in (_INDEX_FILE, RECORD_FILE):
                shutil.copyfile(file, target / file.name)


def check_version(quantization: dict[str, Any], where: str) -> None:
    """Raise if a sparse checkpoint was written by a later version.

    Raises
    ------
    CheckpointError
        Naming both versions.
    """
    version = quantization.get("format_version")
    if version != formats.FORMAT_VERSION:
        raise CheckpointError(
            f"{where} has sparse format version {version}, and this Thresher reads "
            f"{formats.FORMAT_VERSION}; install a matching version"
        )


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file, whole or not at all.

    Raises
    ------
    CheckpointError
        If it cannot be written, for example on a full disk; what was there before stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, temporary, metadata={"format": "pt"})
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def _umask() -> int:
    # The library writes files that only their owner can read; a model is for sharing.
    current = os.umask(0)
    os.umask(current)
    return current


class CheckpointWriter:
    """Writes a model folder shard by shard, packed, and gives it its name at the end.

    Parameters
    ----------
    folder : Path
        Where the shards are collected.
    source : Path
        The dense model's folder, whose configuration and tokenizer are copied.
    group : int, optional
        M of an N:M pattern.
    dtype : torch.dtype, optional
        What the weights were converted to, for the configuration.
    """

    def __init__(
        self,
        folder: Path,
        source: Path,
        group: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.folder = folder
        self.source = source
        self.group = group
        self.dtype = dtype
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error

    def add(
        self, shard: int, tensors: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]
    ) -> None:
        """Write one shard, packing the tensors that have a mask.

        Parameters
        ----------
        shard : int
            Its number; writing the same number again replaces it.
        tensors : dict of str to Tensor
            Dense weights by name.
        masks : dict of str to Tensor
            Supports of those to be packed.
        """
        packed: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            if name not in masks:
                packed[name] = tensor
                continue
            parts = formats.pack(tensor, masks[name], self._pattern(masks[name]))
            packed |= {name + suffix: part for suffix, part in parts.items()}
        save_tensors(packed, self._shard_path(shard))

    def finish(self, record: str) -> None:
        """Write index, configuration and record, and copy the tokenizer.

        Parameters
        ----------
        record : str
            JSON text on how the model was made, kept as ``thresher.json``.
        """
        weight_map: dict[str, str] = {}
        total = 0
        for path in sorted(self.folder.glob("model-*.safetensors")):
            total += path.stat().st_size
            with safe_open(path, framework="pt") as handle:
                weight_map |= dict.fromkeys(handle.keys(), path.name)
        copy_companions(self.source, self.folder)
        config = json.loads((self.source / "config.json").read_text(encoding="utf-8"))
        config["quantization_config"] = {
            "quant_method": "thresher",
            "format_version": formats.FORMAT_VERSION,
            **({"group": self.group} if self.group else {}),
        }
        if self.dtype is not None:
            config["dtype"] = str(self.dtype).removeprefix("torch.")
            config.pop("torch_dtype", None)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_text(self.folder / "config.json", json.dumps(config, indent=2) + "\n")
        write_text(self.folder / _INDEX_FILE, json.dumps(index, indent=2) + "\n")
        write_text(self.folder / RECORD_FILE, record)

    def _pattern(self, mask: torch.Tensor) -> NM | None:
        if self.group is None or mask.dim() != 2 or mask.shape[1] % self.group:
            return None
        kept = int(mask[0, : self.group].sum())
        return NM(kept, self.group) if kept else None

    def _shard_path(self, shard: int) -> Path:
        return self.folder / f"model-{shard:05d}.safetensors"
