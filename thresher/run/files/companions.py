"""The files of a model folder that are not weights: tokenizer, templates, licences, subfolders."""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS_RECORD",
    "RECORD_FILE",
    "WEIGHT_FILES",
    "companions",
    "copy_companions",
    "leads_inside",
]

import fnmatch
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

RECORD_FILE = "thresher.json"
ACTIVATIONS_RECORD = "thresher-activations.json"
_REPORT_FILE = "report.html"
#: Pickles can run code when they are opened; they are neither opened nor handed on.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.npy", "*.npz")
#: What holds weights of the model as it was, in this and in other formats, and their indices.
WEIGHT_FILES = (
    *_PICKLES,
    *("*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.gguf", "*.ggml", "*.tflite", "*.ot"),
    *("*.bin.index.json", "*.safetensors.index.json"),
)


def companions(folder: Path) -> Iterator[Path]:
    """Yield the paths, within a model's folder, of all files that its weights do not replace.

    Safetensors in subfolders belong to other modules, such as those of sentence-transformers,
    and are companions; pickles are not, nor are hidden folders and links that lead elsewhere.

    Parameters
    ----------
    folder : Path
        A model folder, or a snapshot in the cache of the hub.
    """
    recorded = (folder / RECORD_FILE).is_file()
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(place) / name for name in sorted(files)):
            path = file.relative_to(folder)
            if any(fnmatch.fnmatch(file.name.lower(), pattern) for pattern in WEIGHT_FILES):
                continue
            if len(path.parts) == 1 and _belongs_to_the_model(file, recorded):
                continue
            if file.is_symlink() and not leads_inside(file, folder):
                warnings.warn(
                    f"{str(file)!r} is a link out of the model's folder and is not copied; put "
                    "the file itself there if it is part of the model",
                    stacklevel=2,
                )
                continue
            if file.is_file():
                yield path


def copy_companions(source: Path, target: Path) -> None:
    """Copy everything of a model's folder but weights and records, subfolders included."""
    for path in companions(source):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)


def _belongs_to_the_model(file: Path, recorded: bool) -> bool:
    """Return whether a file of the folder itself is weights, or the record of how it was made."""
    record = recorded and file.name in (RECORD_FILE, _REPORT_FILE)
    record |= file.name == ACTIVATIONS_RECORD
    return record or file.suffix == ".safetensors" or file.name.endswith(".tmp")


def leads_inside(link: Path, folder: Path) -> bool:
    """Return whether a link stays in its folder, or in the cache of the hub that it is part of."""
    target, place = link.resolve(), folder.resolve()
    return any(target.is_relative_to(root) for root in (place, *_blobs(place)))


def _blobs(folder: Path) -> Iterator[Path]:
    """Yield where the files lie that the hub's cache links to from a folder of its own."""
    # MODEL/snapshots/REVISION/FILE leads to MODEL/blobs/HASH, and that may lead to the blobs that
    # all models of the cache share.
    model = folder.parent.parent
    yield (model / "blobs").resolve()
    if folder.parent.name == "snapshots" and model.name.startswith("models--"):
        yield (model.parent / "blobs").resolve()
