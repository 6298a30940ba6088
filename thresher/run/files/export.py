"""Writing a sparse checkpoint as an ordinary dense one, and a pruned model as a sparse one."""

from __future__ import annotations

__all__ = ["check_savable", "export", "is_pruned", "save", "tokenizer_of", "write_dense"]

import copy
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.compiled import uncompiled
from ...core.errors import CheckpointError
from ...core.files import write_text
from ...core.output import writing
from ...core.records import CARD_BEGINS
from ...core.remembered import remembered
from ...parts.activations.attached import attached
from .checkpoint import Checkpoint, plain_config
from .companions import RECORD_FILE, copy_companions
from .index import DENSE_INDEX
from .recount import kept_in_model
from .shrunk import save_shrunk
from .stored import describe_layouts
from .streamed import stream_tensors
from .tokenizers import read_tokenizer
from .writer import CheckpointWriter, write_index

#: A bitmask takes this share of the bytes of 16-bit weights; fewer zeros do not pay.
_LEAST_ZEROS = 1 / 16
_SHARD_BYTES = 2 << 30
#: What the hub's library takes by default; written down, as that may change.
_DENSE_SHARD_BYTES = 5_000_000_000


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
        If `source` cannot be read, or lacks weights of its model.
    """
    from ..skeleton import check_complete

    source, out = Path(source), Path(out)
    checkpoint = Checkpoint(source)
    check_complete(source)
    with writing(out, "export") as output:
        output.check_free()
        output.restart()
        write_dense(checkpoint, output.made)
        output.publish()


def write_dense(checkpoint: Checkpoint, folder: Path) -> None:
    """Write an ordinary dense folder, see :func:`export`; an unfinished one may be there."""
    folder.mkdir(exist_ok=True)
    files = _dense_files(checkpoint)
    for file, names in files.items():
        with checkpoint.opened():
            outlines = {name: checkpoint.outline(name) for name in names}
            stream_tensors(folder / file, outlines, checkpoint.tensor)
    copy_companions(checkpoint.folder, folder)
    _say_dense(folder)
    text = json.dumps(plain_config(checkpoint.folder), indent=2) + "\n"
    write_text(folder / "config.json", text)
    if len(files) > 1:
        write_index(folder, (folder / file for file in files), DENSE_INDEX)


def _say_dense(folder: Path) -> None:
    """Have the card of a sparse folder, which says how it loads and its size, say so no more."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if CARD_BEGINS not in text:
        return
    _, fence, rest = text.partition("---\n")
    known, closed, _ = rest.partition("\n---\n")
    front = f"{fence}{known}{closed}\n" if closed else ""
    said = (
        "Weights of a model that was pruned with Thresher, stored dense: transformers loads them."
    )
    write_text(card, f"{front}{said}\n")


def _dense_files(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return the weights of each file of a dense folder, named and parted as the hub has it."""
    from huggingface_hub import split_state_dict_into_shards_factory

    with checkpoint.opened():
        sizes = {name: checkpoint.dense_bytes(name) for name in checkpoint}
    found = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=_DENSE_SHARD_BYTES,
    )
    return found.filename_to_tensors


def check_savable(model: nn.Module) -> None:
    """Raise unless :func:`save` can write a model, so that no work is done in vain.

    Parameters
    ----------
    model : nn.Module
        A model that is to be saved.

    Raises
    ------
    CheckpointError
        If it is no transformers model, has no data, is quantised by another library, carries
        adapters, or has a configuration that transformers refuses to write.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise CheckpointError(
            f"a {type(model).__name__} is no transformers model, so no folder could be loaded as "
            "one; keep its weights with safetensors.torch.save_model(model, FILE), and save the "
            "model under a wrapper such as peft's after merging it (merge_and_unload)"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise CheckpointError(
            f"{type(model).__name__} carries adapters, and transformers would save these alone; "
            "merge or delete them first"
        )
    quantization = getattr(model.config, "quantization_config", None)
    if quantization is not None and _method(quantization) != "thresher":
        raise CheckpointError(
            f"the weights of {type(model).__name__} are quantised ({_method(quantization)}); "
            "dequantise the model before it is pruned and saved"
        )
    if not hasattr(model, "hf_device_map") and any(p.is_meta for p in model.parameters()):
        raise CheckpointError(
            f"parameters of {type(model).__name__} are on the meta device and have no data; load "
            "the model before it is saved"
        )
    _check_configurations(model)


def _check_configurations(model: Any) -> None:
    """Write the model's configurations to a place that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config", "generation_config"):
            held = getattr(model, name, None)
            if held is None or (name == "generation_config" and not model.can_generate()):
                continue
            try:
                copy.deepcopy(held).save_pretrained(folder)
            except Exception as error:
                raise CheckpointError(
                    f"transformers refuses to write model.{name}: {error}; repair model.{name} "
                    "before the model is saved"
                ) from error


def _method(quantization: Any) -> str:
    """Return the name of a quantisation from its configuration, a dict or an object."""
    if not isinstance(quantization, dict):
        quantization = quantization.to_dict()
    method = quantization.get("quant_method", "method not named")
    return str(getattr(method, "value", method))


def save(model: nn.Module, out: str | Path, record: Any = None, tokenizer: Any = None) -> None:
    """Write a transformers model that was pruned in memory as a sparse checkpoint.

    Of any other module that :func:`thresher.prune` made smaller, weights and sizes are written, for
    :func:`~thresher.run.files.shrunk.rebuild`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Zeros of its parameters are taken for removed weights where there are enough of them. A
        packed model keeps the layouts that it has.
    out : str or Path
        Folder to write; it appears only when it is complete.
    record : PruneRecord, optional
        What :func:`thresher.prune` returned, by default for this model; kept beside the weights
        for the report. Counts that are no longer those of the weights, after fine-tuning or a
        merge, are corrected with a warning.
    tokenizer : optional
        Saved beside the model; by default that of the folder or hub name which the model was
        loaded from, if there is one on this machine.

    Raises
    ------
    OptionError
        If `out` exists.
    CheckpointError
        If the model cannot be saved, see :func:`check_savable`.
    """
    out = Path(out)
    with uncompiled(model) as model:
        record = record or remembered(model)
        if getattr(record, "structure", None) and not hasattr(model, "save_pretrained"):
            save_shrunk(model, out, record)
            return
        check_savable(model)
        tokenizer = tokenizer or tokenizer_of(model)
        text = None if record is None else _corrected(record, model).to_json()
        with writing(out, "save") as output:
            output.check_free()
            output.restart()
            # What is smaller has no zeros to pack, and loads anywhere.
            smaller = bool(getattr(record, "structure", None))
            as_it_is = smaller or bool(describe_layouts(model)) or bool(attached(model))
            folder = output.made if as_it_is else output.work / "dense"
            model.save_pretrained(folder)  # type: ignore[operator]
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
            if not as_it_is:
                _pack_zeros(folder, output.made, text)
            elif text is not None:
                write_text(output.made / RECORD_FILE, text)
            output.publish()


def tokenizer_of(model: Any) -> Any:
    """Return the tokenizer beside the model's source on this machine, None where there is none.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Its ``name_or_path`` tells where it was loaded from.
    """
    if not getattr(model, "name_or_path", None):
        return None
    try:
        return read_tokenizer(model.name_or_path, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError):
        return None


def _corrected(record: Any, model: nn.Module) -> Any:
    """Return a record whose counts are those of the model's weights."""
    found = record.recounted(kept_in_model(model, [layer.name for layer in record.layers]))
    if found is not record:
        warnings.warn(
            f"the record says that {record.density:.1%} of the pruned weights were kept, and "
            f"{found.density:.1%} of them are not zero: the model was changed since (trained, or "
            "merged with an adapter); the record is saved with what is there",
            stacklevel=3,
        )
    return found


def _pack_zeros(dense: Path, work: Path, text: str | None) -> None:
    """Write the dense folder again with its pruned weights packed."""
    writer, checkpoint = CheckpointWriter(work, dense), Checkpoint(dense)
    for number, names in enumerate(_portions(checkpoint)):
        with checkpoint.opened():
            tensors = {name: checkpoint.tensor(name) for name in names}
        masks = {name: tensor != 0 for name, tensor in tensors.items() if is_pruned(tensor)}
        writer.add(number, tensors, masks)
    writer.finish(text)


def is_pruned(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a weight with so many zeros that packing saves room."""
    if tensor.dim() < 2 or not tensor.is_floating_point() or tensor.numel() == 0:
        return False
    return int(torch.count_nonzero(tensor)) < (1 - _LEAST_ZEROS) * tensor.numel()


def _portions(checkpoint: Checkpoint) -> Iterator[list[str]]:
    """Yield names of weights that are written together: of one file, and not too many bytes."""
    files: dict[Path, list[str]] = {}
    for name in checkpoint:
        files.setdefault(checkpoint.file_of(name), []).append(name)
    for names in files.values():
        portion: list[str] = []
        size = 0
        with checkpoint.opened():
            sizes = [checkpoint.dense_bytes(name) for name in names]
        for name, added in zip(names, sizes, strict=True):
            if portion and size + added > _SHARD_BYTES:
                yield portion
                portion, size = [], 0
            portion.append(name)
            size += added
        yield portion
