"""Pruning a model that is in memory."""

from __future__ import annotations

__all__ = ["prune"]

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import nn

from ..core.card import find
from ..core.compiled import uncompiled
from ..core.dtypes import dtype_named
from ..core.errors import DataError, LayerError, OptionError
from ..core.machine import memory, versions
from ..core.options import check_choice, density_of
from ..core.progress import progress_bar
from ..core.remembered import remember
from ..parts.activations.attached import PRUNE_FIRST, check_none
from ..parts.calibration import warn_of_fewer
from ..parts.coverage import cover
from ..parts.fisher import GradientSamples
from ..parts.given import check_is_model
from ..parts.layers import Layer
from ..parts.moments import Cross, Moment, backward, forward, perturbed
from ..parts.statistics import Statistics
from ..run.packed.layer import PackedLayer
from ..stream.gradients import collect_gradients
from ..stream.inputs import as_input
from ..stream.passes import calibrating, placed
from ..stream.precision import (
    Precision,
    runnable,
    widened,
    widened_sample,
)
from ..stream.ranks import check_same_samples, share_of
from ..stream.samples import as_samples
from ..stream.slopes import collect_slopes
from ..stream.source import InMemory, Source
from ..stream.stream import Stream
from ..stream.units import find_units
from ..stream.uses import find_uses
from .layerwise import UnitPruner
from .losses import default_loss
from .recipe import Recipe
from .record import PruneRecord, circumstances
from .smaller import as_smaller_recipe, check_not_given, make_smaller
from .smaller_recipe import SmallerRecipe


def prune(
    model: nn.Module,
    method: str | Recipe | SmallerRecipe,
    data: Any = None,
    *,
    density: float | None = None,
    sparsity: float | None = None,
    example: Any = None,
    pattern: str | Any = None,
    budget: str | Any = None,
    update: str | Any = None,
    tokens: str | Any = None,
    stages: bool | None = None,
    tokenizer: Any = None,
    windows: int | None = None,
    length: int | None = None,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    unseen: str = "magnitude",
    precision: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Any:
    """Prune a model in place; methods that make it smaller return a smaller one instead.

    Parameters
    ----------
    model : nn.Module
        Any module with Linear, convolution, recurrent or attention layers, experts, or Hugging
        Face ``Conv1D`` layers. Its blocks, and the layers outside them, are pruned in the order
        in which they run, each calibrated on the outputs of its pruned predecessors.
    method : str, Recipe or SmallerRecipe
        A method of the catalogue such as ``"sparsegpt"`` or ``"structured"``, or a composed recipe.
    data : optional
        Calibration data. For language models: texts, a string or an iterable of them; rows with a
        ``text`` or a chat (``messages``), such as a split of a data set of ``datasets``, chats
        through the tokenizer's template; a tensor of token windows, or an iterable of tensors of
        token ids. For all models: a tensor, such as images, or an iterable of model inputs
        (tensors, tuples of arguments, or dicts of keywords). Tuples are read as torch's loaders
        make them, inputs before labels: what goes beyond the arguments that the model requires,
        but for the first, is left out as labels, which the record says. Optional arguments, such
        as a mask, are given in a dict. Methods that look at no data need none; a language
        model otherwise falls back on Python's documentation. Where ``torch.distributed`` is
        initialised the samples are shared out over its processes, each of which prunes its own
        copy of the model, to the same weights.
    density : float, optional
        Share of the prunable weights to keep, in (0, 1].
    sparsity : float, optional
        Share of them to remove, in [0, 1), instead of `density`.
    example : optional
        For methods that make a model smaller: one input that it can be called with, which shows
        what slices of its weights go together; by default the first of the data.
    pattern, budget, update, tokens : str or part, optional
        Replace the method's own, see :class:`Recipe`.
    stages : bool, optional
        Replaces the method's own, see :class:`Recipe`.
    tokenizer : optional
        For texts; by default loaded from where the model came from.
    windows, length : int, optional
        How many windows of how many tokens texts are cut into, at most, by default 64 and 1024.
        Other data is used as it is.
    loss : callable, optional
        ``loss(model, sample)`` for methods that use gradients, or search by the loss; by default
        the model's own, on the labels that a sample has, or the next-token loss of a language
        model, without tokens whose attention mask is 0. A sample comes to it whole, with its
        labels.
    include, exclude : sequence of str
        Shell patterns of layer names to prune although they would stay dense (the output
        head), and to leave dense; see :func:`~thresher.parts.coverage.find_layers`.
    unseen : {"magnitude", "dense"}, default "magnitude"
        What becomes of layers that the data never reaches, such as experts that are never
        chosen: pruned by magnitude alone, or left dense. The record names them.
    precision : torch.dtype or str, optional
        Of forward passes. By default, or if ``"auto"``, that of the weights where the device
        multiplies it at full speed or the model runs in no other, otherwise float32.
    device : str or torch.device, optional
        Where to run the model and prune its weights, ``"auto"``, ``"cpu"`` or ``"cuda:0"``;
        afterwards it is where it was. By default it stays where it is.
    progress : bool, default True
        Show a progress bar on a terminal.

    Returns
    -------
    PruneRecord or nn.Module
        Densities, errors and timings by layer, and which parameters were not pruned; the
        masks are the zeros of the weights. Of methods that make a model smaller it is the smaller
        model, and :func:`~thresher.run.files.export.save` writes its record beside it.

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
    density = density_of(density, sparsity)
    smaller = as_smaller_recipe(method)
    if smaller is not None:
        given = {"pattern": pattern, "budget": budget, "update": update, "tokens": tokens}
        given |= {"stages": stages, "precision": precision, "device": device}
        given |= {} if smaller.searches else {"loss": loss}
        check_not_given(given, smaller)
        return make_smaller(
            model,
            smaller.with_density(density),
            data,
            prune_weights=prune,
            example=example,
            tokenizer=tokenizer,
            windows=windows,
            length=length,
            include=include,
            exclude=exclude,
            loss=loss or default_loss,
            progress=progress,
        )
    recipe = as_recipe(method).with_options(density, pattern, budget, update, tokens, stages)
    recipe = recipe.settle()
    check_choice("unseen", unseen, ("magnitude", "dense"))
    asked = dtype_named(precision)
    check_is_model(model, "thresher.prune", "thresher prune")
    # What is made in inference mode could not be changed outside it.
    with torch.inference_mode(False), uncompiled(model) as model:
        _check_not_packed(model)
        check_none(model, PRUNE_FIRST)
        coverage = cover(model, include=include, exclude=exclude, strict=False)
        for layer in coverage.layers:
            layer.check_in_memory()
            _check_changeable(layer)
            layer.check_finite()
        with placed(model, device):
            whole, described = _samples(model, recipe, data, tokenizer, windows, length)
            name = str(getattr(model, "name_or_path", "") or type(model).__name__)
            weight = coverage.layers[0].weight
            record = new_record(name, recipe, weight.device)
            record.calibration = described
            stored = {layer.name: layer.weight.dtype for layer in coverage.layers}
            used = Precision.natural(weight.dtype, weight.device, asked)
            if whole and asked is None:
                used = runnable(used, model, as_input(model, whole[0]))
            if used.widens:
                whole = [widened_sample(sample, used) for sample in whole]
            samples = [as_input(model, sample) for sample in whole]
            check_same_samples(samples)
            # A loss of the user's own is given labels too.
            lossy = samples if loss is None else whole
            with widened(model, used):
                source = InMemory(model)
                find_uses(source, coverage, samples)
                record.coverage = coverage.summary()
                coverage.warn_of_unknown()
                needs = needed_moments(recipe)
                gradients = gradients_of(source, coverage.layers, needs, lossy, loss, progress)
                inputs = share_of(samples) if forward(needed_moments(recipe)) else []
                units = find_units(model, coverage.layers)
                dense, attention = Cross in recipe.needs, recipe.tokens.by_attention
                stream = Stream(
                    source, units, inputs, precision=used, dense=dense, attention=attention
                )
                with torch.no_grad(), progress_bar(len(units), progress) as advance:
                    pruner = UnitPruner(
                        stream,
                        coverage.layers,
                        recipe,
                        gradients=gradients,
                        unseen=unseen,
                        stored=stored,
                        progress=advance,
                    )
                    (counts,) = pruner.counts([recipe.target])
                    with closing(stream.visits()) as visits:
                        for visit in visits:
                            record.layers += pruner.prune(visit, counts)[1]
            record.timings = dict(pruner.timings)
            record.unseen = pruner.idle
            record.warn_of_revived()
        # For `thresher.save`, which writes it beside the weights.
        remember(model, record)
    return record


def as_recipe(method: str | Recipe | SmallerRecipe) -> Recipe:
    """Return the recipe that `method` names, or `method` itself.

    Raises
    ------
    OptionError
        If there is no such method, or it is none that prunes a trained model.
    """
    if isinstance(method, Recipe):
        return method
    kind = find(method) if isinstance(method, str) else type(method)
    if issubclass(kind, SmallerRecipe):
        raise OptionError(
            f"method {method!r} makes models smaller, of which there are no zeros to keep; prune "
            "with thresher.prune or `thresher prune`"
        )
    if not issubclass(kind, Recipe):
        raise OptionError(
            f"method {method!r} does not prune a trained model; `thresher methods {method}` says "
            "what it does"
        )
    return kind()  # type: ignore[call-arg]


def method_name(recipe: Recipe | SmallerRecipe) -> str:
    """Return the card name of a recipe, or ``"recipe"``."""
    card = getattr(recipe, "card", None)
    return card.name if card else "recipe"


def needed_moments(recipe: Recipe) -> frozenset[type[Moment]]:
    """Return everything that the recipe's parts need, its budget included."""
    surveyed = recipe.budget.score.needs if recipe.budget.score else frozenset()
    return recipe.needs | surveyed


def new_record(model: str, recipe: Recipe, device: torch.device) -> PruneRecord:
    """Return the record of a run that is about to begin on a device."""
    return PruneRecord(
        model=model,
        method=method_name(recipe),
        recipe=repr(recipe),
        parts=recipe.recorded(),
        pattern=recipe.pattern.spec,
        density_asked=recipe.target,
        calibration={"source": "none"},
        versions=versions(),
        made=circumstances(device),
    )


def _check_not_packed(model: nn.Module) -> None:
    """Raise if a layer has been packed: it holds no weight that could be pruned."""
    packed = [name for name, module in model.named_modules() if isinstance(module, PackedLayer)]
    if packed:
        raise LayerError(
            f"layer {packed[0]!r} (and {len(packed) - 1} more) is packed already, and packed "
            "weights stay as they are: prune the model before thresher.pack; of a packed folder, "
            "`thresher export` writes a dense one"
        )


def _check_changeable(layer: Layer) -> None:
    """Raise if a weight cannot be changed in place."""
    name, weight = layer.name, layer.weight
    if weight.is_inference():
        raise LayerError(
            f"the weight of layer {name!r} was made under torch.inference_mode() and cannot be "
            "changed in place; make the model under torch.no_grad(), or prune a copy.deepcopy of it"
        )
    if any(
        size > 1 and step == 0 for size, step in zip(weight.shape, weight.stride(), strict=True)
    ):
        raise LayerError(
            f"several entries of the weight of layer {name!r} are one number in memory, as "
            "expand() makes them; give it weight.data = weight.data.clone()"
        )


def gradients_of(
    source: Source,
    layers: list[Layer],
    needs: frozenset[type[Moment]],
    samples: Sequence[Any],
    loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
    progress: bool = False,
    lines: bool = False,
) -> dict[str, Statistics] | None:
    """Return moments of gradients and slopes by layer, None where none are needed."""
    gradients, slopes = backward(needs), perturbed(needs)
    if not gradients | slopes:
        return None
    if GradientSamples in needs:
        _check_room(layers, len(samples))
    units, loss = find_units(source.model, layers), loss or default_loss
    found: dict[str, Statistics] = {}
    with calibrating(source.model):
        if slopes:
            with progress_bar(len(units), progress, lines) as advance:
                found = collect_slopes(source, units, slopes, samples, loss, advance)
        if gradients:
            backpropagated = collect_gradients(source, units, gradients, samples, loss)
            for name, statistics in found.items():
                backpropagated[name].adopt_gradients(statistics)
            found = backpropagated
    return found


def _check_room(layers: Sequence[Layer], samples: int) -> None:
    """Raise if the gradients of all samples are more than the machine has memory for."""
    weights, there = sum(layer.weight.numel() for layer in layers), memory()
    needed = 4 * samples * weights
    if there is not None and needed > there:
        raise OptionError(
            f"{samples} gradients of {weights} weights take {needed / 2**30:.0f} GiB, and the "
            f"machine has {there / 2**30:.0f}: give fewer samples (windows=, --windows) or leave "
            "layers out (exclude=, --exclude)"
        )


def _samples(
    model: nn.Module,
    recipe: Recipe,
    data: Any,
    tokenizer: Any,
    windows: int | None,
    length: int | None,
) -> tuple[list[Any], dict[str, Any]]:
    """Return model inputs, and a description of them."""
    if not needed_moments(recipe):
        return [], {"source": "none"}
    if data is None and not hasattr(model, "get_input_embeddings"):
        raise DataError(
            f"{type(model).__name__} needs calibration data for {method_name(recipe)!r}: pass "
            "data=, an iterable of model inputs"
        )
    samples, described = as_samples(
        model, data, tokenizer=tokenizer, windows=windows, length=length, whole=True
    )
    asked = described.pop("asked", 0)
    if data is not None and asked:
        warn_of_fewer(len(samples), asked, described["length"], "the data")
    return samples, described
