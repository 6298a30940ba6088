"""The sample that runs now, for those who watch layers and see nothing of where inputs are from."""

from __future__ import annotations

__all__ = ["running", "running_index", "token_mask"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

_sample: ContextVar[Any] = ContextVar("sample", default=None)
_index: ContextVar[int] = ContextVar("index", default=0)


@contextmanager
def running(sample: Any, index: int = 0) -> Iterator[None]:
    """Say which sample is sent through a model, or through a part of it, in the context.

    Parameters
    ----------
    sample : Any
        As the model is called with it: a tensor, a tuple of arguments or a dict of keywords.
    index : int, default 0
        Its place among the samples.
    """
    earlier_sample, earlier_index = _sample.set(sample), _index.set(index)
    try:
        yield
    finally:
        _sample.reset(earlier_sample)
        _index.reset(earlier_index)


def running_index() -> int:
    """Return the place of the sample that runs among all samples."""
    return _index.get()


def token_mask() -> torch.Tensor | None:
    """Return which tokens of the sample that runs are no padding.

    Returns
    -------
    Tensor of bool, shape (batch, tokens), or None
        None where no attention mask leaves any out.
    """
    sample = _sample.get()
    mask = sample.get("attention_mask") if isinstance(sample, Mapping) else None
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        return None
    real = mask != 0
    return None if bool(real.all()) else real
