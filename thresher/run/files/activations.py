"""Calibrated activations beside a model: a file of thresholds in an otherwise ordinary folder.

Without Thresher the folder is the dense model's, and loads as that.
"""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS_FILE",
    "check_dense_folder",
    "copy_model",
    "has_activations",
    "load_activations",
    "save_activations",
    "write_activations",
]

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.errors import CheckpointError, LayerError, OptionError
from ...core.files import write_text
from ...core.remembered import remembered
from ...parts.activations.attached import attach, attached, set_aside
from ...parts.activations.selection import Selection
from ...parts.activations.sites import Site
from ...parts.activations.window_blocks import blocks_of
from ...parts.layers import Layer
from .checkpoint import CONFIG_KEY, Checkpoint, read_config
from .companions import ACTIVATIONS_RECORD, RECORD_FILE, copy_companions
from .index import DENSE_INDEX, INDEX_FILE
from .tensors import TensorFile
from .writer import save_tensors

ACTIVATIONS_FILE = "thresher-activations.safetensors"
VERSION = 1
_REMEDY = "write the folder again with thresher.activate and thresher.save"


def has_activations(folder: Path) -> bool:
    """Return whether the model of a folder drops activations."""
    return (folder / ACTIVATIONS_FILE).exists() or CONFIG_KEY in read_config(folder)


def check_dense_folder(folder: Path, remedy: str) -> None:
    """Raise if the model of a folder drops activations.

    Raises
    ------
    OptionError
        Naming the folder, and what to do.
    """
    if has_activations(folder):
        raise OptionError(f"{str(folder)!r} drops activations (thresher.activate); {remedy}")


def write_activations(model: nn.Module, folder: Path, record: str | None = None) -> None:
    """Write the selections of a model beside its weights, and name them in its configuration.

    Parameters
    ----------
    model : nn.Module
        With selections.
    folder : Path
        Of the model, with its config.json.
    record : str, optional
        JSON text on how they were calibrated.
    """
    tensors: dict[str, torch.Tensor] = {}
    sites = []
    for (name, side), selection in attached(model).items():
        kind = {"selection": selection.name, "settings": selection.settings}
        site = {"layer": name, "side": side, "channels": _channels(model, name, side)}
        sites.append(site | kind)
        for leaf, tensor in selection.tensors().items():
            tensors[f"{selection.place}.{leaf}"] = tensor.detach().cpu()
    metadata = {"format_version": str(VERSION), "sites": json.dumps(sites)}
    save_tensors(tensors, folder / ACTIVATIONS_FILE, metadata)
    config = read_config(folder) | {CONFIG_KEY: VERSION}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    if record is not None:
        write_text(folder / ACTIVATIONS_RECORD, record)


def copy_model(source: Path, target: Path) -> None:
    """Copy a model's folder with its weights as they are, and its pruning record."""
    checkpoint = Checkpoint(source)
    target.mkdir(parents=True, exist_ok=True)
    copy_companions(source, target)
    weights = {checkpoint.file_of(name).relative_to(source) for name in checkpoint}
    for name in sorted({*weights, *map(Path, (INDEX_FILE, DENSE_INDEX, RECORD_FILE))}):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def load_activations(model: nn.Module, file: Path) -> None:
    """Attach the selections that a file holds to a model.

    Parameters
    ----------
    model : nn.Module
        Of the architecture that they were calibrated for; its weights may be on the meta device.
    file : Path
        What :func:`write_activations` wrote.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another version, or of another model.
    """
    held = TensorFile(file)
    version = held.metadata.get("format_version")
    if version != str(VERSION):
        raise CheckpointError(
            f"{str(file)!r} has version {version} of activation thresholds, and this Thresher "
            f"reads {VERSION}; install a matching version"
        )
    try:
        sites = json.loads(held.metadata["sites"])
        made = [_made(held, site) for site in sites]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{str(file)!r} is damaged ({type(error).__name__}: {error}); {_REMEDY}"
        ) from error
    # All are checked before any is attached.
    made = [(_own_name(model, name), side, count, s) for name, side, count, s in made]
    for name, side, channels, _ in made:
        _check_fits(model, name, side, channels, file)
    for name, side, _, selection in made:
        layer = model.get_submodule(name)
        weight = next(layer.parameters())
        attach(name, layer, selection.to("cpu" if weight.is_meta else weight.device), side)


def save_activations(save: Callable[..., Any], model: Any, args: Any, kwargs: Any) -> Any:
    """Save a model, and its selections beside it; a wrapper of ``save_pretrained`` for wrapt.

    Parameters
    ----------
    save : callable
        ``model.save_pretrained``.
    model : transformers.PreTrainedModel
        The model.
    args, kwargs : tuple and dict
        What it was called with.

    Raises
    ------
    OptionError
        If a model with selections is to be pushed to the hub in the same call.
    """
    found = attached(model)
    if hasattr(model.config, CONFIG_KEY):
        delattr(model.config, CONFIG_KEY)
    if not found:
        return save(*args, **kwargs)
    if kwargs.get("push_to_hub"):
        raise OptionError(
            "a model with activation thresholds is not pushed while it is saved; save it, then "
            "upload the folder with huggingface_hub.upload_folder"
        )
    if kwargs.get("state_dict") is not None:
        places = tuple(f"{selection.place}." for selection in found.values())
        state = kwargs["state_dict"].items()
        kwargs = {**kwargs, "state_dict": {n: t for n, t in state if not n.startswith(places)}}
    with set_aside(model):
        result = save(*args, **kwargs)
    folder = Path(args[0] if args else kwargs["save_directory"])
    if (folder / "config.json").is_file():
        record = remembered(model, "activations")
        write_activations(model, folder, None if record is None else record.to_json())
    return result


def _made(held: TensorFile, site: dict[str, Any]) -> tuple[str, str, int, Selection]:
    """Return the selection that a file describes, with its layer, side and channels."""
    kind = Selection.named(site["selection"])
    name, side, channels = str(site["layer"]), str(site["side"]), int(site["channels"])
    places = {leaf: f"{name}.sparse_{side}.{leaf}" for leaf in kind.held}
    if missing := set(places.values()) - set(held.names):
        raise ValueError(f"there is no tensor {min(missing)!r}")
    tensors = {leaf: held.read(place) for leaf, place in places.items()}
    if any(t.dim() == 1 and len(t) != channels for t in tensors.values()):
        raise ValueError(f"the thresholds of {name!r} are not {channels}")
    return name, side, channels, kind.of(tensors, site["settings"])


def _own_name(model: nn.Module, name: str) -> str:
    """Return what a model calls a layer: a body is loaded alone, or with another head."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    known = {path for path, _ in model.named_modules()}
    return next((n for n in (name, name.removeprefix(prefix), prefix + name) if n in known), name)


def _check_fits(model: nn.Module, name: str, side: str, channels: int, file: Path) -> None:
    """Raise unless a model has a layer of a name and of so many channels."""
    if _channels(model, name, side) != channels:
        raise CheckpointError(
            f"{str(file)!r} holds thresholds of another model: this {type(model).__name__} has no "
            f"layer {name!r} of {channels} {side}; {_REMEDY}"
        )


def _channels(model: nn.Module, name: str, side: str) -> int | None:
    """Return the channels of a layer's side, or the blocks of a stage, None if there is none."""
    try:
        module = model.get_submodule(name)
        return len(blocks_of(module)) or Site(Layer(name, module), side, ()).channels
    except (AttributeError, LayerError):
        return None
