"""Models in ONNX, held against what they were made of."""

from __future__ import annotations

__all__ = ["check_installed", "export_onnx"]

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError, LayerError, OptionError
from ...core.extras import naming_the_extra
from ...core.files import write_text
from ...core.output import writing
from ...parts.activations.attached import check_none
from ..engine.architectures import FIXED_ROTARY
from ..measure.modes import evaluating
from ..packed.layer import PackedLayer
from .checkpoint import plain_config
from .export import tokenizer_of

_FILE = "model.onnx"
#: Largest difference from the model's own outputs, of the largest of these, in float32.
_TOLERANCE = 1e-4
#: Of the tokens that a language model is traced and tried on.
_LENGTHS = (7, 5)


def export_onnx(
    model: nn.Module, out: str | Path, example: Tensor | Sequence[Tensor] | None = None
) -> None:
    """Write a model, smaller or with zeros in dense weights, as a folder with ``model.onnx``.

    The file is then run by onnxruntime, on inputs of another batch size (and length) than it was
    made with, and what it gives is compared with what the model gives.

    Parameters
    ----------
    model : nn.Module
        In float32, on the CPU. Of a causal language model of transformers, the inputs are
        ``input_ids`` and ``attention_mask``, of any batch and length, and the output is ``logits``;
        configuration and, if it is known, tokenizer are written beside it.
    out : str or Path
        Folder to write; it appears only when it is complete. Weights of more than 2 GB lie in a
        second file.
    example : Tensor or sequence of Tensor, optional
        Inputs of any other model, whose first axis is the batch, which may then be of any size.

    Raises
    ------
    OptionError
        If `out` exists, or there is no example.
    LayerError
        If weights are packed, of another type or on another device, activations are dropped, or
        rotary positions depend on the length of a text.
    CheckpointError
        If PyTorch cannot write the model as ONNX, or onnxruntime gives anything else.
    MissingPackageError
        If a package of ``thresher[onnx]`` is not installed.
    """
    check_installed()
    import onnxruntime

    _check(model)
    language = example is None
    traced, tried = _tokens(model) if language else _batches(example)
    axes = _axes(traced, language)
    with writing(Path(out), "export") as output, evaluating(model), torch.no_grad(), _quiet():
        output.check_free()
        output.restart()
        output.made.mkdir(parents=True, exist_ok=True)
        file = output.made / _FILE
        runs = _Logits(model) if language else model
        _write(runs, traced, axes, file)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        _compare(session, runs, tried)
        if language:
            _write_companions(model, output.made)
        output.publish()


def check_installed() -> None:
    """Raise MissingPackageError unless the packages of ``thresher[onnx]`` are installed."""
    with naming_the_extra():
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401


class _Logits(nn.Module):
    """A language model as a function of two tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        logits: Tensor = found.logits
        return logits


def _check(model: nn.Module) -> None:
    packed = [name for name, m in model.named_modules() if isinstance(m, PackedLayer)]
    if packed:
        raise LayerError(
            f"layer {packed[0]!r} (and {len(packed) - 1} more) is packed, and ONNX has no such "
            "layers; load the folder with dense layers: "
            'config.quantization_config["packed"] = False, or `thresher export` it first'
        )
    check_none(model, "ONNX has no such layers; export the model without them")
    for name, held in model.named_parameters():
        if held.dtype != torch.float32 or held.device.type != "cpu":
            raise LayerError(
                f"{name!r} is {held.dtype} on {held.device}, and models are exported in float32 "
                "on the CPU, where onnxruntime has every operation; pass model.float().cpu()"
            )


def _tokens(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return inputs of a language model to trace it and to try it, of other sizes."""
    from transformers import PreTrainedModel

    known = isinstance(model, PreTrainedModel) and model.can_generate()
    if not isinstance(model, PreTrainedModel) or not known or model.config.is_encoder_decoder:
        raise OptionError(
            f"{type(model).__name__} is no causal language model of transformers, so that its "
            "inputs are not known; pass an example of them, export_onnx(model, out, example)"
        )
    _check_rotary(model.config.get_text_config())
    made = torch.Generator().manual_seed(0)
    size = model.config.get_text_config().vocab_size
    found = []
    for batch, length in zip((2, 3), _LENGTHS, strict=True):
        ids = torch.randint(size, (batch, length), generator=made)
        found.append([ids, torch.ones_like(ids)])
    return found[0], found[1]


def _check_rotary(config: Any) -> None:
    """Raise if positions are turned otherwise in long texts, which a short trace does not show."""
    held = getattr(config, "rope_parameters", None) or {}
    kinds = held.values() if all(isinstance(each, dict) for each in held.values()) else [held]
    for kind in kinds:
        if kind and kind.get("rope_type", "default") not in FIXED_ROTARY:
            raise LayerError(
                f"rotary positions of the type {kind['rope_type']!r} depend on how long a text is, "
                "and an ONNX file would keep those of short ones; run the model in torch"
            )


def _batches(example: Tensor | Sequence[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
    """Return inputs to trace a model on and to try it on, of other batch sizes."""
    given = [example] if isinstance(example, Tensor) else list(example or ())
    if not given or not all(isinstance(x, Tensor) and x.dim() and len(x) for x in given):
        raise OptionError("the example must be a tensor, or several, whose first axis is the batch")
    # A batch of one would be taken for a constant.
    traced = [x if len(x) > 1 else torch.cat([x, x]) for x in given]
    return traced, [torch.cat([x, x[:1]]).flip(0) for x in traced]


def _axes(traced: list[Tensor], language: bool) -> tuple[dict[int, Any], ...]:
    free = torch.export.Dim.DYNAMIC
    return tuple({0: free, 1: free} if language else {0: free} for _ in traced)


def _write(model: nn.Module, traced: list[Tensor], axes: Any, file: Path) -> None:
    from torch.onnx import OnnxExporterError

    names = ["input_ids", "attention_mask"] if isinstance(model, _Logits) else None
    try:
        torch.onnx.export(
            model,
            tuple(traced),
            str(file),
            dynamo=True,
            dynamic_shapes=axes,
            input_names=names,
            output_names=["logits"] if names else None,
            # One file where that is possible: the format's own messages end at 2 GB.
            external_data=sum(p.nbytes for p in model.parameters()) > 1_900_000_000,
            verbose=False,
        )
    except OnnxExporterError as error:
        raise CheckpointError(f"PyTorch cannot write this model as ONNX: {error}") from error


def _compare(session: Any, model: nn.Module, tried: list[Tensor]) -> None:
    """Raise unless the file gives what the model gives."""
    expected = model(*tried)
    names = [each.name for each in session.get_inputs()]
    try:
        found = session.run(None, {n: x.numpy() for n, x in zip(names, tried, strict=True)})
    except Exception as error:
        raise CheckpointError(
            f"onnxruntime does not run the model on a batch of {len(tried[0])}, after it was "
            f"traced on another ({type(error).__name__}: {error})"
        ) from error
    outputs = _outputs(expected)
    if len(outputs) != len(found) or not all(isinstance(output, Tensor) for output in outputs):
        raise CheckpointError(
            f"the model gives {len(outputs)} outputs that are not all single tensors, and in ONNX "
            f"{len(found)} tensors, which cannot be compared; export a module that gives tensors"
        )
    for output, values in zip(outputs, found, strict=True):
        other = torch.from_numpy(values)
        off = (other - output).abs().max() if other.shape == output.shape else torch.inf
        most = _TOLERANCE * output.abs().max()
        if not off <= most:
            raise CheckpointError(
                f"in onnxruntime the model gives something else: off by {float(off):.3g}, and "
                f"{float(most):.3g} is allowed; nothing was written"
            )


def _outputs(given: Any) -> list[Any]:
    if isinstance(given, Tensor):
        return [given]
    return list(given.values() if isinstance(given, Mapping) else given)


def _write_companions(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    write_text(folder / "config.json", json.dumps(plain_config(folder), indent=2) + "\n")
    tokenizer = tokenizer_of(model)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from saying which packages it could do without."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
