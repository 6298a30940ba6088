"""Modules that became smaller: their weights as a file, and a dense module cut to fit it."""

from __future__ import annotations

__all__ = ["rebuild", "save_shrunk"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ...core.errors import CheckpointError
from ...core.files import read_json, write_text
from ...core.output import writing
from ...parts.groups.shrink import apply, fit
from ...parts.groups.sizes import from_data, place
from ..measure.modes import evaluating
from .companions import RECORD_FILE

_WEIGHTS = "model.safetensors"


def save_shrunk(module: nn.Module, out: Path, record: Any) -> None:
    """Write a module's weights, and a record of what was removed of it.

    Parameters
    ----------
    module : nn.Module
        What :func:`thresher.prune` returned.
    out : Path
        Folder to write; it appears only when it is complete.
    record : PruneRecord
        Of the module.

    Raises
    ------
    OptionError
        If `out` exists.
    """
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in module.state_dict().items():
        # What modules share is read for each of them, and is written once for each.
        stored[name] = tensor.detach().cpu().contiguous().clone()
    with writing(out, "save") as output:
        output.check_free()
        output.restart()
        output.made.mkdir(parents=True, exist_ok=True)
        save_file(stored, output.made / _WEIGHTS)
        write_text(output.made / RECORD_FILE, record.to_json())
        output.publish()


def rebuild(module: nn.Module, folder: str | Path) -> nn.Module:
    """Make a dense module what a smaller one was that had been saved, in place.

    Parameters
    ----------
    module : nn.Module
        Built as it was before it was pruned; its weights do not matter.
    folder : str or Path
        What :func:`~thresher.run.files.export.save` wrote.

    Returns
    -------
    nn.Module
        The module, with the weights and the sizes of the smaller one.

    Raises
    ------
    CheckpointError
        If the folder is no such one, or of another module.
    """
    folder = Path(folder)
    structure = _structure(folder)
    settings = from_data(structure["settings"])
    try:
        stored = load_file(folder / _WEIGHTS)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights in {str(folder)!r} cannot be read ({error}); save the model again"
        ) from error
    held = module.state_dict()
    if set(held) != set(stored):
        # A bias may have come to layers that had none.
        extra = sorted(set(stored) - set(held))
        if set(held) - set(stored) or not all(name.endswith(".bias") for name in extra):
            name = sorted(set(held) ^ set(stored))[0]
            raise CheckpointError(
                f"{str(folder)!r} is of another module than this {type(module).__name__}: only one "
                f"of them has {name!r}; build the module as it was before it was pruned"
            )
    if isinstance(cut := structure.get("cut"), dict):
        _check_shapes(folder, module, stored, cut)
    shared: dict[int, Any] = {}
    for name, tensor in stored.items():
        owner, _, leaf = name.rpartition(".")
        place(module.get_submodule(owner), leaf, tensor, shared)
    apply(module, settings)
    # A weight that is computed, such as one of spectral norm, changes buffers where it is trained.
    with evaluating(module):
        fit(module)
    return module


def _check_shapes(
    folder: Path, module: nn.Module, stored: Mapping[str, torch.Tensor], cut: Mapping[str, Any]
) -> None:
    """Raise unless a module has the shapes of the one that was made smaller."""
    for name, held in module.state_dict().items():
        before = cut.get(name, list(stored[name].shape))
        if list(held.shape) != before:
            raise CheckpointError(
                f"{str(folder)!r} is of another module than this {type(module).__name__}, whose "
                f"{name!r} is of shape {tuple(held.shape)}: before it was pruned, it was {before}"
            )


def _structure(folder: Path) -> dict[str, Any]:
    file = folder / RECORD_FILE
    remedy = "save the model again"
    structure = read_json(file, remedy).get("structure") if file.is_file() else None
    if not structure:
        raise CheckpointError(f"{str(folder)!r} holds no smaller model; {remedy}")
    found: dict[str, Any] = structure
    return found
