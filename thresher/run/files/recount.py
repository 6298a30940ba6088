"""How many weights are not zero, in a model and in a folder: what a record can be held against."""

from __future__ import annotations

__all__ = ["describe", "kept_in_folder", "kept_in_model"]

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from ...core.errors import CheckpointError
from ..packed.layer import PackedLayer
from .checkpoint import Checkpoint


def kept_in_model(model: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Return how many weights of each layer are not zero.

    Parameters
    ----------
    model : nn.Module
        Any module; weights may be packed.
    names : iterable of str
        Of layers with a ``weight``, or of parameters.

    Returns
    -------
    dict of str to int
        By name; what the model does not have, or holds rounded in another format, is left out.
    """
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    found = {}
    for name in names:
        module = modules.get(name)
        if isinstance(module, PackedLayer):
            if module.layout.exact:
                found[name] = int(torch.count_nonzero(module.layout.to_dense()))
            continue
        weight = parameters.get(f"{name}.weight", parameters.get(name))
        if weight is None and module is not None:
            # The weight of a parametrised layer is computed.
            weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and not weight.is_meta:
            found[name] = int(torch.count_nonzero(weight))
    return found


def kept_in_folder(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Return how many weights of each layer the files of a folder keep.

    Parameters
    ----------
    folder : Path
        A model folder. Only weights that are stored dense are read; packed ones say it by their
        size.
    names : iterable of str
        Of layers with a ``weight``, or of parameters, as the model has them.

    Returns
    -------
    dict of str to int
        By name; what the folder does not have is left out.
    """
    checkpoint = Checkpoint(folder)
    found, left = {}, []
    with checkpoint.opened():
        for name in names:
            stored = next((n for n in (f"{name}.weight", name) if n in checkpoint), None)
            if stored is None:
                left.append(name)
            else:
                found[name] = checkpoint.kept(stored)
    return found | (_under_other_names(folder, left) if left else {})


def describe(folder: Path) -> str:
    """Return a sentence on what the files of a folder hold: weights, density and bytes."""
    checkpoint = Checkpoint(folder)
    packed = kept = whole = stored = dense = 0
    with checkpoint.opened():
        for name in checkpoint:
            stored += checkpoint.stored_bytes(name)
            dense += checkpoint.dense_bytes(name)
            if checkpoint.is_packed(name):
                packed += 1
                kept += checkpoint.kept(name)
                whole += checkpoint.outline(name).numel()
    if not packed:
        return f"Its files hold {len(checkpoint.names)} weights, none of them packed."
    return (
        f"Its files hold {len(checkpoint.names)} weights, {packed} of them packed at density "
        f"{kept / max(1, whole):.3f}: {stored / 1e6:,.1f} MB for {dense / 1e6:,.1f} MB dense."
    )


def _under_other_names(folder: Path, names: list[str]) -> dict[str, int]:
    """Count weights that the folder stores under other names than the model's, or in parts."""
    from ..skeleton import Skeleton

    try:
        skeleton = Skeleton(folder)
    except CheckpointError:
        return {}
    found = {}
    with skeleton.checkpoint.opened():
        for name in names:
            groups = skeleton.names.groups
            parameter = next((n for n in (f"{name}.weight", name) if n in groups), None)
            if parameter is None:
                continue
            group = groups[parameter]
            if group.parameters == (parameter,):
                found[name] = sum(skeleton.checkpoint.kept(stored) for stored in group.stored)
            else:
                whole = {stored: skeleton.checkpoint.tensor(stored) for stored in group.stored}
                tensor = skeleton.names.forward(group, whole)[parameter]
                found[name] = int(torch.count_nonzero(tensor))
    return found
