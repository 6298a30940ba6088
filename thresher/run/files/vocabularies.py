"""Whether the models of two folders speak of the same tokens."""

from __future__ import annotations

__all__ = ["check_same_tokens"]

from collections.abc import Sequence
from typing import Any

import torch

from ...core.errors import DataError

_REMEDY = "compare a model with its own dense original"


def check_same_tokens(
    known: Sequence[tuple[str, int | None]], tokenizers: tuple[Any, Any | None], ids: torch.Tensor
) -> None:
    """Raise if token ids mean something else to a dense model than to the one beside it.

    Both would be measured all the same where their vocabularies are of one size.

    Parameters
    ----------
    known : sequence of (str, int or None)
        The names of both models, and how many tokens each knows.
    tokenizers : tuple of transformers tokenizers
        Of both; the first is what the ids are made with, and the second None if there is none.
    ids : Tensor of int64
        What is measured on.

    Raises
    ------
    DataError
        Naming both sizes, or the first token that differs.
    """
    (model, size), (dense, other_size) = known
    if size != other_size:
        raise DataError(
            f"{model!r} has a vocabulary of {size} tokens and {dense!r} one of {other_size}; "
            f"{_REMEDY}"
        )
    mine, theirs = tokenizers
    if theirs is None:
        return
    read = ids.unique().tolist()
    words = (each.convert_ids_to_tokens(read) for each in (mine, theirs))
    for number, ours, other in zip(read, *words, strict=True):
        if ours != other:
            raise DataError(
                f"token {number} is {ours!r} to {model!r} and {other!r} to {dense!r}, "
                f"whose tokenizer is another; {_REMEDY}"
            )
