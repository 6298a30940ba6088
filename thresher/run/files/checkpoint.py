"""Model folders: reading safetensors one tensor at a time."""

from __future__ import annotations

__all__ = [
    "INDEX_FILE",
    "SHARDS",
    "Checkpoint",
    "Shards",
    "check_version",
    "plain_config",
    "read_config",
    "resolve",
    "stored_weights",
]

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open

from ...core.errors import CheckpointError
from ..layouts import formats
from .companions import WEIGHT_FILES
from .float8 import SCALE, Float8
from .stored import StoredWeights

#: Names of a sparse folder's files, which transformers does not look for unless it is told to.
INDEX_FILE = "thresher.safetensors.index.json"
SHARDS = "thresher-*.safetensors"
_DENSE_INDEX = "model.safetensors.index.json"
_DENSE_FILE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_QUANTIZATION = ("quantization_config", "compression_config")


def resolve(model: str | Path) -> Path:
    """Return the local folder of a model, downloading a hub name's files if needed.

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

    others = [p for p in WEIGHT_FILES if not p.endswith("safetensors.index.json")]
    try:
        return Path(snapshot_download(str(model), ignore_patterns=others))
    except Exception as error:
        raise CheckpointError(
            f"{str(model)!r} is neither a folder here nor a model that the hub gave: {error}"
        ) from error


class Shards:
    """Safetensors files, read one weight at a time; packed ones go by their dense names.

    Parameters
    ----------
    files : sequence of (str, Path)
        Every stored tensor's name and its file.
    stored : StoredWeights
        How packed weights are stored.
    where : str
        What the files are, for messages.
    float8 : Float8, optional
        How weights with scales are quantised; they are read dequantised.

    Attributes
    ----------
    names : list of str
        Of all weights, packed ones under their dense name; twice if they are stored twice.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, Path]],
        stored: StoredWeights,
        where: str,
        float8: Float8 | None = None,
    ) -> None:
        self.stored = stored
        self.where = where
        self._float8 = float8
        self._files = dict(files)
        self._handles: dict[Path, Any] | None = None
        self._parts = self._find_packed()
        inside = {part for parts in self._parts.values() for part in parts}
        if float8 is not None:
            inside |= {n + SCALE for n in self._files if n + SCALE in self._files}
        shapes = {f"{name}_shape": name for name in self._parts}
        self.names = [n for n, _ in files if n not in inside]
        self.names += sorted(shapes[n] for n, _ in files if n in shapes)

    @classmethod
    def in_folder(cls, place: Path) -> Self:
        """Return the shards that lie in an unfinished folder, or the one that is named."""
        paths = sorted(place.glob(SHARDS)) if place.is_dir() else [place]
        return cls.of_files(paths, str(place))

    @classmethod
    def of_files(
        cls, paths: Sequence[Path], where: str, stored: StoredWeights | None = None
    ) -> Self:
        """Return what files hold; unless `stored` is given, their headers say how.

        Raises
        ------
        CheckpointError
            If one cannot be read.
        """
        files: list[tuple[str, Path]] = []
        groups: dict[str, str] = {}
        for path in paths:
            with _open(path) as handle:
                files += [(name, path) for name in handle.keys()]  # noqa: SIM118
                groups |= handle.metadata() or {}
        group = groups.get("group")
        return cls(files, stored or StoredWeights(int(group) if group else None), where)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of dense weights, packed ones under their dense name."""
        return iter(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._parts

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep the files open while the context lasts, for those who read many tensors."""
        outer, self._handles = self._handles, self._handles or {}
        try:
            yield
        finally:
            self._handles = outer

    def is_packed(self, name: str) -> bool:
        """Return whether a weight is stored packed."""
        return name in self._parts

    def tensor(self, name: str) -> torch.Tensor:
        """Return a weight, unpacked if it is stored packed."""
        return self.tensor_and_mask(name)[0]

    def tensor_and_mask(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return a weight and, when it is stored packed, its support."""
        if self.is_packed(name):
            return self.stored.dense(name, self.packed(name))
        tensor = self._raw(name)
        if self._float8 is not None and name + SCALE in self._files:
            tensor = self._float8.dequantize(name, tensor, self._raw(name + SCALE))
        return tensor, None

    def packed(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a packed weight by suffix."""
        return {part.removeprefix(name): self._raw(part) for part in self._parts[name]}

    def outline(self, name: str) -> torch.Tensor:
        """Return a weight's shape and type as a tensor without data."""
        if self.is_packed(name):
            return self.stored.outline(name, self.packed(name))
        tensor = self._raw(name)
        dtype = tensor.dtype
        if self._float8 is not None and name + SCALE in self._files:
            dtype = self._float8.dtype
        return torch.empty(tensor.shape, dtype=dtype, device="meta")

    def kept(self, name: str) -> int:
        """Return how many entries of a weight are on its support, not zero if it is dense."""
        if self.is_packed(name):
            parts = self.packed(name)
            if not self.stored.is_named(name):
                return parts["_values"].numel()
            tensor = self.stored.dense(name, parts)[0]
        else:
            tensor = self.tensor(name)
        return int(torch.count_nonzero(tensor))

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a weight takes on disk."""
        if self.is_packed(name):
            return formats.packed_bytes(self.packed(name))
        return formats.packed_bytes({"": self._raw(name)})

    def dense_bytes(self, name: str) -> int:
        """Return the bytes that a weight would take as a dense tensor of its dtype."""
        outline = self.outline(name)
        return outline.numel() * outline.element_size()

    def file_of(self, name: str) -> Path:
        """Return the file that holds a weight."""
        return self._files[f"{name}_shape" if self.is_packed(name) else name]

    def _raw(self, name: str) -> torch.Tensor:
        if name not in self._files:
            raise CheckpointError(f"{self.where!r} has no tensor {name!r}")
        path = self._files[name]
        if self._handles is None:
            with _open(path) as handle:
                alone: torch.Tensor = handle.get_tensor(name)
                return alone
        if path not in self._handles:
            self._handles[path] = _open(path)
        tensor: torch.Tensor = self._handles[path].get_tensor(name)
        return tensor

    def _find_packed(self) -> dict[str, list[str]]:
        """Return the tensors of every packed weight, which has at least a shape and one more."""
        weights = [n.removesuffix("_shape") for n in self._files if n.endswith("_shape")]
        parts = {name: self.stored.parts_of(name, self._files) for name in weights}
        return {name: found for name, found in parts.items() if len(found) > 1}


class Checkpoint(Shards):
    """A model folder, dense or packed.

    Parameters
    ----------
    folder : str or Path
        A Hugging Face model folder.

    Raises
    ------
    CheckpointError
        If the folder has no safetensors (pickles are refused), a file is truncated, or the
        weights are quantised in a way that is not read here.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        config = read_config(self.folder)
        stored, float8 = stored_weights(config, str(self.folder))
        files = self._locate()
        for file in sorted(set(files.values())):
            with _open(file) as handle:
                held = set(handle.keys())
            missing = [n for n, f in files.items() if f == file and n not in held]
            if missing:
                raise CheckpointError(
                    f"{file.name} lacks tensor {missing[0]!r}, which the index of "
                    f"{str(self.folder)!r} promises; fetch the model again"
                )
            # transformers reads what the files hold, whether the index knows of it or not.
            files = dict.fromkeys(sorted(held), file) | files
        super().__init__(list(files.items()), stored, str(self.folder), float8)

    def _locate(self) -> dict[str, Path]:
        for index in (self.folder / INDEX_FILE, self.folder / _DENSE_INDEX):
            if not index.is_file():
                continue
            try:
                weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            except (ValueError, KeyError) as error:
                raise CheckpointError(f"{str(index)!r} is not a weight index: {error}") from error
            return {name: self.folder / file for name, file in weight_map.items()}
        single = self.folder / _DENSE_FILE
        if single.is_file():
            with _open(single) as handle:
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
            f"{str(self.folder)!r} has no weights: expected {_DENSE_FILE}, {_DENSE_INDEX} or "
            f"{INDEX_FILE}"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json of a folder says, nothing if there is none.

    Raises
    ------
    CheckpointError
        If it is not JSON.
    """
    file = folder / "config.json"
    if not file.is_file():
        return {}
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{str(file)!r} is not JSON: {error}") from error
    return config


def plain_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a folder without anything on how its weights are stored."""
    config = read_config(folder)
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    for part in parts:
        for key in (*_QUANTIZATION, "transformers_weights"):
            part.pop(key, None)
    return config


def stored_weights(config: dict[str, Any], where: str) -> tuple[StoredWeights, Float8 | None]:
    """Return how the weights of a folder with this configuration are stored.

    Raises
    ------
    CheckpointError
        If a later version wrote it, or another library quantised it; the method is named.
    """
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    found = [part[key] for part in parts for key in _QUANTIZATION if part.get(key)]
    if not found:
        return StoredWeights(), None
    method = found[0].get("quant_method")
    if method == "thresher":
        check_version(found[0], where)
        group = found[0].get("group")
        return StoredWeights(int(group) if group else None, found[0].get("layouts")), None
    names = [part[key] for part in parts for key in ("dtype", "torch_dtype") if part.get(key)]
    dtype = getattr(torch, str(names[0]), None) if names else None
    float8 = Float8.from_config(found[0], dtype or torch.bfloat16)
    if float8 is None:
        raise CheckpointError(
            f"the weights of {where} are quantised ({method or 'method not named'}, says its "
            "quantization_config) and are not read here; use the model's unquantised folder, or "
            "dequantise it with the library that made it"
        )
    return StoredWeights(), float8


def check_version(quantization: dict[str, Any], where: str) -> None:
    """Raise if a sparse checkpoint was written by a later version.

    Raises
    ------
    CheckpointError
        Naming both versions.
    """
    version = quantization.get("format_version")
    if version not in formats.READABLE_VERSIONS:
        raise CheckpointError(
            f"{where} has sparse format version {version}, and this Thresher reads "
            f"{formats.FORMAT_VERSION}; install a matching version"
        )


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{str(file)!r} cannot be read as safetensors ({error}); it is missing, truncated "
            "or corrupted: fetch or write it again"
        ) from error
