"""Models that the compiled loop does not run, in its place: by their own passes in torch."""

from __future__ import annotations

__all__ = ["TorchModel"]

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.errors import LayerError
from ..cache import KeyValueCache


class TorchModel:
    """A causal language model of transformers, asked as the compiled model is.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Is set to evaluate.

    Attributes
    ----------
    vocabulary : int
        Logits after a token.

    Raises
    ------
    LayerError
        If it keeps a text in no cache that can be handed on.
    """

    def __init__(self, model: Any) -> None:
        self.model: Any = model.eval()
        token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        with torch.inference_mode():
            cache = KeyValueCache(model)
            self.vocabulary = cache.run(token).shape[-1]
            try:
                cache.prove(token)
            except LayerError:
                self._cuts = False
            else:
                self._cuts = True

    def sequence(self) -> _Sequence:
        """Return a text that is empty yet."""
        return _Sequence(self.model, self._cuts)

    def work(self) -> _Work:
        """Return what advances texts."""
        return _Work()


class _Sequence:
    """A text on its way, as the compiled one."""

    def __init__(self, model: Any, cuts: bool) -> None:
        self._model, self._cuts = model, cuts
        self._cache = KeyValueCache(model)
        self._read = torch.zeros(1, 0, dtype=torch.int64, device=model.device)

    @property
    def position(self) -> int:
        """Tokens that were read."""
        return self._cache.length

    def read(self, tokens: NDArray[np.int64], last: bool) -> torch.Tensor:
        """Return the logits after more tokens, or after the last of them."""
        given = torch.from_numpy(np.array(tokens))[None].to(self._read.device)
        logits = self._cache.run(given, last)
        self._read = torch.cat([self._read, given], dim=1)
        return logits

    @torch.inference_mode()
    def rewind(self, position: int) -> None:
        """Go back to an earlier position."""
        if position == self.position:
            return
        self._read = self._read[:, :position]
        try:
            self._cut(position)
        except LayerError:
            # A window has forgotten what it would have to go back to.
            self._cache = KeyValueCache(self._model)
            if position:
                self._cache.run(self._read, last=True)

    def _cut(self, position: int) -> None:
        if not self._cuts:
            raise self._cache.refusal("cannot be taken back")
        self._cache.shorten(position)


class _Work:
    """Advances texts one after another."""

    @torch.inference_mode()
    def advance(
        self,
        sequences: Sequence[_Sequence],
        ids: Sequence[NDArray[np.int64]],
        logits: Sequence[NDArray[np.float32]],
        threads: int,
    ) -> None:
        """Read more of each text, and write the logits after its last tokens."""
        for sequence, tokens, out in zip(sequences, ids, logits, strict=True):
            found = sequence.read(tokens, last=len(out) <= 1)
            if len(out):
                out[:] = found[-len(out) :].float().cpu().numpy()
