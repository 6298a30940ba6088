"""Pruning a model that is in memory."""

from __future__ import annotations

__all__ = ["prune"]

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..core.card import find
from ..core.errors import DataError, OptionError
from ..core.progress import progress_bar
from ..parts.calibration import embedded_text, token_windows
from ..parts.layers import Layer, find_layers
from ..parts.moments import Moment, backward
from ..parts.statistics import Statistics
from ..stream.blocks import BlockChain, call, find_blocks
from ..stream.collect import collect_gradients
from ..stream.hidden import HiddenStates
from .layerwise import BlockwisePruner
from .recipe import Recipe
from .record import PruneRecord, versions


def prune(
    model: nn.Module,
    method: str | Recipe,
    data: Any = None,
    *,
    density: float | None = None,
    pattern: str | Any = None,
    budget: str | Any = None,
    update: str | Any = None,
    tokenizer: Any = None,
    windows: int = 64,
    length: int = 1024,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: bool = True,
) -> PruneRecord:
    """Prune a model in place.

    Parameters
    ----------
    model : nn.Module
        Any module with Linear, convolution or Hugging Face ``Conv1D`` layers. Its blocks are
        pruned in order, each calibrated on the outputs of its pruned predecessors.
    method : str or Recipe
        A method of the catalogue such as ``"sparsegpt"``, or a composed recipe.
    data : optional
        Calibration data: texts (a string or a list of them, for language models), a tensor
        of token windows, or an iterable of model inputs (tensors, tuples of arguments, or
        dicts of keywords). Methods that look at no data need none; a language model
        otherwise falls back on Python's documentation.
    density : float, optional
        Share of the prunable weights to keep, in (0, 1].
    pattern, budget, update : str or part, optional
        Replace the method's own, see :class:`Recipe`.
    tokenizer : optional
        For texts; by default loaded from where the model came from.
    windows, length : int, default 64 and 1024
        How many windows of how many tokens texts are cut into, at most.
    loss : callable, optional
        ``loss(model, sample)`` for methods that use gradients; by default the next-token
        loss of a language model.
    include, exclude : sequence of str
        Shell patterns of layer names to prune although they would stay dense (the output
        head), and to leave dense.
    progress : bool, default True
        Show a progress bar on a terminal.

    Returns
    -------
    PruneRecord
        Densities, errors and timings by layer; the masks are the zeros of the weights.

    Raises
    ------
    ThresherError
        If an option, a layer or the data cannot be used; the model is then unchanged or,
        when a later block fails numerically, pruned up to it.

    Examples
    --------
    >>> import torch, thresher as th
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> th.prune(model, "magnitude", density=0.5).density
    0.5
    """
    recipe = as_recipe(method).with_options(density, pattern, budget, update)
    recipe.target  # noqa: B018 - raises now if neither density nor pattern says how much
    layers = find_layers(model, include=include, exclude=exclude)
    for layer in layers:
        layer.check_finite()
    training = model.training
    model.eval()
    try:
        samples, source = _samples(model, recipe, data, tokenizer, windows, length)
        record = PruneRecord(
            model=str(getattr(model, "name_or_path", "") or type(model).__name__),
            method=method_name(recipe),
            recipe=repr(recipe),
            pattern=recipe.pattern.spec,
            density_asked=recipe.target,
            calibration=source,
            versions=versions(),
        )
        _prune_samples(model, layers, recipe, samples, record, loss, progress)
    finally:
        model.train(training)
    return record


def as_recipe(method: str | Recipe) -> Recipe:
    """Return the recipe that `method` names, or `method` itself.

    Raises
    ------
    OptionError
        If there is no such method, or it is none that prunes a trained model.
    """
    if isinstance(method, Recipe):
        return method
    kind = find(method)
    if not issubclass(kind, Recipe):
        raise OptionError(
            f"method {method!r} does not prune a trained model; `thresher methods {method}` says "
            "what it does"
        )
    return kind()  # type: ignore[call-arg]


def method_name(recipe: Recipe) -> str:
    """Return the card name of a recipe, or ``"recipe"``."""
    card = getattr(recipe, "card", None)
    return card.name if card else "recipe"


def needed_statistics(recipe: Recipe) -> frozenset[type[Moment]]:
    """Return everything that the recipe's parts need, its budget included."""
    surveyed = recipe.budget.score.needs if recipe.budget.score else frozenset()
    return recipe.needs | surveyed


def _prune_samples(
    model: nn.Module,
    layers: list[Layer],
    recipe: Recipe,
    samples: list[Any],
    record: PruneRecord,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None,
    progress: bool,
) -> None:
    chain = _chain(model, layers, samples)
    gradients: dict[str, Statistics] | None = None
    if needs := backward(needed_statistics(recipe)):
        gradients = collect_gradients(model, layers, needs, samples, loss or _next_token_loss)
    with torch.no_grad(), progress_bar(2 * len(chain.names), progress) as advance:
        pruner = BlockwisePruner(chain, layers, recipe, progress=advance)
        hidden = HiddenStates(chain.enter(samples) if samples else [])
        counts = pruner.counts(hidden, samples, gradients)
        for index, name in enumerate(chain.names):
            states = hidden if name else HiddenStates(samples)
            _, records = pruner.prune_block(index, states, counts, gradients)
            record.layers += records
    record.timings = dict(pruner.timings)


def _chain(model: nn.Module, layers: list[Layer], samples: list[Any]) -> BlockChain:
    if not samples:
        return BlockChain(model, [""])
    chain = find_blocks(model, samples[0])
    prefixes = tuple(f"{name}." for name in chain.names)
    if chain.names != [""] and not all(f"{layer.name}.".startswith(prefixes) for layer in layers):
        chain.names.append("")
    return chain


def _samples(
    model: nn.Module, recipe: Recipe, data: Any, tokenizer: Any, windows: int, length: int
) -> tuple[list[Any], dict[str, Any]]:
    """Return model inputs, and a description of them."""
    if not needed_statistics(recipe):
        return [], {"source": "none"}
    is_language_model = hasattr(model, "get_input_embeddings")
    if data is None:
        if not is_language_model:
            raise DataError(
                f"{type(model).__name__} needs calibration data for {method_name(recipe)!r}: pass "
                "data=, an iterable of model inputs"
            )
        data = embedded_text()
    if isinstance(data, str) or (
        isinstance(data, list | tuple) and data and isinstance(data[0], str)
    ):
        data = token_windows(tokenizer or _tokenizer(model), data, length=length, count=windows)
    if isinstance(data, torch.Tensor) and is_language_model:
        samples: list[Any] = [{"input_ids": row.unsqueeze(0)} for row in data]
    elif isinstance(data, torch.Tensor):
        samples = [data]
    else:
        samples = list(data)
    if not samples:
        raise DataError("the calibration data is empty")
    device = next(model.parameters()).device
    described = {"source": "data", "windows": len(samples)}
    if isinstance(data, torch.Tensor):
        described["length"] = int(data.shape[-1])
    return [_to_device(sample, device) for sample in samples], described


def _to_device(sample: Any, device: torch.device) -> Any:
    if isinstance(sample, torch.Tensor):
        return sample.to(device)
    if isinstance(sample, dict):
        return {key: _to_device(value, device) for key, value in sample.items()}
    if isinstance(sample, list | tuple):
        return type(sample)(_to_device(value, device) for value in sample)
    return sample


def _tokenizer(model: nn.Module) -> Any:
    from transformers import AutoTokenizer

    name = getattr(model, "name_or_path", "")
    if not name:
        raise DataError("texts need a tokenizer: pass tokenizer=, or windows of token ids as data=")
    return AutoTokenizer.from_pretrained(name)


def _next_token_loss(model: nn.Module, sample: Any) -> torch.Tensor:
    if not isinstance(sample, dict) or "input_ids" not in sample:
        raise OptionError("this method uses gradients: pass loss=, a function of (model, sample)")
    output = call(model, {**sample, "labels": sample["input_ids"]})
    assert isinstance(output.loss, torch.Tensor)
    return output.loss
