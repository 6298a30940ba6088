"""Chance: the states of the generators that a model may draw from."""

from __future__ import annotations

__all__ = ["chance"]

import random
from typing import Any

import numpy as np
import torch


def chance() -> list[Any]:
    """Return the states of Python's, NumPy's and torch's generators, to be compared.

    Returns
    -------
    list
        Equal to another one if nothing was drawn in between.
    """
    places = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    states: list[Any] = [
        state.cpu().numpy().tobytes() for state in (torch.get_rng_state(), *places)
    ]
    numpy = np.random.get_state(legacy=False)["state"].values()
    states += [each.tobytes() if isinstance(each, np.ndarray) else each for each in numpy]
    return [*states, random.getstate()]
