"""``thresher eval``: what a model knows of a text, and how it answers questions."""

from __future__ import annotations

__all__ = ["evaluate"]

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.markup import escape
from rich.table import Table

from .core.columns import Fitted
from .core.device import device_named
from .core.dtypes import dtype_named
from .core.errors import DataError, OptionError
from .core.numbers import number, percent
from .core.terminal import show
from .parts.activations.attached import counting
from .parts.calibration import file_windows, warn_of_fewer
from .parts.limits import vocabulary
from .run.engine import Engine
from .run.engine.loading import is_the_engines
from .run.evaluate import compare, perplexity
from .run.files.checkpoint import read_config, resolve
from .run.files.tokenizers import holds_tokenizer
from .run.files.vocabularies import check_same_tokens
from .run.skeleton import build_model
from .run.tasks import check_tasks, evaluate_tasks
from .stream.outputs import folder_logits
from .workflow import (
    check_language_model,
    described,
    load_model,
    load_tokenizer,
    read_record,
    samples_of,
    save_record,
    tell,
    window_length,
)

#: What `thresher eval` shows of a comparison, in order: the words, and how numbers are written.
_MEASURES = {
    "pruned_perplexity": ("perplexity", number),
    "dense_perplexity": ("dense perplexity", number),
    "kl": ("KL divergence (nats)", number),
    "js": ("Jensen-Shannon divergence (nats)", number),
    "top1_agreement": ("top-1 agreement", percent),
}
#: What is counted of activations, see :class:`~thresher.parts.activations.attached.Tally`.
_COUNTS = ("zeros", "entries")


def evaluate(
    model: str,
    text: Path | None,
    tasks: str | None,
    dense: str | None,
    windows: int,
    length: int,
    precision: str = "auto",
    device: str = "auto",
    save: bool = False,
) -> None:
    """Print a model's perplexity and accuracy, and those of a dense model if given.

    Raises
    ------
    OptionError
        If a model that runs in the engine alone is asked for what needs transformers.
    DataError
        If a folder's model is no causal language model, or both models have other tokens.
    """
    judged = [_judged(each, precision, device) for each in (model, dense) if each is not None]
    if tasks is not None or save:
        for each in judged:
            each.check_whole("--tasks" if tasks is not None else "--save")
    if tasks is not None:
        check_tasks(tasks)
    record = read_record(resolve(model)) if save else None
    found: dict[str, Any] = {"model": model, "dense": dense}
    tables = []
    if text is not None:
        found["text"], cut, table = _of_text(text, judged, windows, length)
        if save and dense is not None:
            chosen = (judged[0].tokenizer(), None, dtype_named(precision), device)
            found["text"] |= samples_of(resolve(dense), resolve(model), cut, *chosen)
        tables.append(table)
    if tasks is not None:
        found["tasks"], table = _of_tasks(model, tasks, dense, precision, device)
        tables.append(table)
    show(found, *map(Fitted, tables))
    if record is not None:
        if text is not None:
            record.take_evaluation(found["text"])
        if tasks is not None:
            record.tasks = dict(zip(("pruned", "dense"), found["tasks"].values(), strict=False))
        save_record(record, resolve(model))


def _of_text(
    text: Path, judged: list[_Judged], windows: int, length: int
) -> tuple[dict[str, Any], torch.Tensor, Table]:
    """Return what is measured on a text, its windows, and a table."""
    model, *dense = judged
    fitting = min(each.fitting(length) for each in judged)
    tokenizer = model.tokenizer()
    cut = file_windows(text, tokenizer, length=fitting, count=windows)
    warn_of_fewer(len(cut), windows, fitting, str(text))
    for rival in dense:
        tokenizers = tokenizer, rival.tokenizer(needed=False)
        known = [(each.name, each.vocabulary()) for each in judged]
        check_same_tokens(known, tokenizers, cut)
    table = Table(title=escape(f"{model.name} on {text}, {len(cut)} windows of {fitting} tokens"))
    table.add_column("measure")
    table.add_column("value", justify="right")
    found = described(str(text), cut)
    with counting() as tallies:
        pruned = model.logits(cut)
        if dense:
            found |= asdict(compare(dense[0].logits(cut), pruned, cut))
        else:
            found["pruned_perplexity"] = perplexity(pruned, cut)
    if tallies:
        found["activation_sparsity"] = {place: t.sparsity for place, t in tallies.items()}
        zeros, entries = (sum(getattr(t, n) for t in tallies.values()) for n in _COUNTS)
        table.add_row("activations dropped", percent(zeros / entries))
    for name, (words, written) in _MEASURES.items():
        if name in found:
            table.add_row(words, written(found[name]))
    return found, cut, table


def _of_tasks(
    model: str, tasks: str, dense: str | None, precision: str, device: str
) -> tuple[dict[str, Any], Table]:
    """Return what both models measure on the same tasks, one held in memory at a time."""
    names = {model: model} if dense is None else {model: model, f"{dense} (dense)": dense}
    found = {}
    for name, each in names.items():
        folder = resolve(each)
        loaded = load_model(folder, dtype_named(precision)).to(device_named(device))
        found[name] = evaluate_tasks(loaded, load_tokenizer(folder), tasks)
        del loaded
    table = Table(title=escape(f"{model} on {tasks}"))
    table.add_column("task")
    table.add_column("measure")
    for name in found:
        table.add_column(escape(name), justify="right")
    for task, measures in found[model].items():
        for measure in measures:
            values = [each[task][measure] for each in found.values()]
            table.add_row(escape(task), escape(measure), *map(number, values))
    return found, table


class _Judged(Protocol):
    """A model that is evaluated."""

    name: str

    def check_whole(self, option: str) -> None:
        """Raise OptionError unless transformers loads the model, as an option needs."""

    def tokenizer(self, needed: bool = True) -> Any | None:
        """Return its tokenizer; None where it has none and none is needed."""

    def vocabulary(self) -> int | None:
        """Return how many tokens it knows, if it says so."""

    def fitting(self, length: int) -> int:
        """Return how many tokens of a window it takes, and say if these are fewer."""

    def logits(self, cut: torch.Tensor) -> Any:
        """Return what :func:`~thresher.run.evaluate.perplexity` takes."""


def _judged(model: str, precision: str, device: str) -> _Judged:
    if not is_the_engines(model):
        return _InTransformers(model, precision, device)
    if precision != "auto" or device not in ("auto", "cpu"):
        raise OptionError(
            f"{model!r} runs in the engine, on the processor and in the precision that it was "
            "packed with; leave --precision and --device out"
        )
    return _InEngine(model)


class _InTransformers:
    """A folder, of which passes load a block at a time where that gives the same logits."""

    def __init__(self, model: str, precision: str, device: str) -> None:
        self.name = model
        self._folder, self._precision, self._device = resolve(model), precision, device
        check_language_model(self._folder)

    def check_whole(self, option: str) -> None:
        pass

    def tokenizer(self, needed: bool = True) -> Any | None:
        held = needed or holds_tokenizer(self._folder)
        return load_tokenizer(self._folder) if held else None

    def vocabulary(self) -> int | None:
        return vocabulary(build_model(self._folder))

    def fitting(self, length: int) -> int:
        return window_length(self._folder, length)

    def logits(self, cut: torch.Tensor) -> Any:
        quantization = read_config(self._folder).get("quantization_config") or {}
        # Layers that are loaded packed may round their inputs, which dense ones do not.
        if quantization.get("packed"):
            return load_model(self._folder).to(device_named(self._device))
        precision = dtype_named(self._precision)
        return folder_logits(self._folder, cut, precision=precision, device=self._device)


class _InEngine:
    """A folder of the engine's, or a GGUF file."""

    def __init__(self, model: str) -> None:
        self.name = model

    @cached_property
    def _engine(self) -> Engine:
        # Not before all that could be refused has been looked at.
        return Engine(self.name)

    def check_whole(self, option: str) -> None:
        raise OptionError(
            f"{self.name!r} runs in the engine, where {option} cannot be had; leave it out, or "
            "name the folder that the engine's was made from"
        )

    def tokenizer(self, needed: bool = True) -> Any | None:
        if needed and self._engine.tokenizer is None:
            raise DataError(
                f"{self.name!r} has no tokenizer; pack the model again with one, or pass its "
                "tokens to thresher.perplexity"
            )
        return self._engine.tokenizer

    def vocabulary(self) -> int | None:
        return self._engine.compiled.vocabulary

    def fitting(self, length: int) -> int:
        fitting = min(length, self._engine.context)
        if fitting < length:
            tell(f"windows of {fitting} tokens, all the context that the model has")
        return fitting

    def logits(self, cut: torch.Tensor) -> Any:
        return self._engine
