"""Decoding and reading in the engine, in llama.cpp from a GGUF file, and in transformers."""

from __future__ import annotations

__all__ = ["TextBench", "bench_texts"]

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import nn

from ...core.errors import OptionError
from ...core.numbers import number, times
from ..engine import Engine
from .runners import Eager, LlamaCpp, Ours, Runner
from .timing import compare

#: Tokens of a prompt that is read, and the package that llama.cpp comes with.
_READ, _LLAMA = 128, "llama_cpp"


@dataclass(frozen=True)
class TextBench:
    """What :func:`bench_texts` measured of each model.

    Parameters
    ----------
    tokens_per_second : dict of str to float
        Of greedy decoding, from the fastest of the interleaved repeats.
    prompt_per_second : dict of str to float
        Tokens of a prompt of 128, read at once.
    noisy : bool
        Whether two measurements of the first model disagreed by more than 10 %.
    threads, new_tokens : int
        What was run.
    missing : str
        Why llama.cpp was not timed; empty if it was.
    """

    tokens_per_second: dict[str, float]
    prompt_per_second: dict[str, float]
    noisy: bool
    threads: int
    new_tokens: int
    missing: str = ""

    def table(self) -> Table:
        """Return the table that ``thresher bench`` prints, with ratios to its last row."""
        title = f"batch 1, {self.threads} threads, {self.new_tokens} tokens, a prompt of {_READ}"
        table = Table(title=title)
        for heading in ("", "tokens/s", "ratio", "prompt/s", "ratio"):
            table.add_column(heading, justify="left" if not heading else "right")
        last = list(self.tokens_per_second)[-1]
        for name, rate in self.tokens_per_second.items():
            cells = [name]
            for value, base in (
                (rate, self.tokens_per_second[last]),
                (self.prompt_per_second[name], self.prompt_per_second[last]),
            ):
                cells += [number(value), times(value, base)]
            table.add_row(*cells)
        busy = "The machine was busy: these figures are not reliable." if self.noisy else ""
        told = (f"Ratios are to {last}.", self.missing, busy)
        table.caption = " ".join(each for each in told if each)
        return table


def bench_texts(
    engines: Mapping[str, Engine],
    gguf: Path,
    dense: Mapping[str, nn.Module],
    new_tokens: int = 32,
    repeats: int = 3,
) -> TextBench:
    """Compare models of any libraries on texts of random tokens, one sequence at a time.

    Parameters
    ----------
    engines : mapping of str to Engine
        The engine's models by name.
    gguf : Path
        The file that llama.cpp runs, where llama-cpp-python is installed.
    dense : mapping of str to nn.Module
        Models of transformers by name.
    new_tokens : int, default 32
        Tokens to decode in each run.
    repeats : int, default 3
        Interleaved runs of each.

    Raises
    ------
    OptionError
        If a count is below 1, or the tokens do not fit a model's context.
    """
    if min(new_tokens, repeats) < 1:
        raise OptionError(f"new_tokens={new_tokens} and repeats={repeats} must both be at least 1")
    needed, room = max(_READ, new_tokens), min(each.context for each in engines.values())
    if needed > room:
        raise OptionError(
            f"a prompt of {_READ} tokens, or {new_tokens} new ones, do not fit the {room} "
            "positions of the model"
        )
    runners: dict[str, Runner] = {name: Ours(engine) for name, engine in engines.items()}
    runners |= {name: Eager(model) for name, model in dense.items()}
    missing = "" if find_spec(_LLAMA) else "llama.cpp is not timed: pip install llama-cpp-python."
    if not missing:
        runners[f"{gguf}, llama.cpp"] = LlamaCpp(gguf, torch.get_num_threads(), needed + 1)
    tokens = min(engine.compiled.vocabulary for engine in engines.values())
    ids = np.random.default_rng(0).integers(0, tokens, _READ)
    found = [
        compare(
            {name: functools.partial(work, each) for name, each in runners.items()}, repeats, False
        )
        for work in (functools.partial(_decode, ids[:1], new_tokens), functools.partial(_read, ids))
    ]
    decoded, read = (
        {name: count / times.best(name) for name in runners}
        for times, count in zip(found, (new_tokens, _READ), strict=True)
    )
    noisy = any(times.noisy for times in found)
    return TextBench(decoded, read, noisy, torch.get_num_threads(), new_tokens, missing)


def _decode(first: np.ndarray, count: int, runner: Runner) -> None:
    """Decode greedily from one token on, which is one of those that are counted."""
    runner.start()
    logits = runner.add(first)
    for _ in range(count - 1):
        logits = runner.add(np.array([int(logits.argmax())], np.int64))


def _read(prompt: np.ndarray, runner: Runner) -> None:
    runner.start()
    runner.add(prompt)
