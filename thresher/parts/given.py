"""What is given as a model: said in words where it is none."""

from __future__ import annotations

__all__ = ["check_is_model"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import OptionError


def check_is_model(model: Any, call: str, command: str) -> None:
    """Raise unless `model` is a module in memory.

    Parameters
    ----------
    model : Any
        What a user passed.
    call : str
        Name of the function, such as ``"thresher.prune"``.
    command : str
        The command that does the same to a folder.

    Raises
    ------
    OptionError
        Saying what it is instead, and what to pass.
    """
    if not isinstance(model, nn.Module):
        raise OptionError(f"{call} takes a torch.nn.Module, {_said(model, command)}")
    if isinstance(model, torch.jit.ScriptModule):
        raise OptionError(f"{call} takes the module that {type(model).__name__} was compiled from")


def _said(model: Any, command: str) -> str:
    if isinstance(model, str | Path):
        there = "the folder" if Path(model).is_dir() else "the text"
        return (
            f"not {there} {str(model)!r}: load the model with transformers' from_pretrained, or "
            f"give folders and names on the hub to the command `{command}`"
        )
    if isinstance(model, type):
        return f"not the class {model.__name__}: pass an object of it"
    if isinstance(model, Mapping):
        return f"not a {type(model).__name__}: load its weights into a model (load_state_dict)"
    if hasattr(model, "fit"):
        return (
            f"not the estimator {type(model).__name__}: sparse models of tables are fitted "
            "as such, with the estimators of thresher.linear"
        )
    return f"not {type(model).__name__}"
