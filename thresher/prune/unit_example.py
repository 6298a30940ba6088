"""What a model is called with, to see which slices of its weights go together."""

from __future__ import annotations

__all__ = ["described", "example_for"]

from typing import Any

import torch
from torch import nn

from ..core.errors import DataError
from ..stream.samples import as_samples

#: Tokens of an example for a language model.
_TOKENS = 8


def example_for(model: nn.Module, example: Any) -> Any:
    """Return one input for a model, a short one of a language model.

    Parameters
    ----------
    model : nn.Module
    example : optional
        What the user passed; None where a language model needs none.

    Raises
    ------
    DataError
        If there is none, and the model is no language model.
    """
    if example is None:
        if not hasattr(model, "get_input_embeddings"):
            raise DataError(
                "say what the model is called with: example=, one input, shows which slices "
                "of its weights go together"
            )
        place = next(model.parameters()).device
        example = {"input_ids": torch.arange(_TOKENS, device=place).unsqueeze(0)}
    elif isinstance(example, torch.Tensor):
        example = as_samples(model, example)[0][0]
    if isinstance(example, dict) and list(example) == ["input_ids"]:
        example = {"input_ids": example["input_ids"][:1, :_TOKENS]}
    return example


def described(example: Any) -> str:
    """Return the shapes of an input, for messages."""
    if isinstance(example, torch.Tensor):
        return f"a tensor of shape {tuple(example.shape)}"
    if isinstance(example, dict):
        return ", ".join(f"{name}: {described(value)}" for name, value in example.items())
    return type(example).__name__
