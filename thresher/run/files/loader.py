"""Teaches transformers' ``from_pretrained`` to read sparse checkpoints."""

from __future__ import annotations

__all__ = ["ThresherConfig", "ThresherQuantizer"]

from collections.abc import Container, Sequence
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import QuantizationConfigMixin

from ...core.errors import CheckpointError
from ..layouts import formats
from ..layouts.convolution import Geometry
from ..layouts.convolving import ConvolvingLayout
from ..packed.conv import PackedConv2d
from ..packed.layer import PackedLayer
from ..packed.linear import PackedLinear
from .checkpoint import check_version
from .stored import StoredWeights


@register_quantization_config("thresher")
class ThresherConfig(QuantizationConfigMixin):
    """The ``quantization_config`` of a sparse checkpoint.

    Parameters
    ----------
    format_version : int
        Version of the packed format.
    group : int, optional
        M, when supports are N:M.
    packed : bool, default False
        Whether linear layers are loaded as
        :class:`~thresher.run.packed.linear.PackedLinear`, in the layout that they are stored
        in, or as ordinary dense ones.
    layouts : list of dict, optional
        How weights are stored, see :func:`thresher.run.files.stored.describe_layouts`.
    """

    def __init__(
        self,
        format_version: int = formats.FORMAT_VERSION,
        group: int | None = None,
        packed: bool = False,
        layouts: list[dict[str, Any]] | None = None,
        **_: Any,
    ) -> None:
        self.quant_method = "thresher"  # type: ignore[assignment]
        self.format_version = format_version
        self.group = group
        self.packed = packed
        self.layouts = layouts

    @property
    def dequantize(self) -> bool:
        """Whether the loader builds an ordinary model, which is dense when it is saved again."""
        return not self.packed

    def to_dict(self) -> dict[str, Any]:
        """Return what a configuration file keeps."""
        return {key: value for key, value in vars(self).items() if value not in (None, False)}


@register_quantizer("thresher")
class ThresherQuantizer(HfQuantizer):
    """Loads packed weights, into packed layers or into the model's ordinary ones."""

    quantization_config: ThresherConfig
    requires_calibration = True
    is_trainable = True

    def __init__(self, quantization_config: ThresherConfig, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        check_version(vars(quantization_config), "this checkpoint")
        self.stored = StoredWeights(quantization_config.group, quantization_config.layouts)
        self.serialized_names = {"weight": ["weight" + s for s in self.stored.suffixes]}
        self._waiting: list[str] = []
        self._unpacked: list[str] = []

    def get_load_operations(self) -> dict[str, Any]:
        """Return the operation that unpacks one weight, when all of them are unpacked."""
        return {"dequantize": _Unpack}

    def get_weight_conversions(self) -> list[WeightConverter]:
        """Return the unpacking of any weight, or of those that cannot stay packed."""
        if not self.quantization_config.packed:
            return super().get_weight_conversions()
        return [
            WeightConverter([name + s for s in self.stored.suffixes], name, [_Unpack(self)])
            for name in self._unpacked
        ]

    def is_serializable(self) -> bool:
        """Return True: an ordinary model is saved dense, a packed one packed."""
        return True

    def _process_model_before_weight_loading(
        self,
        model: Any,
        checkpoint_files: Sequence[str] | None = None,
        **_: Any,
    ) -> Any:
        """Put a place-holder for every layer that stays packed, with the tensors of the file."""
        if not self.quantization_config.packed:
            return model
        held, known = _mapped(checkpoint_files or ()), model.state_dict().keys()
        for name in [name for name in held if name.endswith("_shape")]:
            weight = name.removesuffix("_shape")
            parts = self.stored.parts_of(weight, held)
            found = _parameter_of(weight, known, model.base_model_prefix) or ""
            path, _dot, leaf = found.rpartition(".")
            if not leaf or len(parts) < 2:
                continue
            layer = model.get_submodule(path)
            if leaf != "weight" or not self._stays_packed(layer, weight):
                self._unpacked.append(weight)
                continue
            buffers = {part.removeprefix(weight): held[part] for part in parts}
            model.set_submodule(path, _Waiting(layer, buffers))
            model.all_tied_weights_keys.pop(f"{path}.weight", None)
            self._waiting.append(path)
        return model

    def _stays_packed(self, layer: nn.Module, weight: str) -> bool:
        """Return whether a layer has a packed form for the layout that its weight is stored in."""
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
            layout = self.stored.layout_of(weight)
            if layout is None or not issubclass(layout, ConvolvingLayout):
                return False
            return layer.groups == 1 or layout.takes_groups
        return type(layer) is nn.Linear

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        """Bind the tensors that the loader mapped, checking them."""
        for path in self._waiting:
            packed = model.get_submodule(path).bind(self.stored, f"{path}.weight")
            model.set_submodule(path, packed)
        # The loader would undo its conversions on saving; what was unpacked stays so.
        used = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [
            c for c in used if not any(isinstance(o, _Unpack) for o in getattr(c, "operations", ()))
        ]
        return model


class _Waiting(nn.Module):
    """A layer between the building of the model and the reading of its tensors."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, buffers: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.shape = tuple(layer.weight.shape)
        self.geometry = Geometry.of(layer) if isinstance(layer, nn.Conv2d) else None
        self.bias = layer.bias
        for suffix, stored in buffers.items():
            # The loader casts to the types that it finds here.
            dtype = layer.weight.dtype if stored.is_floating_point() else stored.dtype
            self.register_buffer(
                f"weight{suffix}", torch.empty_like(stored, dtype=dtype, device="meta")
            )

    def bind(self, stored: StoredWeights, name: str) -> PackedLayer:
        """Return the packed layer."""
        parts = {key.removeprefix("weight"): buffer for key, buffer in self.named_buffers()}
        layout = stored.matrix(name, parts)
        shape = tuple(parts["_shape"].tolist())
        if shape != self.shape:
            raise _wrong_shape(name, shape, self.shape)
        if self.geometry is None:
            return PackedLinear(layout, self.bias)
        assert isinstance(layout, ConvolvingLayout)
        return PackedConv2d(layout, self.geometry, self.bias)


def _mapped(files: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return every tensor of the files as they are mapped; nothing is read yet."""
    held: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as handle:
            held |= {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    return held


def _parameter_of(name: str, known: Container[str], base: str) -> str | None:
    """Return the model's name of a stored weight, which may have or lack the base's prefix."""
    for path in (name, name.removeprefix(f"{base}."), f"{base}.{name}"):
        if path in known:
            return path
    return None


def _wrong_shape(name: str, found: Sequence[int], expected: Sequence[int]) -> CheckpointError:
    return CheckpointError(
        f"{name!r} has shape {tuple(found)} in the file, and the model expects {tuple(expected)}"
    )


class _Unpack(ConversionOps):
    def __init__(self, hf_quantizer: ThresherQuantizer) -> None:
        self.hf_quantizer = hf_quantizer

    def convert(  # type: ignore[override]
        self,
        input_dict: dict[str, Any],
        model: nn.Module,
        full_layer_name: str,
        **_: Any,
    ) -> dict[str, torch.Tensor]:
        parts = {}
        for key, value in input_dict.items():
            tensor = value[0] if isinstance(value, list) else value
            parts[key.rpartition(".")[2].removeprefix("weight")] = tensor
        module, leaf = get_module_from_name(model, full_layer_name)
        expected = getattr(module, leaf)
        weight, _mask = self.hf_quantizer.stored.dense(full_layer_name, parts)
        if weight.shape != expected.shape:
            raise _wrong_shape(full_layer_name, weight.shape, expected.shape)
        return {full_layer_name: weight.to(expected.dtype)}
