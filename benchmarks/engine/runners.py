"""Models from one GGUF file, each run by another library, all asked in the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import thresher as th
from thresher.run.engine.session import Session


class Runner(Protocol):
    """A model that is told a text's tokens, some at a time."""

    def start(self) -> None:
        """Forget the text."""

    def add(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits after the last of some more tokens, of shape (vocabulary,)."""

    def logits(self, tokens: np.ndarray) -> torch.Tensor:
        """Return the logits after every token of a new text, of shape (tokens, vocabulary)."""


class Ours:
    """The engine."""

    def __init__(self, path: Path) -> None:
        self.engine = th.Engine(path)

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
    """llama.cpp, by llama-cpp-python."""

    def __init__(self, path: Path, threads: int, context: int, every: bool = False) -> None:
        from llama_cpp import Llama

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


class Torch:
    """transformers, eagerly, of weights that were made dense."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM, GgufConfig

        found = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
        )
        self.model: Any = found.eval()

    def start(self) -> None:
        """Forget the text."""
        self.past = None

    @torch.inference_mode()
    def add(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits after the last of more tokens."""
        ids = torch.from_numpy(tokens)[None]
        made = self.model(ids, past_key_values=self.past, use_cache=True, logits_to_keep=1)
        self.past = made.past_key_values
        return made.logits[0, -1].float().numpy()

    @torch.inference_mode()
    def logits(self, tokens: np.ndarray) -> torch.Tensor:
        """Return the logits after every token."""
        return self.model(torch.from_numpy(tokens)[None]).logits[0].float()


class Compiled(Torch):
    """The same compiled, for prompts alone: of a text that grows it would compile every length."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        super().__init__(path, dtype)
        self.compiled = torch.compile(self.model, dynamic=False)

    @torch.inference_mode()
    def add(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits after the last of a prompt's tokens."""
        made = self.compiled(torch.from_numpy(tokens)[None], use_cache=True, logits_to_keep=1)
        return made.logits[0, -1].float().numpy()


def decoding(runner: Runner, prompt: np.ndarray, count: int) -> Callable[[], None]:
    """Return what goes on greedily from where a prompt left a runner, by so many tokens."""
    runner.start()
    first = runner.add(prompt)

    def go_on() -> None:
        logits = first
        for _ in range(count):
            logits = runner.add(np.array([int(logits.argmax())], np.int64))

    return go_on


def reading(runner: Runner, prompt: np.ndarray) -> Callable[[], None]:
    """Return what reads a prompt."""
    runner.start()

    def read() -> None:
        runner.add(prompt)

    return read
