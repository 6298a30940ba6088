"""How many tokens a language model can take, and which."""

from __future__ import annotations

__all__ = ["check_windows", "fitting_length", "positions", "vocabulary"]

import torch
from torch import nn

from ..core.errors import DataError


def fitting_length(model: nn.Module, length: int) -> int:
    """Return `length`, or the number of positions of a model that has fewer."""
    return min(length, positions(model) or length)


def check_windows(model: nn.Module, ids: torch.Tensor) -> None:
    """Raise if a model cannot take token ids.

    Parameters
    ----------
    model : nn.Module
        A model with token embeddings.
    ids : Tensor of int64, shape (windows, length)

    Raises
    ------
    DataError
        If an id is beyond the vocabulary, or a window longer than the positions.
    """
    most = positions(model)
    if most is not None and ids.shape[-1] > most:
        raise DataError(
            f"windows of {ids.shape[-1]} tokens are longer than the {most} positions of "
            f"{type(model).__name__}; cut them shorter (length={most}, --length {most})"
        )
    known = vocabulary(model)
    if known is not None and ids.numel() and int(ids.max()) >= known:
        raise DataError(
            f"token {int(ids.max())} is beyond the {known} of {type(model).__name__}'s vocabulary: "
            "the tokenizer belongs to another model"
        )


def positions(model: nn.Module) -> int | None:
    """Return how many tokens a model has positions for, None where it sets no bound."""
    config = getattr(model, "config", None)
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:
        return None
    # Where one position stands for padding, as in RoBERTa, texts begin at the one after it.
    offsets = [
        embedding.padding_idx + 1
        for name, embedding in model.named_modules()
        if isinstance(embedding, nn.Embedding)
        and name.endswith("position_embeddings")
        and embedding.padding_idx is not None
        and embedding.num_embeddings == found
    ]
    return found - max(offsets, default=0)


def vocabulary(model: nn.Module) -> int | None:
    """Return how many tokens a model has embeddings for, None where it has none of its own."""
    ask = getattr(model, "get_input_embeddings", None)
    try:
        embedding = None if ask is None else ask()
    except (NotImplementedError, AttributeError):
        # Models of several parts, such as CLIP, have no embeddings of their own.
        return None
    known = getattr(embedding, "num_embeddings", None)
    return known if isinstance(known, int) else None
