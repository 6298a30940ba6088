"""A folder's language model, none of whose weights are made up."""

from __future__ import annotations

__all__ = ["load_whole"]

from pathlib import Path
from typing import Any

import torch

from ...core.errors import CheckpointError
from .checkpoint import Checkpoint


def load_whole(folder: str | Path, dtype: torch.dtype | None = None) -> Any:
    """Return a transformers causal language model in evaluation mode.

    transformers draws weights at random where a folder lacks them, and says so in a log.

    Parameters
    ----------
    folder : str or Path
        A folder, or what transformers takes in its place.
    dtype : torch.dtype, optional
        By default that of the folder.

    Raises
    ------
    CheckpointError
        If files of the folder are damaged or lie elsewhere, or a weight is in none of them.
    """
    from transformers import AutoModelForCausalLM

    if Path(folder).is_dir():
        Checkpoint(folder)  # damaged files, and an index that leads elsewhere, are refused
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype or "auto", output_loading_info=True
    )
    if missing := sorted(loaded[1]["missing_keys"]):
        raise CheckpointError(
            f"{str(folder)!r} lacks {missing[0]!r} (and {len(missing) - 1} more of the model's "
            "tensors), which would be random; fetch or write the model again"
        )
    return loaded[0].eval()
