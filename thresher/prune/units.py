"""Making a model that is in memory smaller, unit by unit of its coupled groups."""

from __future__ import annotations

__all__ = ["prune_units"]

import copy
import dataclasses
import sys
import time
import warnings
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from ..core.compiled import uncompiled
from ..core.errors import DataError, LayerError, OptionError
from ..core.machine import versions
from ..core.progress import progress_bar
from ..core.remembered import remember, remembered
from ..parts.activations.attached import PRUNE_FIRST, check_none
from ..parts.coverage import cover
from ..parts.given import check_is_model
from ..parts.groups.find import Coupled, Group, find_groups
from ..parts.groups.shrink import Shrunk, prove, shrink
from ..parts.groups.sizes import note_sizes
from ..parts.layers import Layer
from ..parts.moments import Cross, Moment, Norm
from ..parts.spreads import Ranked, Removed
from ..parts.statistics import Statistics
from ..stream.gradients import Loss
from ..stream.inputs import as_input
from ..stream.passes import calibrating, call
from ..stream.precision import Precision
from ..stream.samples import as_samples
from ..stream.source import InMemory
from ..stream.stream import Stream
from ..stream.units import find_units
from ..stream.walk import tensors
from .losses import default_loss
from .record import LayerRecord, PruneRecord, circumstances
from .stock import fit_configuration, stock_groups
from .unit_bias import add_biases, put_into_bias
from .unit_example import described, example_for
from .unit_recipe import UnitRecipe
from .unit_record import layer_records, shapes_before, structure_of
from .unit_refit import columns_that_stay, refit
from .unit_search import Candidates, find_attentions, is_heads
from .unit_survey import Survey

#: How far from the density that was asked for is worth a warning.
_FAR = 0.05
#: Why a group stays of which a method does not remove units.
_OF_HEADS = "the method removes no part of what is several columns wide"


def prune_units(
    model: nn.Module,
    recipe: UnitRecipe,
    data: Any = None,
    *,
    example: Any = None,
    tokenizer: Any = None,
    windows: int | None = None,
    length: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    loss: Loss = default_loss,
    progress: bool = True,
) -> nn.Module:
    """Return a smaller model.

    Parameters
    ----------
    model : nn.Module
        Any module; it stays as it is.
    recipe : UnitRecipe
        How to choose and to make up.
    data : optional
        Calibration data, see :func:`thresher.prune`. Recipes that look at none need none.
    example : optional
        One input that the model can be called with, which shows what is coupled; by default the
        first of the data.
    tokenizer, windows, length
        See :func:`thresher.prune`.
    include, exclude : sequence of str
        Shell patterns of layer names, see :func:`~thresher.parts.coverage.find_layers`. Groups
        that an excluded layer is part of stay whole.
    loss : callable, optional
        ``loss(model, sample)`` for methods that search by it, see :func:`thresher.prune`.
    progress
        See :func:`thresher.prune`.

    Returns
    -------
    nn.Module
        Of the same class, in evaluation mode if `model` was.

    Raises
    ------
    ThresherError
        If an option, a layer or the data cannot be used, or no group can meet the density.
    """
    check_is_model(model, "thresher.prune", "thresher prune")
    # What is made in inference mode could not be changed outside it.
    with torch.inference_mode(False):
        return _Run(model, recipe, include, exclude, loss).execute(
            data, example, tokenizer, windows, length, progress
        )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise LayerError(
            f"{type(model).__name__} cannot be copied ({str(error).splitlines()[0]}); where a hook "
            "computes a weight, make it a parameter first, with "
            "torch.nn.utils.remove_weight_norm or torch.nn.utils.prune.remove"
        ) from error


class _Run:
    def __init__(
        self,
        model: nn.Module,
        recipe: UnitRecipe,
        include: Sequence[str],
        exclude: Sequence[str],
        loss: Loss,
    ) -> None:
        recipe.target  # noqa: B018 - raises now if nothing says how much to keep
        self.recipe, self.exclude, self.loss = recipe, exclude, loss
        with uncompiled(model) as self.dense:
            check_none(self.dense, PRUNE_FIRST)
            self.model = _copied(self.dense)
        self.coverage = cover(self.model, include=include, exclude=exclude)
        for layer in self.coverage.layers:
            layer.check_in_memory()
            layer.check_finite()
        card = getattr(recipe, "card", None)
        self.record = PruneRecord(
            model=str(getattr(model, "name_or_path", "") or type(model).__name__),
            method=card.name if card else "recipe",
            recipe=repr(recipe),
            parts=recipe.recorded(),
            pattern="units",
            density_asked=recipe.target,
            calibration={"source": "none"},
            versions=versions(),
            made=circumstances(self.coverage.layers[0].weight.device),
        )

    def execute(
        self,
        data: Any,
        example: Any,
        tokenizer: Any,
        windows: int | None,
        length: int | None,
        progress: bool,
    ) -> nn.Module:
        started = time.perf_counter()
        whole, samples = self._samples(data, tokenizer, windows, length)
        if self.recipe.bias:
            add_biases(self.coverage.layers)
        if example is None and data is not None:
            # A text's first window will do.
            one = (1, 1024)
            some = samples or as_samples(self.model, data, tokenizer=tokenizer, default=one)[0]
            example = some[0]
        self.example = example_for(self.model, example)
        if samples:
            self._check_runs("the data", samples[0])
        coupled = self._coupled()
        groups = self._removable(coupled)
        total = self._weights(coupled, {})
        with torch.no_grad():
            candidates = Candidates(
                self.model,
                coupled,
                self.layers,
                self._ranked(groups, samples),
                self.attentions,
                # A loss of the user's own is given labels too.
                samples if self.loss is default_loss else whole,
                self.loss,
                lambda layers: self._stream(layers, samples, dense=False),
            )
            removed, gone = self.recipe.choose(candidates, self.recipe.target * total)
            if not any(removed.values()) and not gone:
                raise self._too_dense(candidates.groups, coupled, total)
            records = self._refit(groups, removed, samples, progress)
            for attention in gone:
                attention.silence()
        shrunk = shrink(self.model, coupled, removed, self._run)
        if self._stock:
            made = fit_configuration(shrunk.module, coupled, removed, self._run)
            shrunk = Shrunk(made)
        elif hasattr(self.model, "save_pretrained"):
            small: Any = shrunk.module
            note_sizes(small.config, shrunk.settings)
        self.record.layers = layer_records(self.model, shrunk.module, self.coverage, gone, records)
        self.record.coverage = self.coverage.summary()
        self.record.structure |= structure_of(coupled, self.layers, removed, gone, shrunk.settings)
        if not hasattr(self.model, "save_pretrained"):
            self._note_cut(shrunk.module)
        self.record.timings = {"total": time.perf_counter() - started}
        self._say_what_is_left(self.record.structure["weights"])
        remember(shrunk.module, self.record)
        return shrunk.module

    def _say_what_is_left(self, weights: dict[str, int]) -> None:
        found = weights["after"] / weights["before"]
        if abs(found - self.recipe.target) > _FAR:
            warnings.warn(
                f"density {self.recipe.target:.4g} was asked for, and {found:.4g} is the nearest "
                "that whole units of this model's sizes give",
                stacklevel=4,
            )

    def _note_cut(self, small: nn.Module) -> None:
        """Note what makes the first dense module the smaller one, also where it was cut before."""
        structure, before = self.record.structure, remembered(self.dense)
        structure["cut"] = shapes_before(self.model, small)
        if isinstance(before, PruneRecord) and "cut" in before.structure:
            structure["cut"] |= before.structure["cut"]
            said = [*before.structure["settings"], *structure["settings"]]
            last = {(each["module"], each["name"], each["of_config"]): each for each in said}
            structure["settings"] = list(last.values())

    @property
    def _stock(self) -> bool:
        """Whether the model has to stay one that transformers builds of a configuration."""
        known = sys.modules.get("transformers")
        return (
            self.recipe.stock
            and known is not None
            and isinstance(self.model, known.PreTrainedModel)
        )

    def _run(self, model: nn.Module) -> Any:
        with calibrating(model):
            return call(model, self.example)

    def _samples(
        self, data: Any, tokenizer: Any, windows: int | None, length: int | None
    ) -> tuple[list[Any], list[Any]]:
        """Return samples as they came, and as inputs of the model."""
        if not self.recipe.needs:
            return [], []
        if data is None and not hasattr(self.model, "get_input_embeddings"):
            raise DataError(
                f"{type(self.model).__name__} needs calibration data for {self.record.method!r}: "
                "pass data=, an iterable of model inputs"
            )
        whole, self.record.calibration = as_samples(
            self.model, data, tokenizer=tokenizer, windows=windows, length=length, whole=True
        )
        self.record.calibration.pop("asked", None)
        return whole, [as_input(self.model, sample) for sample in whole]

    def _coupled(self) -> Coupled:
        self._check_runs("the example", self.example)
        found = find_groups(self.model, self._run, self.example)
        self.layers = self._layers(found)
        allowed, left = self._allowed(found)
        heads = [g for g in found.groups if left.get(g.name, _OF_HEADS) == _OF_HEADS]
        self.attentions = find_attentions(found, heads, self.layers)
        # Trying a kind takes passes of the model, which those that stay anyway are spared.
        proved = prove(self.model, dataclasses.replace(found, groups=tuple(allowed)), self._run)
        self.record.structure = {"whole": {**proved.pinned, **left}}
        return proved

    def _check_runs(self, what: str, sample: Any) -> None:
        if not all(bool(x.isfinite().all()) for x in tensors(sample) if x.is_floating_point()):
            raise DataError(f"{what} holds numbers that are not finite, and shows nothing")
        try:
            with torch.no_grad(), calibrating(self.model):
                call(self.model, sample)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise DataError(
                f"{type(self.model).__name__} does not run on {what}, {described(sample)}: {error}"
            ) from error

    def _allowed(self, coupled: Coupled) -> tuple[list[Group], dict[str, str]]:
        """Return the groups that may lose units, and why others may not."""
        named = list(self.model.named_parameters(remove_duplicate=False))
        frozen = {name for name, parameter in named if not parameter.requires_grad}
        mixed = len(frozen) < len(named)
        pruned = {layer.parameter for layer in self.coverage.layers}
        allowed, left = [], {}
        for group in coupled.groups:
            names = [name for m in group.members for name in coupled.trace.names[m.parameter]]
            reason = None
            if "#" in group.name:
                reason = "what is within it goes, or stays, as a whole"
            elif any(
                fnmatch(n, p) or fnmatch(n.rpartition(".")[0], p)
                for n in names
                for p in self.exclude
            ):
                reason = "an excluded layer is part of it"
            elif mixed and not frozen.isdisjoint(names):
                reason = "a frozen layer is part of it"
            elif not any(m.parameter in pruned for m in group.consumers):
                reason = "no layer that may be pruned takes it"
            elif not self.recipe.heads and is_heads(group):
                reason = _OF_HEADS
            if reason is None:
                allowed.append(group)
            else:
                left[group.name] = reason
        return allowed, left

    def _removable(self, coupled: Coupled) -> list[Group]:
        """Return the proved groups, for a stock model those that a configuration can say."""
        groups, whole = list(coupled.groups), self.record.structure["whole"]
        others: dict[str, str] = {}
        if self._stock:
            groups, others = stock_groups(self.model, coupled, groups, self._run)
            whole |= others
        if not groups:
            # What only a configuration stands against says most.
            why = next(iter((others or whole).items()), ("", "it has no parameters"))
            raise LayerError(
                f"no unit of {type(self.model).__name__} can be removed; {why[0]} stays whole: "
                f"{why[1]}"
            )
        return groups

    def _too_dense(self, groups: Sequence[Ranked], coupled: Coupled, total: int) -> OptionError:
        """Return that nothing goes, and what the least would be."""
        least = max(
            self._weights(coupled, {group.name: group.cheapest(group.step)}) for group in groups
        )
        return OptionError(
            f"density {self.recipe.target:.4g} is nearer to the whole model than to one without a "
            f"unit; with one less the density is {least / total:.4g}"
        )

    def _layers(self, coupled: Coupled) -> dict[str, list[Layer]]:
        first = {name: own for own, names in coupled.trace.names.items() for name in names}
        found: dict[str, list[Layer]] = {}
        for layer in self.coverage.layers:
            found.setdefault(first.get(layer.parameter, layer.parameter), []).append(layer)
        return found

    def _stream(self, layers: Sequence[Layer], samples: Sequence[Any], *, dense: bool) -> Stream:
        weight = layers[0].weight
        used = Precision.natural(weight.dtype, weight.device, None)
        units = find_units(self.model, layers)
        return Stream(InMemory(self.model), units, samples, precision=used, dense=dense)

    def _ranked(self, groups: Sequence[Group], samples: Sequence[Any]) -> list[Ranked]:
        self._means: dict[str, torch.Tensor] = {}
        by_change = self.recipe.spread.by_change
        # What no moment is needed of would not be run.
        more = self.recipe.bias or by_change
        also: frozenset[type[Moment]] = frozenset({Norm}) if more else frozenset()
        survey = Survey(self.recipe.ranking, self.layers, groups, also, self._note_means, by_change)
        survey.take(self._stream(survey.watched, samples, dense=False))
        for group in groups:
            if group.name not in survey.places:
                self.record.structure["whole"][group.name] = "the data never reaches its layers"
        return survey.ranked(self.model)

    def _note_means(self, layer: Layer, statistics: Statistics) -> None:
        if self.recipe.bias:
            self._means[layer.name] = statistics[Norm].mean

    def _refit(
        self,
        groups: Sequence[Group],
        removed: Removed,
        samples: Sequence[Any],
        progress: bool,
    ) -> list[LayerRecord]:
        masks = columns_that_stay(self.layers, groups, removed)
        every = [layer for some in self.layers.values() for layer in some if layer.name in masks]
        if self.recipe.bias:
            for layer in every:
                put_into_bias(layer, masks[layer.name], self._means.get(layer.name))
        if not self.recipe.update.needs:
            samples = []
        stream = self._stream(every, samples, dense=Cross in self.recipe.update.needs)
        stored = {layer.name: layer.weight.dtype for layer in every}
        with progress_bar(len(stream.units), progress) as advance:
            return refit(stream, self.recipe, masks, stored, advance)

    def _weights(self, coupled: Coupled, removed: Removed) -> int:
        """Return how many weights the covered layers keep."""
        return coupled.weights(self.layers, removed)
