"""How far a block turns the states that it is given."""

from __future__ import annotations

__all__ = ["AngularChange"]

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..parts.groups.trace import tensors_of
from .calls import Forward, forward_within


class AngularChange:
    """The mean angle between what a module is given and what it gives, a token at a time.

    References
    ----------
    Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers (2024), eq. 6.
    """

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    @property
    def value(self) -> float:
        """In half turns, between 0 and 1; NaN where no state came out in the shape it went in."""
        return self._total / self._count if self._count else math.nan

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Take in every call of a module while the context lasts."""

        def wrap(forward: Forward) -> Forward:
            def watched(*args: Any, **keywords: Any) -> Any:
                # A block may write what it gives over what it was given.
                given = [t.clone() for t in tensors_of([args, keywords]) if _is_state(t)]
                output = forward(*args, **keywords)
                made = next((t for t in tensors_of(output) if _is_state(t)), None)
                before = [t for t in given if made is not None and t.shape == made.shape]
                if made is not None and before:
                    self._take(before[0], made)
                return output

            return watched

        with forward_within(module, wrap):
            yield

    def _take(self, given: torch.Tensor, made: torch.Tensor) -> None:
        cosine = torch.cosine_similarity(given.float(), made.float(), dim=-1)
        angles = cosine.clamp(-1, 1).acos() / math.pi
        self._total += float(angles.double().sum())
        self._count += angles.numel()


def _is_state(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() > 1
