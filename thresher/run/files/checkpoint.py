"""Model folders: reading safetensors one tensor at a time."""

from __future__ import annotations

__all__ = [
    "CONFIG_KEY",
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

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch

from ...core.errors import CheckpointError, OptionError
from ...core.files import read_json
from ...core.paths import local_model
from ..layouts import formats
from ..layouts.buffers import Outline
from .companions import WEIGHT_FILES
from .float8 import SCALE, Float8
from .index import DENSE_FILE, DENSE_INDEX, INDEX_FILE, weight_map
from .listed import short
from .stored import StoredWeights
from .tensors import TensorFile

#: Names of a sparse folder's shards, which transformers does not look for unless it is told to.
SHARDS = "thresher-*.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
#: What config.json says under this key is the version of the file of activation thresholds.
CONFIG_KEY = "thresher_activations"
_QUANTIZATION = ("quantization_config", "compression_config")
#: A weight may take this many times the bytes of all files when it is unpacked, or so many bytes.
_EXPANSION, _HARMLESS = 1024, 64 << 20


def resolve(model: str | Path, revision: str | None = None) -> Path:
    """Return the local folder of a model, downloading a hub name's files if needed.

    Parameters
    ----------
    model : str or Path
        A folder, or a name such as ``"HuggingFaceTB/SmolLM2-135M"``.
    revision : str, optional
        Branch, tag or commit on the hub.  [default: the main branch]

    Returns
    -------
    Path

    Raises
    ------
    OptionError
        If a folder is given with a revision.
    CheckpointError
        If it is neither; see :func:`~thresher.core.paths.local_model`.
    """
    folder = local_model(model)
    if folder is not None:
        if revision is not None:
            raise OptionError(
                f"{str(model)!r} is a folder, which has no revision {revision!r}; name a model on "
                "the hub, or leave the revision away"
            )
        return folder
    from huggingface_hub import snapshot_download

    others = [p for p in WEIGHT_FILES if not p.endswith("safetensors.index.json")]
    try:
        return Path(snapshot_download(str(model), revision=revision, ignore_patterns=others))
    except Exception as error:
        raise CheckpointError(
            f"{str(model)!r} is no folder here, and {_why_not_from_hub(error)}"
        ) from error


def _why_not_from_hub(error: Exception) -> str:
    """Return why the hub gave no model, and what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "the hub gives it to those alone who have accepted its terms there and logged in"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "the hub has no such model, or none that you may see; check the spelling, or log in "
            "with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub has the model, but no such revision of it; check the spelling"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            "the hub cannot be reached, nor was the model fetched before; fetch it where there is "
            "a network, and name its folder"
        )
    first = str(error).strip().partition("\n")[0]
    return f"the hub gave nothing: {type(error).__name__}: {first}"


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
        self._handles: dict[Path, TensorFile] | None = None
        self._most_bytes = max(_HARMLESS, _EXPANSION * sum(map(_size, set(self._files.values()))))
        again = ((n, p, self._files[n]) for n, p in files if self._files[n] != p)
        self._twice = next(again, None)
        self._confirmed: set[str] = set()
        self._parts = stored.parts(self._files)
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
            If one cannot be read, or lacks a part of a weight.
        """
        files: list[tuple[str, Path]] = []
        groups: dict[str, str] = {}
        for path in paths:
            file = TensorFile(path)
            files += [(name, path) for name in file.names]
            groups |= file.metadata
        if stored is None:
            stored = StoredWeights(_group_of(groups.get("group"), where))
        return cls(files, stored, where)

    def check_once(self) -> None:
        """Raise CheckpointError if a tensor is in several files."""
        if self._twice is not None:
            raise _twice(*self._twice)

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
            self._check_size(name)
            return self.stored.dense(name, self.packed(name))
        tensor = self._raw(name)
        if self._float8 is not None and name + SCALE in self._files:
            tensor = self._float8.dequantize(name, tensor, self._raw(name + SCALE))
        return tensor, None

    def packed(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a packed weight by suffix, whose shapes and types were checked."""
        self.outline(name)
        return {part.removeprefix(name): self._raw(part) for part in self._parts[name]}

    def outline(self, name: str) -> torch.Tensor:
        """Return a weight's shape and type as a tensor without data; only the header is read."""
        if self.is_packed(name):
            shape = self._shape(name)
            shape, dtype = self.stored.outline(name, shape, self._outlines(name))
        else:
            shape, dtype = self._file(name).outline(name)
        if self._float8 is not None and name + SCALE in self._files:
            dtype = self._float8.dtype
        try:
            return torch.empty(shape, dtype=dtype, device="meta")
        except RuntimeError as error:
            raise CheckpointError(
                f"tensor {name!r} of {self.where!r} has shape {shape}, which no tensor can have "
                f"({error}); the file is corrupted, fetch or write it again"
            ) from error

    def confirm(self, names: Iterable[str]) -> None:
        """Note that weights have the shapes that a model expects, so that none is too large."""
        self._confirmed |= set(names)

    def _check_size(self, name: str) -> None:
        """Raise unless a packed weight is of a size that files like these can stand for.

        A few bytes can say that a large weight is empty. So a weight may take 1,024 times the bytes
        of all files that lie beside it, as the sparsest models do not, or 64 MiB.
        """
        if name in self._confirmed:
            return
        outline = self.outline(name)
        taken = outline.numel() * outline.element_size()
        if taken > self._most_bytes:
            raise CheckpointError(
                f"packed weight {name!r} of {self.where!r} would take {taken:,} bytes unpacked, "
                f"more than {_EXPANSION:,} times those of all its files; the file is damaged or "
                "made to exhaust memory. If it is right, load the model with from_pretrained, "
                "which compares the weight with the model's"
            )

    def kept(self, name: str) -> int:
        """Return how many entries of a weight are on its support, not zero if it is dense."""
        if self.is_packed(name) and not self.stored.is_named(name):
            self.outline(name)
            return math.prod(self._outlines(name)["_values"].shape)
        return int(torch.count_nonzero(self.tensor(name)))

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a weight takes on disk."""
        parts = self._parts.get(name, [name])
        found = [self._file(part).outline(part) for part in parts]
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in found)

    def dense_bytes(self, name: str) -> int:
        """Return the bytes that a weight would take as a dense tensor of its dtype."""
        outline = self.outline(name)
        return outline.numel() * outline.element_size()

    def file_of(self, name: str) -> Path:
        """Return the file that holds a weight."""
        return self._files[f"{name}_shape" if self.is_packed(name) else name]

    def _raw(self, name: str) -> torch.Tensor:
        return self._file(name).read(name)

    def _file(self, name: str) -> TensorFile:
        """Return the file that holds a stored tensor, kept open while :meth:`opened` lasts."""
        if name not in self._files:
            raise CheckpointError(f"{self.where!r} has no tensor {name!r}")
        path = self._files[name]
        if self._handles is None:
            return TensorFile(path)
        if path not in self._handles:
            self._handles[path] = TensorFile(path)
        return self._handles[path]

    def _shape(self, name: str) -> tuple[int, ...]:
        """Return the shape that a packed weight says it has."""
        part = f"{name}_shape"
        file = self._file(part)
        # A shape is a few numbers: another tensor of this name may be large, and is not read.
        formats.check_shape_outline(name, *file.outline(part))
        return formats.shape_of(name, file.read(part))

    def _outlines(self, name: str) -> dict[str, Outline]:
        """Return shapes and types of a packed weight's tensors by suffix, without its shape."""
        suffixes = [part.removeprefix(name) for part in self._parts[name]]
        return {s: self._file(name + s).outline(name + s) for s in suffixes if s != "_shape"}


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
        files = self._locate(stored.sparse)
        for file in sorted(set(files.values())):
            held = TensorFile(file).names
            # transformers reads what the files hold, whether the index knows of it or not.
            again = sorted(name for name in held if files.get(name, file) != file)
            if again and stored.sparse:
                raise _twice(again[0], file, files[again[0]])
            files = dict.fromkeys(sorted(held), file) | files
        super().__init__(list(files.items()), stored, str(self.folder), float8)

    def _locate(self, sparse: bool) -> dict[str, Path]:
        files = weight_map(self.folder, sparse)
        if files is not None:
            return files
        pickles = [p for pattern in _PICKLES for p in self.folder.glob(pattern)]
        if pickles:
            raise CheckpointError(
                f"{str(self.folder)!r} holds its weights as a pickle ({pickles[0].name}), which "
                "can run code and is never opened; convert it in a throw-away environment with "
                "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER), or "
                "fetch the safetensors revision"
            )
        raise CheckpointError(
            f"{str(self.folder)!r} has no weights: expected {DENSE_FILE}, {DENSE_INDEX} or "
            f"{INDEX_FILE}"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json of a folder says, nothing if there is none.

    Raises
    ------
    CheckpointError
        If it is not an object in JSON.
    """
    file = folder / "config.json"
    return read_json(file, "fetch or write the model again") if file.is_file() else {}


def plain_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a folder without anything that Thresher has written there."""
    config = read_config(folder)
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    for part in parts:
        for key in (*_QUANTIZATION, "transformers_weights", CONFIG_KEY):
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
    found = [part.get(key) for part in parts for key in _QUANTIZATION]
    found = [quantization for quantization in found if quantization is not None]
    if not found:
        return StoredWeights(sparse=False), None
    if not isinstance(found[0], dict):
        raise CheckpointError(
            f"the quantization_config of {where} is {short(found[0])}, expected an object with "
            "keys; fetch or write the model again"
        )
    method = found[0].get("quant_method")
    if method == "thresher":
        check_version(found[0], where)
        return StoredWeights(found[0].get("group"), found[0].get("layouts")), None
    names = [part[key] for part in parts for key in ("dtype", "torch_dtype") if part.get(key)]
    dtype = getattr(torch, str(names[0]), None) if names else None
    if not isinstance(dtype, torch.dtype):
        dtype = torch.bfloat16
    float8 = Float8.from_config(found[0], dtype)
    if float8 is None:
        raise CheckpointError(
            f"the weights of {where} are quantised ({method or 'method not named'}, says its "
            "quantization_config) and are not read here; use the model's unquantised folder, or "
            "dequantise it with the library that made it"
        )
    return StoredWeights(sparse=False), float8


def check_version(quantization: dict[str, Any], where: str) -> None:
    """Raise if a sparse checkpoint was written by a later version, or does not say how it loads.

    Raises
    ------
    CheckpointError
        Naming both versions, or the damaged entry.
    """
    packed = quantization.get("packed")
    if packed is not None and type(packed) is not bool:
        raise CheckpointError(
            f"'packed' in the quantization_config of {where} is {short(packed)}, expected true or "
            "false; write the folder again"
        )
    version = quantization.get("format_version")
    if type(version) is not int or version not in formats.READABLE_VERSIONS:
        raise CheckpointError(
            f"{where} has sparse format version {version}, and this Thresher reads "
            f"{formats.FORMAT_VERSION}; install a matching version"
        )


def _twice(name: str, *files: Path) -> CheckpointError:
    """Return the error that a tensor of a sparse folder is in two files."""
    names = " and in ".join(file.name for file in files)
    return CheckpointError(f"tensor {name!r} is in {names}; write the folder again")


def _group_of(text: str | None, where: str) -> int | None:
    """Return M of N:M positions as the header of a shard says it."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise CheckpointError(
            f"the header of {where} has group {short(text)}, expected a number; write it again"
        )
    return int(text)


def _size(path: Path) -> int:
    """Return the bytes of a file, none where there is no such file: reading it will say so."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
