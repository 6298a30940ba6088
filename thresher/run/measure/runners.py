"""Language models, each run by another library, all asked in the same way."""

from __future__ import annotations

__all__ = ["Eager", "LlamaCpp", "Ours", "Runner"]

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ...core.errors import OptionError
from ..cache import KeyValueCache
from ..engine import Engine
from ..engine.session import Session


class Runner(Protocol):
    """A model that is told a text's tokens, some at a time."""

    def start(self) -> None:
        """Forget the text."""

    def add(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits after the last of some more tokens, of shape (vocabulary,)."""

    def logits(self, tokens: np.ndarray) -> torch.Tensor:
        """Return the logits after every token of a new text, of shape (tokens, vocabulary)."""


class Ours:
    """The engine.

    Parameters
    ----------
    engine : Engine
        With the model.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def start(self) -> None:
        """Forget the text."""
        self.session = Session(self.engine.compiled)
        self.text = np.empty(0, np.int64)

    def add(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits after the last of more tokens."""
        self.text = np.concatenate([self.text, tokens])
        return self.session.logits(self.text)[-1]

    def logits(self, tokens: np.ndarray) -> torch.Tensor:
        """Return the logits after every token."""
        return self.engine.logits(torch.from_numpy(tokens))


class LlamaCpp:
    """llama.cpp, by llama-cpp-python.

    Parameters
    ----------
    path : Path
        A GGUF file.
    threads : int
        How many it has.
    context : int
        Tokens of a text, at most.
    every : bool, default False
        Whether :meth:`logits` is asked for, which takes memory.

    Raises
    ------
    OptionError
        If it cannot run the file.
    """

    def __init__(self, path: Path, threads: int, context: int, every: bool = False) -> None:
        from llama_cpp import Llama

        try:
            self.model = Llama(
                str(path),
                n_ctx=context,
                n_batch=context,
                n_ubatch=context,
                n_threads=threads,
                n_threads_batch=threads,
                logits_all=every,
                verbose=False,
            )
        except ValueError as error:
            raise OptionError(
                f"llama.cpp does not take {str(path)!r} ({error}); name a file that it runs"
            ) from error

    def start(self) -> None:
        """Forget the text."""
        self.model.reset()

    def add(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits after the last of more tokens."""
        from llama_cpp import llama_get_logits_ith

        self.model.eval(tokens.tolist())
        held = llama_get_logits_ith(self.model.ctx, -1)
        return np.ctypeslib.as_array(held, (self.model.n_vocab(),))

    def logits(self, tokens: np.ndarray) -> torch.Tensor:
        """Return the logits after every token."""
        self.start()
        self.add(tokens)
        return torch.from_numpy(np.array(self.model.scores[: len(tokens)]))

    def close(self) -> None:
        """Free the model."""
        self.model.close()


class Eager:
    """A model of transformers as it is.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        For causal language modelling.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model.eval()

    def start(self) -> None:
        """Forget the text."""
        self.cache = KeyValueCache(self.model)

    @torch.inference_mode()
    def add(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits after the last of more tokens."""
        (logits,) = self.cache.run(torch.from_numpy(tokens)[None], last=True)
        return np.asarray(logits.float().numpy())

    @torch.inference_mode()
    def logits(self, tokens: np.ndarray) -> torch.Tensor:
        """Return the logits after every token."""
        return KeyValueCache(self.model).run(torch.from_numpy(tokens)[None]).float()
