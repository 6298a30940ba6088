"""Teaches transformers' ``from_pretrained`` to read sparse checkpoints."""

from __future__ import annotations

__all__ = ["ThresherConfig", "ThresherQuantizer"]

from typing import Any

import torch
from torch import nn
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..core.errors import CheckpointError
from . import formats
from .checkpoint import check_version


@register_quantization_config("thresher")
class ThresherConfig(QuantizationConfigMixin):
    """The ``quantization_config`` of a sparse checkpoint.

    Parameters
    ----------
    format_version : int
        Version of the packed format.
    group : int, optional
        M, when supports are N:M.
    """

    def __init__(
        self, format_version: int = formats.FORMAT_VERSION, group: int | None = None, **_: Any
    ) -> None:
        self.quant_method = "thresher"  # type: ignore[assignment]
        self.format_version = format_version
        self.group = group
        # Tells the loader that the model it builds is an ordinary one: saved again, it is
        # a plain dense checkpoint.
        self.dequantize = True


@register_quantizer("thresher")
class ThresherQuantizer(HfQuantizer):
    """Loads packed weights into the model's ordinary layers."""

    quantization_config: ThresherConfig
    requires_calibration = True
    is_trainable = True
    serialized_names = {"weight": ["weight" + suffix for suffix in formats.suffixes]}  # noqa: RUF012

    def validate_environment(self, *args: Any, **keywords: Any) -> None:
        """Refuse a checkpoint of a later format."""
        check_version(vars(self.quantization_config), "this checkpoint")

    def get_load_operations(self) -> dict[str, Any]:
        """Return the operation that unpacks one weight."""
        return {"dequantize": _Unpack}

    def is_serializable(self) -> bool:
        """Return True: the loaded model is an ordinary one."""
        return True


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
            parts[key[key.rindex("_") :]] = tensor
        module, leaf = get_module_from_name(model, full_layer_name)
        expected = getattr(module, leaf)
        group = self.hf_quantizer.quantization_config.group
        weight, _mask = formats.unpack(parts, full_layer_name, group)
        if weight.shape != expected.shape:
            raise CheckpointError(
                f"{full_layer_name!r} has shape {tuple(weight.shape)} in the file, and the model "
                f"expects {tuple(expected.shape)}"
            )
        return {full_layer_name: weight.to(expected.dtype)}

    @property
    def reverse_op(self) -> ConversionOps:
        """Saving writes dense weights as they are."""
        return _Identity()


class _Identity(ConversionOps):
    def convert(self, input_dict: dict[str, Any], **_: Any) -> dict[str, Any]:  # type: ignore[override]
        return input_dict
