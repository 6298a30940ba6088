"""Models of torch from a GGUF file, whose weights are made dense, and what runners are timed at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from thresher.run.measure.runners import Eager, Runner


class Torch(Eager):
    """transformers, eagerly."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM, GgufConfig

        found = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
        )
        super().__init__(found)


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
