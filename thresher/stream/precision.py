"""The precision of forward passes, apart from the dtype that weights are stored in."""

from __future__ import annotations

__all__ = [
    "Precision",
    "multiplies_natively",
    "runnable",
    "widened",
    "widened_sample",
]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .passes import calibrating
from .walk import call_on_copy

_HALVES = (torch.float16, torch.bfloat16)


def multiplies_natively(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether a device multiplies `dtype` at its full speed, not by converting it."""
    if dtype not in _HALVES or device.type != "cpu":
        return True
    if dtype == torch.float16:
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@dataclass(frozen=True)
class Precision:
    """What weights are stored in, and what forward passes are computed in.

    Parameters
    ----------
    stored : torch.dtype
        Of the weights.
    passes : torch.dtype
        Of forward passes. Longer than `stored`, weights are held in it meanwhile; shorter, the
        products are rounded to it.
    """

    stored: torch.dtype = torch.float32
    passes: torch.dtype = torch.float32

    @classmethod
    def natural(
        cls, stored: torch.dtype, device: torch.device, asked: torch.dtype | None = None
    ) -> Precision:
        """Return the precision that is asked for, or else the one that fits a device.

        Parameters
        ----------
        stored : torch.dtype
            Of the weights.
        device : torch.device
            Where they are multiplied.
        asked : torch.dtype, optional
            Of forward passes. By default that of the weights where the device multiplies it
            natively, otherwise float32, which holds every value of a shorter dtype.
        """
        fitting = stored if multiplies_natively(stored, device) else torch.float32
        return cls(stored, asked or fitting)

    @property
    def widens(self) -> bool:
        """Whether weights are held in a longer dtype during forward passes."""
        return torch.finfo(self.passes).bits > torch.finfo(self.stored).bits

    @contextmanager
    def rounding(self, device: torch.device) -> Iterator[None]:
        """Round products while the context lasts, where passes are shorter than the weights."""
        if torch.finfo(self.passes).bits >= torch.finfo(self.stored).bits:
            yield
            return
        with torch.autocast(device.type, dtype=self.passes):
            yield


@contextmanager
def widened(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Hold shorter weights and buffers in the precision of passes while the context lasts.

    They end in the dtype in which they began.
    """
    every = (*model.parameters(), *model.buffers())
    shorter = [t for t in every if precision.widens and t.dtype in _HALVES]
    before = [tensor.dtype for tensor in shorter]
    for tensor in shorter:
        tensor.data = tensor.data.to(precision.passes)
    try:
        yield
    finally:
        for tensor, dtype in zip(shorter, before, strict=True):
            tensor.data = tensor.data.to(dtype)


def runnable(precision: Precision, model: nn.Module, sample: Any) -> Precision:
    """Return a precision in which a model runs, if need be that of its weights.

    A model may convert what its layers are given, and then runs only with the weights' own dtypes.

    Parameters
    ----------
    precision : Precision
        What is wanted.
    model : nn.Module
        What is to run.
    sample : Any
        An input of it.
    """
    if not precision.widens:
        return precision
    try:
        with calibrating(model), widened(model, precision):
            call_on_copy(model, widened_sample(sample, precision))
    except RuntimeError:
        return Precision(precision.stored, precision.stored)
    return precision


def widened_sample(sample: Any, precision: Precision) -> Any:
    """Return a sample whose shorter tensors are in the precision of passes, as the weights are."""
    if isinstance(sample, torch.Tensor):
        return sample.to(precision.passes) if sample.dtype in _HALVES else sample
    if isinstance(sample, Mapping):
        return {key: widened_sample(value, precision) for key, value in sample.items()}
    if isinstance(sample, list | tuple):
        return type(sample)(widened_sample(value, precision) for value in sample)
    return sample
