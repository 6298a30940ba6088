"""Generating text with the dense and the packed model, measured in one run."""

from __future__ import annotations

__all__ = ["PROMPT_TOKENS", "BenchResult", "bench", "fastest"]

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import nn

from ...core.errors import OptionError
from ...core.notebook import html_of
from ...core.numbers import number, times
from ..packed.linear import PackedLinear
from .candidates import kind_of
from .modes import evaluating
from .timing import Comparison, compare

PROMPT_TOKENS = 16


@dataclass(frozen=True)
class BenchResult:
    """What :func:`bench` measured for each model, by name ("dense", "packed").

    Parameters
    ----------
    tokens_per_second : dict of str to float
        From the fastest of the interleaved repeats.
    seconds : dict of str to list of float
        Time of every repeat, in order.
    layer_seconds : dict of str to dict of str to float
        Time per generated token in each kind of linear layer: layers whose names differ only
        in numbers are summed. From a separate run, because measuring layers costs time.
    weight_bytes : dict of str to int
        Bytes of all parameters and packed buffers, shared ones once: the memory of the model.
    moved_bytes : dict of str to int
        Bytes of linear weights read for every generated token.
    noisy : bool
        Whether two measurements of the dense model disagreed by more than 10 %.
    threads, batch, new_tokens : int
        What was run.
    """

    tokens_per_second: dict[str, float]
    seconds: dict[str, list[float]]
    layer_seconds: dict[str, dict[str, float]]
    weight_bytes: dict[str, int]
    moved_bytes: dict[str, int]
    noisy: bool
    threads: int
    batch: int
    new_tokens: int

    @property
    def speedup(self) -> float:
        """Packed over dense tokens per second."""
        return self.tokens_per_second["packed"] / self.tokens_per_second["dense"]

    @property
    def spread(self) -> tuple[float, float]:
        """Least and greatest of what :attr:`speedup` is in the single repeats."""
        pairs = zip(self.seconds["dense"], self.seconds["packed"], strict=True)
        ratios = [dense / packed for dense, packed in pairs]
        return min(ratios), max(ratios)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_of(self.table())

    def table(self) -> Table:
        """Return the table that ``thresher bench`` prints."""
        table = Table(title=f"batch {self.batch}, {self.threads} threads, {self.new_tokens} tokens")
        for heading in ("", "dense", "packed", "ratio"):
            table.add_column(heading, justify="left" if not heading else "right")
        rates = self.tokens_per_second
        rows: list[tuple[str, Mapping[str, float], float, bool]] = [("tokens/s", rates, 1.0, True)]
        kinds = self.layer_seconds["dense"]
        for kind in sorted(kinds, key=kinds.__getitem__, reverse=True):
            seconds = {name: self.layer_seconds[name].get(kind, 0.0) for name in rates}
            rows.append((f"{kind}, ms per token", seconds, 1e3, False))
        rows.append(("weights read per token, MB", self.moved_bytes, 1e-6, False))
        rows.append(("all weights, MB", self.weight_bytes, 1e-6, False))
        for label, found, scale, more_is_better in rows:
            dense, packed = found["dense"], found["packed"]
            ratio = times(packed, dense) if more_is_better else times(dense, max(packed, 1e-12))
            table.add_row(label, number(dense * scale), number(packed * scale), ratio)
        if self.noisy:
            table.caption = "The machine was busy: these figures are not reliable."
        return table


def bench(
    dense: Any,
    packed: Any,
    new_tokens: int = 32,
    batch: int = 1,
    prompt_tokens: int = PROMPT_TOKENS,
    repeats: int = 3,
) -> BenchResult:
    """Compare a dense causal language model with its packed form.

    Both generate greedily from the same random prompt, in turn, with the threads of
    ``torch.get_num_threads()``.

    Parameters
    ----------
    dense, packed : transformers.PreTrainedModel
        Models with ``generate``; `packed` holds :class:`PackedLinear` layers. Give the dense
        model in the dtype that is fastest here, see :func:`fastest`, for an honest rival.
    new_tokens : int, default 32
        Tokens to generate in each run.
    batch : int, default 1
        Sequences at once.
    prompt_tokens : int, default 16
        Length of the prompt.
    repeats : int, default 3
        Interleaved runs of each model.

    Returns
    -------
    BenchResult
        Rates, times, bytes and whether the machine was quiet enough to trust them.

    Raises
    ------
    OptionError
        If a count is below 1.
    """
    if min(new_tokens, batch, prompt_tokens, repeats) < 1:
        raise OptionError(
            f"new_tokens={new_tokens}, batch={batch}, prompt_tokens={prompt_tokens} and "
            f"repeats={repeats} must all be at least 1"
        )
    models = {"dense": dense, "packed": packed}
    generators = _generators(models, new_tokens, batch, prompt_tokens)
    layer_seconds = {}
    with evaluating(dense, packed):
        compared: Comparison = compare(generators, repeats, cold=False)
        for name, model in models.items():
            with _layer_times(model) as seconds:
                generators[name]()
            layer_seconds[name] = {kind: total / new_tokens for kind, total in seconds.items()}
    return BenchResult(
        {name: batch * new_tokens / compared.best(name) for name in models},
        compared.seconds,
        layer_seconds,
        {name: _weight_bytes(model) for name, model in models.items()},
        {name: _moved_bytes(model) for name, model in models.items()},
        compared.noisy,
        torch.get_num_threads(),
        batch,
        new_tokens,
    )


def fastest(models: Mapping[str, Any], new_tokens: int = 32, repeats: int = 3) -> str:
    """Return the name of the model that generates fastest, for an honest rival.

    Parameters
    ----------
    models : mapping of str to transformers.PreTrainedModel
        Such as one model in several dtypes.
    new_tokens, repeats : int
        As for :func:`bench`.
    """
    with evaluating(*models.values()):
        compared = compare(_generators(models, new_tokens), repeats, cold=False)
    return min(models, key=compared.best)


def _generators(
    models: Mapping[str, Any], new_tokens: int, batch: int = 1, prompt_tokens: int = PROMPT_TOKENS
) -> dict[str, Callable[[], Any]]:
    """Return functions that generate text with each model, from the same random prompt."""
    vocabulary = next(iter(models.values())).get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(vocabulary, (batch, prompt_tokens), generator=generator)

    def generate(model: Any) -> None:
        there = prompt.to(model.device)
        model.generate(
            there,
            attention_mask=torch.ones_like(there),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )

    return {name: partial(generate, model) for name, model in models.items()}


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | PackedLinear):
            yield name, module


@contextmanager
def _layer_times(model: nn.Module) -> Iterator[dict[str, float]]:
    """Sum the time spent in each kind of linear layer while the block runs."""
    seconds: dict[str, float] = defaultdict(float)
    started: list[float] = []
    handles = []

    def before(module: nn.Module, inputs: Any) -> None:
        started.append(time.perf_counter())

    for name, module in _linear_layers(model):
        kind = kind_of(name)

        def after(module: nn.Module, inputs: Any, output: Any, kind: str = kind) -> None:
            seconds[kind] += time.perf_counter() - started.pop()

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def _layer_bytes(module: nn.Module) -> int:
    if isinstance(module, PackedLinear):
        return module.layout.nbytes
    assert isinstance(module, nn.Linear)
    return module.weight.numel() * module.weight.element_size()


def _moved_bytes(model: nn.Module) -> int:
    return sum(_layer_bytes(module) for _, module in _linear_layers(model))


def _weight_bytes(model: nn.Module) -> int:
    storages = {}
    for tensor in model.state_dict().values():
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
