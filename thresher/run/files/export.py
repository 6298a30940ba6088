"""Writing a sparse checkpoint as an ordinary dense one, and a pruned model as a sparse one."""

from __future__ import annotations

__all__ = ["export", "save"]

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.errors import OptionError
from ...core.files import write_text
from ...parts.coverage import find_layers
from .checkpoint import RECORD_FILE, Checkpoint, CheckpointWriter, copy_companions, save_tensors
from .stored import describe_layouts


def export(source: str | Path, out: str | Path) -> None:
    """Write an ordinary dense Hugging Face folder, which loads without Thresher.

    Parameters
    ----------
    source : str or Path
        A sparse checkpoint.
    out : str or Path
        Folder to write; it appears only when it is complete.

    Raises
    ------
    OptionError
        If `out` exists.
    CheckpointError
        If `source` cannot be read.
    """
    source, out = Path(source), Path(out)
    work = _start(out)
    try:
        checkpoint = Checkpoint(source)
        files: dict[Path, list[str]] = {}
        for name in checkpoint:
            files.setdefault(checkpoint.file_of(name), []).append(name)
        weight_map: dict[str, str] = {}
        for number, names in enumerate(files.values()):
            shard = f"model-{number:05d}.safetensors"
            save_tensors({name: checkpoint.tensor(name) for name in names}, work / shard)
            weight_map |= dict.fromkeys(names, shard)
        copy_companions(source, work)
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        config.pop("quantization_config", None)
        total = sum(file.stat().st_size for file in work.glob("*.safetensors"))
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_text(work / "config.json", json.dumps(config, indent=2) + "\n")
        write_text(work / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    os.replace(work, out)


def save(model: nn.Module, out: str | Path, record: Any = None, tokenizer: Any = None) -> None:
    """Write a transformers model that was pruned in memory as a sparse checkpoint.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Zeros of its prunable layers are taken for removed weights. A packed model keeps the
        layouts that it has.
    out : str or Path
        Folder to write; it appears only when it is complete.
    record : PruneRecord, optional
        What :func:`thresher.prune` returned; kept beside the weights for the report.
    tokenizer : optional
        Saved beside the model.

    Raises
    ------
    OptionError
        If `out` exists.
    """
    out = Path(out)
    work = _start(out)
    dense = out.with_name(out.name + ".dense")
    try:
        packed = bool(describe_layouts(model))
        folder = work if packed else dense
        model.save_pretrained(folder)  # type: ignore[operator]
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        text = record.to_json() if record is not None else "{}\n"
        if packed:
            write_text(work / RECORD_FILE, text)
        else:
            _pack_zeros(model, dense, work, record, text)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(dense, ignore_errors=True)
    os.replace(work, out)


def _pack_zeros(model: nn.Module, dense: Path, work: Path, record: Any, text: str) -> None:
    """Write the dense folder again with its pruned weights packed."""
    pattern = getattr(record, "pattern", "")
    group = int(pattern.partition(":")[2]) if ":" in pattern else None
    writer = CheckpointWriter(work, dense, group)
    checkpoint = Checkpoint(dense)
    pruned = _pruned_names(model, checkpoint)
    tensors: dict[str, torch.Tensor] = {name: checkpoint.tensor(name) for name in checkpoint}
    writer.add(0, tensors, {name: tensors[name] != 0 for name in pruned})
    writer.finish(text)


def _pruned_names(model: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Return stored names of layers sparse enough that packing saves room."""
    base = getattr(model, "base_model_prefix", "")
    names = []
    for layer in find_layers(model):
        full = f"{layer.name}.weight"
        stored = next((n for n in (full, full.removeprefix(f"{base}.")) if n in checkpoint), None)
        if stored is not None and float((layer.weight == 0).float().mean()) > 1 / 16:
            names.append(stored)
    return names


def _start(out: Path) -> Path:
    if out.exists():
        raise OptionError(f"output folder {str(out)!r} exists; choose another")
    work = out.with_name(out.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work
