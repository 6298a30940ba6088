"""Whether the models of two folders speak of the same tokens."""

from __future__ import annotations

__all__ = ["check_same_tokens"]

from pathlib import Path
from typing import Any

import torch

from ...core.errors import DataError
from ...parts.limits import vocabulary
from ..skeleton import build_model

_REMEDY = "compare a model with its own dense original"


def check_same_tokens(
    folder: Path, dense: Path, tokenizers: tuple[Any, Any | None], ids: torch.Tensor
) -> None:
    """Raise if token ids mean something else to a dense model than to the one beside it.

    Both would be measured all the same where their vocabularies are of one size.

    Parameters
    ----------
    folder, dense : Path
        Models; their weights are not read.
    tokenizers : tuple of transformers tokenizers
        Of both; the first is what the ids are made with, and the second None if there is none.
    ids : Tensor of int64
        What is measured on.

    Raises
    ------
    DataError
        Naming both sizes, or the first token that differs.
    """
    sizes = [vocabulary(build_model(each)) for each in (folder, dense)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{str(folder)!r} has a vocabulary of {sizes[0]} tokens and {str(dense)!r} one of "
            f"{sizes[1]}; {_REMEDY}"
        )
    mine, theirs = tokenizers
    if theirs is None:
        return
    read = ids.unique().tolist()
    words = (each.convert_ids_to_tokens(read) for each in (mine, theirs))
    for number, ours, other in zip(read, *words, strict=True):
        if ours != other:
            raise DataError(
                f"token {number} is {ours!r} to {str(folder)!r} and {other!r} to {str(dense)!r}, "
                f"whose tokenizer is another; {_REMEDY}"
            )
