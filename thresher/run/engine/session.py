"""A text on its way through a model."""

from __future__ import annotations

__all__ = ["Session"]

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _run


class Session:
    """Logits after a text, of which only what is new goes through the model.

    What a text has in common with the beginning of the last one is in the cache already.

    Parameters
    ----------
    model : EngineModel
    """

    def __init__(self, model: _run.EngineModel) -> None:
        self._sequence = _run.EngineSequence(model)
        self._held = np.empty(0, np.int64)
        self._vocabulary = model.vocabulary

    def logits(self, tokens: NDArray[np.int64], count: int = 1) -> NDArray[np.float32]:
        """Return the logits after the last tokens of a text.

        Parameters
        ----------
        tokens : array of shape (tokens,)
            The whole text, at least one token. It is kept, and must not be changed.
        count : int, default 1
            After how many tokens.

        Returns
        -------
        array of shape (count, vocabulary), float32
        """
        common = self._common(tokens, count)
        # What is beyond is no longer right once the model begins to write over it.
        self._held = tokens[:common]
        self._sequence.rewind(common)
        rows = 1 if count == 1 else len(tokens) - common
        logits = np.empty((rows, self._vocabulary), np.float32)
        self._sequence.advance(tokens[common:], logits, torch.get_num_threads())
        self._held = tokens
        return logits[-count:]

    def _common(self, tokens: NDArray[np.int64], count: int) -> int:
        most = min(len(self._held), len(tokens) - count)  # the last have to give their logits
        differ = np.flatnonzero(self._held[:most] != tokens[:most])
        return int(differ[0]) if differ.size else most
