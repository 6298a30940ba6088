"""Decoding with a packed folder and with the engine's own dense model of as many bits."""

from __future__ import annotations

__all__ = ["EngineBench", "bench_engines", "rival_bits"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from ...core.errors import OptionError
from ...core.numbers import number, times
from ..engine import Engine
from ..engine.formats import CODED, PanelData
from ..engine.session import Session
from .bench import PROMPT_TOKENS
from .timing import compare


@dataclass(frozen=True)
class EngineBench:
    """What :func:`bench_engines` measured of each model, by name ("dense", "packed").

    Parameters
    ----------
    tokens_per_second : dict of str to float
        From the fastest of the interleaved repeats, one token after another.
    seconds : dict of str to list of float
        Time of every repeat, in order.
    weight_bytes : dict of str to int
        Of all matrices, shared ones once. Of dropped inputs not all are read for a token.
    noisy : bool
        Whether two measurements of the dense model disagreed by more than 10 %.
    threads, new_tokens : int
        What was run.
    """

    tokens_per_second: dict[str, float]
    seconds: dict[str, list[float]]
    weight_bytes: dict[str, int]
    noisy: bool
    threads: int
    new_tokens: int

    @property
    def speedup(self) -> float:
        """Packed over dense tokens per second."""
        return self.tokens_per_second["packed"] / self.tokens_per_second["dense"]

    def table(self) -> Table:
        """Return the table that ``thresher bench`` prints."""
        table = Table(title=f"the engine, {self.threads} threads, {self.new_tokens} tokens")
        for heading in ("", "dense", "packed", "ratio"):
            table.add_column(heading, justify="left" if not heading else "right")
        rates, sizes = self.tokens_per_second, self.weight_bytes
        table.add_row("tokens/s", *_cells(rates, 1.0), times(rates["packed"], rates["dense"]))
        smaller = times(sizes["dense"], sizes["packed"])
        table.add_row("all weights, MB", *_cells(sizes, 1e-6), smaller)
        if self.noisy:
            table.caption = "The machine was busy: these figures are not reliable."
        return table


def _cells(found: dict[str, Any], scale: float) -> list[str]:
    return [number(found[name] * scale) for name in ("dense", "packed")]


def rival_bits(packed: Engine) -> int | None:
    """Return the bits that a dense model has to have to be held against a packed one."""
    form = packed.data.layers[-1].down.form
    return 4 if form == "channels" else CODED.get(form)


def bench_engines(
    dense: Engine, packed: Engine, new_tokens: int = 32, repeats: int = 3
) -> EngineBench:
    """Compare two models in the engine, one token after another, after the same prompt.

    Parameters
    ----------
    dense, packed : Engine
        Of one vocabulary.
    new_tokens : int, default 32
        Tokens to go through the models in each run.
    repeats : int, default 3
        Interleaved runs of each.

    Raises
    ------
    OptionError
        If a count is below 1, the tokens do not fit a model's context, or the vocabularies differ.
    """
    models = {"dense": dense, "packed": packed}
    if min(new_tokens, repeats) < 1:
        raise OptionError(f"new_tokens={new_tokens} and repeats={repeats} must both be at least 1")
    room = min(engine.context for engine in models.values()) - PROMPT_TOKENS
    if new_tokens > room:
        raise OptionError(
            f"{new_tokens} tokens after a prompt of {PROMPT_TOKENS} do not fit the context; ask "
            f"for at most {room}"
        )
    if dense.compiled.vocabulary != packed.compiled.vocabulary:
        raise OptionError(
            f"the dense model has {dense.compiled.vocabulary} tokens and the packed one "
            f"{packed.compiled.vocabulary}; name the model that it was packed from"
        )
    works = {name: _decoding(engine, new_tokens) for name, engine in models.items()}
    compared = compare(works, repeats, cold=False)
    return EngineBench(
        {name: new_tokens / compared.best(name) for name in models},
        compared.seconds,
        {name: _weight_bytes(engine) for name, engine in models.items()},
        compared.noisy,
        torch.get_num_threads(),
        new_tokens,
    )


def _decoding(engine: Engine, count: int) -> Callable[[], None]:
    # What comes after what does not change how long it takes.
    ids = np.random.default_rng(0).integers(0, engine.compiled.vocabulary, PROMPT_TOKENS + count)
    session = Session(engine.compiled)
    session.logits(ids[:PROMPT_TOKENS])

    def work() -> None:
        for token in range(PROMPT_TOKENS, len(ids)):
            session.logits(ids[: token + 1])

    return work


def _weight_bytes(engine: Engine) -> int:
    return sum(panels.build().nbytes for panels in _panels(engine))


def _panels(engine: Engine) -> list[PanelData]:
    data = engine.data
    return [each for part in (data, *data.layers) for each in _held(vars(part).values())]


def _held(values: Any) -> Iterator[PanelData]:
    for value in values:
        if isinstance(value, PanelData):
            yield value
        elif isinstance(value, list):
            yield from (each for each in value if isinstance(each, PanelData))
