"""What ``model.save_pretrained`` writes for a model with packed layers."""

from __future__ import annotations

__all__ = ["save_packed"]

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.errors import OptionError
from ...core.files import write_text
from ..packed.layer import PackedLayer
from .checkpoint import SHARDS, plain_config
from .stored import describe_layouts
from .writer import config_entries, write_index


def save_packed(save: Callable[..., Any], model: nn.Module, args: tuple, kwargs: dict) -> Any:
    """Save a model, as a sparse folder if it has packed layers; a wrapper for wrapt.

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
        If a packed model is to be pushed to the hub in the same call.
    """
    layouts = describe_layouts(model)
    if not layouts:
        return save(*args, **kwargs)
    if kwargs.get("push_to_hub"):
        raise OptionError(
            "a packed model is not pushed while it is saved; save it, then upload the folder "
            "with huggingface_hub.upload_folder"
        )
    names = _stored_names(model)
    result = save(*args, **kwargs, **({} if names else {"save_original_format": False}))
    folder = Path(args[0] if args else kwargs["save_directory"])
    if (folder / "config.json").is_file():
        entries = [
            {**each, "weights": [(names or {}).get(n, n) for n in each["weights"]]}
            for each in layouts
        ]
        _hide(folder, {"packed": True, "layouts": entries})
    return result


def _hide(folder: Path, quantization: dict[str, Any]) -> None:
    """Give the weights names under which only Thresher finds them, and write their index."""
    config = plain_config(folder) | config_entries(quantization)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    for earlier in folder.glob(SHARDS):
        earlier.unlink()
    shards = sorted(folder.glob("model*.safetensors"))
    renamed = [folder / SHARDS.replace("*", f"{i:05d}") for i in range(len(shards))]
    for shard, path in zip(shards, renamed, strict=True):
        shard.rename(path)
    for index in folder.glob("model*.safetensors.index.json"):
        index.unlink()
    write_index(folder, renamed)


def _stored_names(model: nn.Module) -> dict[str, str] | None:
    """Return the names that transformers stores packed weights under, None if it cannot.

    It renames, merges and splits tensors as it saves them, and knows nothing of packed ones:
    their tensors must be renamed just as their dense weights would be, and none be merged.
    """
    state = {name: torch.empty_like(t, device="meta") for name, t in model.state_dict().items()}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, PackedLayer)}
    parts: dict[str, list[str]] = {}
    others = dict(state)
    for path, layer in layers.items():
        weight = f"{path}.weight"
        parts[weight] = [f"{weight}_{name}" for name in ("shape", *layer.layout.tensors())]
        for part in parts[weight]:
            del others[part]
        others[weight] = torch.empty(layer.weight_shape, device="meta")
    dense, packed = _saved_as(model, others), _saved_as(model, state)
    names: dict[str, str] = {}
    for weight, found in parts.items():
        stored = dense.get(weight)
        if stored is None:
            return None
        for part in found:
            if packed.get(part) != stored + part.removeprefix(weight):
                return None
        names[weight] = stored
    return names


def _saved_as(model: Any, outlines: dict[str, torch.Tensor]) -> dict[str, str]:
    """Return what transformers renames tensors to on saving; those that it converts are left out.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    outlines : dict of str to Tensor
        Without data, by name in the model.
    """
    from transformers.core_model_loading import revert_weight_conversion

    name_of = {id(outline): name for name, outline in outlines.items()}
    try:
        found = revert_weight_conversion(model, dict(outlines))
    except Exception:
        # A conversion that cannot do without what is packed: nothing is known of any name.
        return {}
    return {name_of[id(t)]: stored for stored, t in found.items() if id(t) in name_of}
