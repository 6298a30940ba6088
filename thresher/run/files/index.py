"""Which files of a model folder hold its weights: the index, and where it may lead."""

from __future__ import annotations

__all__ = ["DENSE_FILE", "DENSE_INDEX", "INDEX_FILE", "check_inside", "weight_map"]

from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from ...core.errors import CheckpointError
from ...core.files import read_json
from .companions import leads_inside
from .tensors import TensorFile

#: Name of a sparse folder's index, which transformers does not look for unless it is told to.
INDEX_FILE = "thresher.safetensors.index.json"
DENSE_FILE = "model.safetensors"
DENSE_INDEX = "model.safetensors.index.json"
_REMEDY = "fetch or write the model again"


def weight_map(folder: Path, sparse: bool = True) -> dict[str, Path] | None:
    """Return the file of every tensor of a folder, as its index says or its only file.

    Of several, the one that transformers takes: the sparse index, the only file, the dense index.

    Parameters
    ----------
    folder : Path
        A model folder.
    sparse : bool, default True
        Whether its configuration says that weights are stored sparse. Of a folder that says
        nothing of the kind the sparse index is what is left of a model that another one was saved
        over, and taken only if there is nothing else.

    Returns
    -------
    dict of str to Path, or None
        None when the folder has none of them.

    Raises
    ------
    CheckpointError
        If the index is damaged, or names anything but regular files of the folder.
    """
    dense = any((folder / name).exists() for name in (DENSE_FILE, DENSE_INDEX))
    if (folder / INDEX_FILE).exists() and (sparse or not dense):
        return _read_index(folder / INDEX_FILE)
    single = folder / DENSE_FILE
    if single.exists():
        check_inside(folder, [single])
        return dict.fromkeys(TensorFile(single).names, single)
    return _read_index(folder / DENSE_INDEX) if (folder / DENSE_INDEX).exists() else None


def _read_index(index: Path) -> dict[str, Path]:
    folder, content = index.parent, read_json(index, _REMEDY)
    files = content.get("weight_map")
    # transformers looks for the metadata too.
    whole = index.name != INDEX_FILE or isinstance(content.get("metadata"), dict)
    if not isinstance(files, dict) or not whole:
        raise CheckpointError(
            f"{str(index)!r} is not a weight index: its 'weight_map' must name the file of every "
            f"tensor, and 'metadata' be an object; {_REMEDY}"
        )
    for name, file in files.items():
        if not isinstance(file, str) or not _stays_below(file):
            raise CheckpointError(
                f"{str(index)!r} says that {name!r} is in {file!r}, which is no file of the "
                f"folder; {_REMEDY}"
            )
    places = {name: folder / file for name, file in files.items()}
    check_inside(folder, set(places.values()))
    held = {file: set(TensorFile(file).names) for file in set(places.values())}
    for name, file in places.items():
        if name not in held[file]:
            raise CheckpointError(
                f"{file.name} lacks tensor {name!r}, which the index of {str(folder)!r} promises; "
                f"{_REMEDY}"
            )
    return places


def check_inside(folder: Path, files: Iterable[Path]) -> None:
    """Raise unless files are regular ones of a folder, or blobs of the hub's cache it is part of.

    Raises
    ------
    CheckpointError
        If one is missing, a pipe or a device, or a link that leads elsewhere.
    """
    for file in sorted(files):
        if not file.is_file():
            raise CheckpointError(
                f"{str(file)!r}, which should hold weights, is missing or no regular file; "
                f"{_REMEDY}"
            )
        if not leads_inside(file, folder):
            raise CheckpointError(
                f"{str(file)!r} leads out of the model's folder; put the file itself there if it "
                "is part of the model"
            )


def _stays_below(file: str) -> bool:
    """Return whether a name is that of a file below a folder, on every system."""
    kinds = (PurePosixPath(file), PureWindowsPath(file))
    rooted = any(path.is_absolute() or path.drive or path.root for path in kinds)
    return bool(file) and "\0" not in file and not rooted and ".." not in kinds[1].parts
