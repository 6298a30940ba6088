"""Folders of the engine's own: matrices as the kernels read them, memory-mapped.

``engine.json`` has the numbers and what each matrix is, ``engine.safetensors`` the arrays.
"""

from __future__ import annotations

__all__ = ["STORE_FILE", "read_store", "write_store"]

import json
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ...core.errors import CheckpointError, OptionError
from ...core.files import read_json, write_text
from ...core.output import writing
from ..files.writer import save_tensors
from .formats import PanelData
from .model import LayerData, ModelData

STORE_FILE, _ARRAYS = "engine.json", "engine.safetensors"
_FORMAT = "thresher-engine"
#: Versions of folders without thresholds, of those where some matrices have them, and of those of
#: models that do more than Llama's, with thresholds or without: 3 of those that did when there were
#: fewer of them.
_WHOLE, _DROPPING, _FEWER, _MORE = 1, 2, 3, 4
_VERSIONS = (_WHOLE, _DROPPING, _FEWER, _MORE)
_REMEDY = "write the folder again with `thresher pack`"

_Arrays = dict[str, NDArray[Any]]


def write_store(
    data: ModelData, context: int, ends: Iterable[int], tokenizer: Any, out: str | Path
) -> None:
    """Write a model as a folder to start an engine from at once.

    See :class:`~thresher.run.engine.engine.Engine`.

    Parameters
    ----------
    data : ModelData
    context : int
        Tokens that fit.
    ends : iterable of int
        Tokens that end a text.
    tokenizer : PreTrainedTokenizerBase or None
        Saved beside it.
    out : str or Path
        Folder to write; it appears only when it is complete.

    Raises
    ------
    OptionError
        If `out` exists.
    CheckpointError
        If it cannot be written.
    """
    arrays: _Arrays = {}
    model = _told(data, "", arrays)
    dropping = any(name.endswith(".thresholds") for name in arrays)
    version = _MORE if _does_more(data) else _DROPPING if dropping else _WHOLE
    head = {"format": _FORMAT, "version": version}
    text = json.dumps(head | {"context": context, "ends": sorted(ends), "model": model}, indent=1)
    with writing(Path(out), "engine") as output:
        output.check_free()
        output.restart()
        output.made.mkdir()
        if tokenizer is not None:
            tokenizer.save_pretrained(output.made)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        save_tensors(tensors, output.made / _ARRAYS)
        write_text(output.made / STORE_FILE, text + "\n")
        output.publish()


def _does_more(data: ModelData | LayerData) -> bool:
    """Return whether a part has anything that readers of earlier versions would pass over."""
    optional = [field for field in fields(data) if field.default is not MISSING]
    held = [(getattr(data, field.name), field.default) for field in optional]
    arrays = (np.ndarray, PanelData)
    changed = any(isinstance(value, arrays) or value != default for value, default in held)
    return changed or any(map(_does_more, getattr(data, "layers", ())))


def _told(data: Any, place: str, arrays: _Arrays) -> dict[str, Any]:
    """Return what JSON can say of a part, and collect its arrays by their places."""
    told: dict[str, Any] = {}
    for name, value in vars(data).items():
        here = f"{place}{name}"
        if isinstance(value, np.ndarray):
            arrays[here] = value
        elif isinstance(value, PanelData):
            told[name] = _told(value, f"{here}.", arrays)
        elif isinstance(value, list):
            told[name] = [_told(part, f"{here}.{i}.", arrays) for i, part in enumerate(value)]
        elif value is not None:
            told[name] = value
    return told


def read_store(folder: Path, bits: int | None) -> tuple[ModelData, int, frozenset[int]]:
    """Return a model whose arrays are in the folder's file, its context and what ends its texts.

    Parameters
    ----------
    folder : Path
    bits : {8, 4} or None
        Must be None: matrices are as they were written.

    Raises
    ------
    CheckpointError
        If the folder is damaged, or of another version.
    OptionError
        If `bits` is given.
    """
    if bits is not None:
        raise OptionError(
            f"{str(folder)!r} is packed already, and bits is {bits}; pack the model that it was "
            "made from again, or leave bits out"
        )
    said = read_json(folder / STORE_FILE, _REMEDY)
    if said.get("format") != _FORMAT or said.get("version") not in _VERSIONS:
        raise CheckpointError(
            f"{str(folder / STORE_FILE)!r} is of the format {said.get('format')!r}, version "
            f"{said.get('version')!r}; this Thresher reads {_FORMAT!r}, versions {_WHOLE} to "
            f"{_MORE}"
        )
    try:
        with safe_open(folder / _ARRAYS, framework="pt") as file:
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
        data = _model(said["model"], arrays)
        data.build()  # which checks that sizes agree
        return data, int(said["context"]), frozenset(int(end) for end in said["ends"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{str(folder)!r} is damaged: {reason}; {_REMEDY}") from error


def _model(said: dict[str, Any], arrays: _Arrays) -> ModelData:
    layers = [_layer(layer, f"layers.{i}.", arrays) for i, layer in enumerate(said["layers"])]
    numbers = ("heads", "kv_heads", "head_dim", "intermediate", "epsilon", "rotary_scale")
    scales = ("embedding_scale", "score_scale", "score_cap", "logit_cap")
    optional = ("activation", "gated", "centred", *scales)
    return ModelData(
        embedding=_panels(said["embedding"], "embedding.", arrays),
        head=_panels(said["head"], "head.", arrays) if "head" in said else None,
        final_norm=arrays["final_norm"],
        layers=layers,
        positions=_panels(said["positions"], "positions.", arrays) if "positions" in said else None,
        frequencies=arrays["frequencies"],
        **{name: said[name] for name in numbers},
        **{name: said[name] for name in optional if name in said},
    )


def _layer(said: dict[str, Any], place: str, arrays: _Arrays) -> LayerData:
    return LayerData(
        qkv=_parts(said["qkv"], f"{place}qkv.", arrays),
        out=_panels(said["out"], f"{place}out.", arrays),
        gate_up=_parts(said["gate_up"], f"{place}gate_up.", arrays),
        down=_panels(said["down"], f"{place}down.", arrays),
        attention_norm=arrays[f"{place}attention_norm"],
        mlp_norm=arrays[f"{place}mlp_norm"],
        query_norm=arrays.get(f"{place}query_norm"),
        key_norm=arrays.get(f"{place}key_norm"),
        rotary=said["rotary"],
        window=said["window"],
        attention_after=arrays.get(f"{place}attention_after"),
        mlp_after=arrays.get(f"{place}mlp_after"),
        turning=said.get("turning", 0),
    )


def _parts(said: Any, place: str, arrays: _Arrays) -> PanelData | list[PanelData]:
    if isinstance(said, list):
        return [_panels(part, f"{place}{i}.", arrays) for i, part in enumerate(said)]
    return _panels(said, place, arrays)


def _panels(said: dict[str, Any], place: str, arrays: _Arrays) -> PanelData:
    return PanelData(
        codes=arrays[f"{place}codes"],
        scales=arrays.get(f"{place}scales"),
        minimums=arrays.get(f"{place}minimums"),
        bias=arrays.get(f"{place}bias"),
        thresholds=arrays.get(f"{place}thresholds"),
        **{name: said[name] for name in ("form", "unit", "rows", "columns")},
    )
