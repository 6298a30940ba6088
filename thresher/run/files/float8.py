"""Weights stored as 8-bit floats with one scale for each block, and what they stand for."""

from __future__ import annotations

__all__ = ["SCALE", "Float8"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import CheckpointError

#: What the scales of a weight add to its name.
SCALE = "_scale_inv"


@dataclass(frozen=True)
class Float8:
    """The ``"fp8"`` quantisation of transformers, as DeepSeek-V3 and Qwen3-FP8 are stored.

    Parameters
    ----------
    block : (int, int) or None
        Rows and columns that share a scale; None for one scale for all.
    dtype : torch.dtype
        What the model computes in, and the type of dequantised weights.
    """

    block: tuple[int, int] | None
    dtype: torch.dtype

    @classmethod
    def from_config(cls, quantization: dict[str, Any], dtype: torch.dtype) -> Float8 | None:
        """Return what a ``quantization_config`` describes, None if it is another quantisation."""
        if quantization.get("quant_method") != "fp8":
            return None
        if quantization.get("activation_scheme", "dynamic") != "dynamic":
            return None
        block = quantization.get("weight_block_size")
        if block is None:
            return cls(None, dtype)
        sizes = tuple(block) if isinstance(block, list) else ()
        if len(sizes) != 2 or any(type(size) is not int or size < 1 for size in sizes):
            raise CheckpointError(
                f"weight_block_size in the quantization_config is {block!r}, expected two numbers "
                "of rows and columns; fetch the model again"
            )
        return cls((sizes[0], sizes[1]), dtype)

    def dequantize(self, name: str, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weight that codes and scales stand for.

        Parameters
        ----------
        name : str
            Name of the weight, for messages.
        weight : Tensor of shape (..., rows, columns)
            float8.
        scale : Tensor of shape (..., row blocks, column blocks), or of one element
            What the codes of a block are multiplied by.

        Raises
        ------
        CheckpointError
            If the scales do not fit the weight.
        """
        if scale.numel() == 1:
            return (weight.float() * scale.float().reshape(())).to(self.dtype)
        if weight.element_size() != 1 or self.block is None or weight.dim() < 2:
            raise self._misfit(name, weight, scale)
        rows, columns = weight.shape[-2:]
        expected = (*weight.shape[:-2], -(-rows // self.block[0]), -(-columns // self.block[1]))
        if tuple(scale.shape) != expected:
            raise self._misfit(name, weight, scale)
        whole = scale.float()
        for axis, (size, block) in enumerate(zip((rows, columns), self.block, strict=True), -2):
            whole = whole.repeat_interleave(min(block, size), dim=axis).narrow(axis, 0, size)
        return (weight.float() * whole).to(self.dtype)

    def _misfit(self, name: str, weight: Tensor, scale: Tensor) -> CheckpointError:
        return CheckpointError(
            f"{name!r} is {weight.dtype} of shape {tuple(weight.shape)}, and its scales of shape "
            f"{tuple(scale.shape)} do not fit blocks of {self.block}; the folder is damaged or "
            "its quantization_config is another one's"
        )
