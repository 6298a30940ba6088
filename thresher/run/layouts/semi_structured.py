"""2:4 for the sparse tensor cores of CUDA devices, multiplied by torch."""

from __future__ import annotations

__all__ = ["SemiStructured"]

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.sparse import (
    SparseSemiStructuredTensor,
    SparseSemiStructuredTensorCUTLASS,
    to_sparse_semi_structured,
)

from thresher.core.errors import LayerError

from .masked import NofM

_ROWS, _COLUMNS = 32, 64
"""Multiples that both of torch's libraries take."""


class SemiStructured(NofM):
    """2:4 in bfloat16, multiplied by torch's semi-structured product on CUDA devices.

    Buffers and settings are those of :class:`~thresher.run.layouts.masked.NofM` with two of four,
    and so is the product on the CPU. On a CUDA device of compute capability 8.0 or more the
    matrix is compressed as torch's library wants it (cuSPARSELt, or CUTLASS where torch was built
    without it), 0.56 of the dense bytes; the buffers themselves stay in the computer's memory.
    Shapes and types that the library does not take are multiplied dense there.

    References
    ----------
    ``torch.sparse.to_sparse_semi_structured``, and the table of shapes and types beside it, in the
    documentation of torch.sparse, "Sparse Semi-Structured Tensors".
    """

    name = "semi-structured"
    patterns = ((2, 4),)
    _compressed: SparseSemiStructuredTensor | None = None

    def __init__(
        self, tensors: Mapping[str, Tensor], shape: tuple[int, int], settings: Mapping[str, int]
    ) -> None:
        super().__init__(tensors, shape, settings)
        if (
            self.device.type == "cuda"
            and _library(self.device)
            and _unfit(self.dtype, *shape) is None
        ):
            self._compressed = _compress(self.to_dense())
            self._tensors = {name: tensor.cpu() for name, tensor in self._tensors.items()}

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse what is not 2:4, and the shapes and types that torch does not take."""
        return super().refusal(weight) or _unfit(weight.dtype, *weight.shape)

    @classmethod
    def refusal_on(cls, device: torch.device) -> str | None:
        """Refuse devices without sparse tensor cores."""
        if device.type != "cuda":
            return "only CUDA devices multiply it"
        return None if _library(device) else "torch has no semi-structured product for this device"

    def bind(self) -> Any:
        """Bind indices and values."""
        if (self.setting("n"), self.setting("m")) != (2, 4):
            raise LayerError(f"a semi-structured layer is 2:4, not {self.settings}")
        return super().bind()

    def tensors(self) -> dict[str, Tensor]:
        """Return the stored buffers by name, on the device of the layout."""
        return {name: tensor.to(self.device) for name, tensor in self._tensors.items()}

    def multiply_on_cuda(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias`` from torch's semi-structured product, or a dense one."""
        if self._compressed is None:
            return super().multiply_on_cuda(x, bias)
        return nn.functional.linear(x, self._compressed, None if bias is None else bias.to(x.dtype))


def _unfit(dtype: torch.dtype, rows: int, columns: int) -> str | None:
    """Return why torch has no semi-structured product for a matrix, or None."""
    if dtype != torch.bfloat16:
        return f"the semi-structured product takes bfloat16, not {dtype}"
    if rows % _ROWS or columns % _COLUMNS or not rows or not columns:
        return f"rows must be a multiple of {_ROWS} and columns of {_COLUMNS}"
    return None


def _library(device: torch.device) -> str | None:
    """Return which library of torch's multiplies on a CUDA device, or None."""
    major, _ = torch.cuda.get_device_capability(device)
    if major >= 8 and torch.backends.cusparselt.is_available():
        return "cusparselt"
    return "cutlass" if major == 8 and torch.version.cuda else None


def _compress(dense: Tensor) -> SparseSemiStructuredTensor:
    if _library(dense.device) == "cusparselt":
        return to_sparse_semi_structured(dense)
    return SparseSemiStructuredTensorCUTLASS.from_dense(dense)
