"""What users name: folders of models, and texts. Checked without torch, before any work begins."""

from __future__ import annotations

__all__ = [
    "DATA_SET",
    "check_model_folder",
    "check_text",
    "data_set_of",
    "hub_name",
    "is_hub_name",
    "local_model",
    "missing",
    "model_name",
]

import difflib
import re
from pathlib import Path, PurePath

from .errors import CheckpointError, DataError, ThresherError

#: As the hub spells the name of a model.
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
#: Where the hub's cache keeps one.
_CACHED = re.compile(r"/models--(?:([\w.-]+?)--)?([\w.-]+)/snapshots/[^/]+/?$", re.ASCII)
#: Before the name of a data set that the package ``datasets`` is to fetch: a path that is mistyped
#: is not asked of the hub.
DATA_SET = "datasets:"
_EXAMPLE = "HuggingFaceTB/SmolLM2-135M"
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


def local_model(model: str | Path) -> Path | None:
    """Return the folder that a model's name stands for.

    Parameters
    ----------
    model : str or Path
        A folder, or a name on the hub.

    Returns
    -------
    Path or None
        None where it can only be a name on the hub: two words with a slash between them, the
        first of which is no folder here; or one word, of a model that is in the hub's cache.

    Raises
    ------
    CheckpointError
        If it is a file, saying what kind of file and what to do with it; or no folder, and no
        name that the hub could have.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise CheckpointError(_about_file(folder))
    name = str(model)
    if (_HUB_NAME.fullmatch(name) and not folder.parent.is_dir()) or _is_cached(name):
        return None
    otherwise = f"models on the hub are named OWNER/NAME, such as {_EXAMPLE}"
    raise missing("model folder", folder, CheckpointError, otherwise)


def is_hub_name(name: str) -> bool:
    """Return whether the hub could have a repository of a name, ``"OWNER/NAME"``."""
    return _HUB_NAME.fullmatch(name) is not None


def hub_name(folder: str | Path) -> str | None:
    """Return the name on the hub of a model that lies in the hub's cache, otherwise None."""
    found = _CACHED.search(PurePath(folder).as_posix())
    return "/".join(part for part in found.groups() if part) if found else None


def model_name(folder: str | Path) -> str:
    """Return what to call a model in a sentence: the last part of its name or of its folder's."""
    return PurePath(hub_name(folder) or folder).name or str(folder)


def _is_cached(name: str) -> bool:
    """Return whether the hub's cache holds a model of the old kind of name, such as ``gpt2``."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return False
    return (
        re.fullmatch(r"[\w.-]+", name) is not None
        and (Path(HF_HUB_CACHE) / f"models--{name}").is_dir()
    )


def check_model_folder(folder: Path) -> None:
    """Raise unless a folder says what model it holds.

    Parameters
    ----------
    folder : Path
        Of a Hugging Face model.

    Raises
    ------
    CheckpointError
        If it has no config.json; the message says what it holds instead.
    """
    if (folder / "config.json").is_file():
        return
    found = next(iter(sorted(folder.glob("*.gguf"))), None)
    if found is not None:
        raise CheckpointError(_about_file(found))
    inside = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
    remedy = (
        f"did you mean {str(folder / inside[0])!r}?"
        if inside
        else "name a folder that save_pretrained wrote"
    )
    raise CheckpointError(
        f"{str(folder)!r} has no config.json, so that it is no Hugging Face model; {remedy}"
    )


def check_text(path: Path) -> None:
    """Raise unless a data set is named, or there is a file or a folder of ``save_to_disk``.

    Raises
    ------
    DataError
        Saying what there is instead.
    """
    if str(path).startswith(DATA_SET):
        data_set_of(str(path))
        return
    if path.is_dir():
        if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            raise DataError(
                f"{str(path)!r} is a folder, and no data set that save_to_disk of the package "
                "'datasets' has written; name a text file, one of JSON lines, or such a folder"
            )
    elif not path.is_file():
        raise missing("text file", path, DataError)


def data_set_of(text: str) -> tuple[str, ...]:
    """Return data set, configuration, if any, and split of ``"datasets:NAME:SPLIT"``.

    Raises
    ------
    DataError
        If it is spelled otherwise.
    """
    parts = tuple(text.removeprefix(DATA_SET).split(":"))
    if len(parts) not in (2, 3) or not all(parts):
        raise DataError(
            f"{text!r} names no data set's split; spell it {DATA_SET}NAME:SPLIT, or "
            f"{DATA_SET}NAME:CONFIGURATION:SPLIT where it has several configurations"
        )
    return parts


def missing(
    what: str, path: Path, kind: type[ThresherError], otherwise: str = "check the path"
) -> ThresherError:
    """Return the error that there is no such file or folder, with the nearest name that there is.

    Parameters
    ----------
    what : str
        What was looked for, such as ``"text file"``.
    path : Path
        The name that was given.
    kind : type
        Class of the error.
    otherwise : str, default "check the path"
        Said where no name is near.
    """
    parent = path.parent
    if not parent.is_dir():
        hint = f"nor does {str(parent)!r}; check the path"
    else:
        folders = what.endswith("folder")
        there = [each.name for each in parent.iterdir() if each.is_dir() or not folders]
        close = difflib.get_close_matches(path.name, there, n=1)
        hint = f"did you mean {str(parent / close[0])!r}?" if close else otherwise
    return kind(f"{what} {str(path)!r} does not exist; {hint}")


def _about_file(file: Path) -> str:
    """Say what a file is that was named as a model, and what to do."""
    with file.open("rb") as opened:
        start = opened.read(4)
    name = repr(str(file))
    if start == b"GGUF":
        return (
            f"{name} is a GGUF file, whose weights were rounded for llama.cpp; name the folder or "
            "hub name of the model that it was made from, or convert it first: AutoModelForCausalLM"
            f".from_pretrained({str(file.parent)!r}, gguf_file={file.name!r}).save_pretrained(NEW)"
        )
    if file.suffix.lower() in _PICKLES:
        return (
            f"{name} is a pickle, which can run code and is never opened; load it in Python as its "
            "author says, and prune the model there with thresher.prune(model, ...), or write it "
            "with save_pretrained and name that folder"
        )
    if file.suffix == ".safetensors":
        return f"{name} holds weights alone; name the folder that it lies in, with its config.json"
    return f"{name} is a file; name the model's folder, or a name on the hub such as {_EXAMPLE}"
