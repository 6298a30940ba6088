"""Texts on their way through a model, by themselves or together."""

from __future__ import annotations

__all__ = ["Batch", "Session"]

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _run
from .torch_path import TorchModel

_Tokens = NDArray[np.int64]
_Model: TypeAlias = "_run.EngineModel | TorchModel"


class Session:
    """Logits after a text, of which only what is new goes through the model.

    What a text has in common with the beginning of the last one is in the cache already.

    Parameters
    ----------
    model : EngineModel or TorchModel
    """

    def __init__(self, model: _Model) -> None:
        self._model = model
        of_torch = isinstance(model, TorchModel)
        self.sequence: Any = model.sequence() if of_torch else _run.EngineSequence(model)
        self.held: _Tokens = np.empty(0, np.int64)
        """The text whose keys and values are in the cache."""

    def logits(self, tokens: _Tokens, count: int = 1) -> NDArray[np.float32]:
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
        return self._alone.logits([(self, tokens, count)])[0]

    def common(self, tokens: _Tokens, count: int = 1) -> int:
        """Return how many tokens of a text need not be computed again.

        Takes what :meth:`logits` takes.
        """
        most = min(len(self.held), len(tokens) - count)  # the last have to give their logits
        differ = np.flatnonzero(self.held[:most] != tokens[:most])
        return int(differ[0]) if differ.size else most

    @cached_property
    def _alone(self) -> Batch:
        return Batch(self._model)


class Batch:
    """Texts that go through a model together, which reads its weights once for all of them.

    A text's logits are those that it has alone.

    Parameters
    ----------
    model : EngineModel or TorchModel
    """

    def __init__(self, model: _Model) -> None:
        of_torch = isinstance(model, TorchModel)
        self._work: Any = model.work() if of_torch else _run.EngineWork(model)
        self._vocabulary = model.vocabulary

    def logits(self, texts: Sequence[tuple[Session, _Tokens, int]]) -> list[NDArray[np.float32]]:
        """Return the logits after the last tokens of some texts.

        Parameters
        ----------
        texts : sequence of (session, tokens, count)
            See :meth:`Session.logits`; a session holds one of them at most. A `count` of 0 puts
            the text's tokens in the cache.

        Returns
        -------
        list of array of shape (count, vocabulary), float32
        """
        fresh, found = [], []
        for session, tokens, count in texts:
            common = session.common(tokens, count)
            # What is beyond is no longer right once the model begins to write over it.
            session.held = tokens[:common]
            session.sequence.rewind(common)
            fresh.append(tokens[common:])
            found.append(np.empty((count, self._vocabulary), np.float32))
        sequences = [session.sequence for session, _, _ in texts]
        self._work.advance(sequences, fresh, found, torch.get_num_threads())
        for session, tokens, _ in texts:
            session.held = tokens
        return found
