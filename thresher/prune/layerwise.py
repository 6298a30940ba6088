"""Pruning one unit of layers after another."""

from __future__ import annotations

__all__ = ["UnitPruner"]

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import torch

from ..core.errors import LayerError
from ..core.machine import trim_memory
from ..parts.allotment import allot
from ..parts.budgets import LayerSummary, summarise
from ..parts.layers import Layer
from ..parts.moments import Moment, backward, forward, perturbed
from ..parts.scores import Magnitude, Score
from ..parts.statistics import Statistics
from ..stream.attention import WatchingAttention
from ..stream.collect import Call, Stage, collect_inputs, ending_at
from ..stream.stages import find_stages
from ..stream.stream import Stream
from ..stream.visit import Visit
from .cuts import Cut, cut_layer, prune_layer
from .recipe import Recipe
from .record import LayerRecord

Gradients = Mapping[str, Statistics]


class UnitPruner:
    """Prunes the units of a stream in order, each fed by its pruned predecessors.

    Parameters
    ----------
    stream : Stream
        The units and the samples.
    layers : list of Layer
        The layers to prune.
    recipe : Recipe
        How to prune them.
    gradients : mapping of str to Statistics, optional
        Moments of gradients and slopes by layer, where the recipe's parts need them.
    unseen : {"magnitude", "dense"}, default "magnitude"
        What becomes of layers that the data never reaches.
    stored : mapping of str to torch.dtype, optional
        By layer, see :func:`prune_layer`.
    progress : callable, optional
        ``progress(text)`` is called when a step of the work ends.

    Attributes
    ----------
    timings : dict of str to float
        Seconds by phase.
    idle : list of str
        Layers that the data never reached.
    """

    def __init__(
        self,
        stream: Stream,
        layers: Sequence[Layer],
        recipe: Recipe,
        *,
        gradients: Gradients | None = None,
        unseen: str = "magnitude",
        stored: Mapping[str, torch.dtype] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.stream = stream
        self.layers = list(layers)
        self.recipe = recipe
        self.timings: dict[str, float] = defaultdict(float)
        self.idle: list[str] = []
        self._gradients = gradients
        self._unseen = unseen
        self._stored = stored or {}
        self._progress = progress or (lambda text: None)
        self._check_shapes()

    def counts(self, targets: Sequence[float]) -> list[dict[str, int]]:
        """Decide how many weights every layer keeps.

        Parameters
        ----------
        targets : sequence of float
            Shares of all the layers' weights to keep.

        Returns
        -------
        list of dict of str to int
            By layer name, for each target.
        """
        budget = self.recipe.budget
        summaries = self._survey() if budget.surveys else self._shapes_only()
        # Without data a layer's scores are on another scale than those of the others.
        ranked = [summaries[layer.name] for layer in self.layers if layer.name in summaries]
        names, shapes = zip(*((layer.name, layer.shape) for layer in self.layers), strict=True)
        found = []
        for target in targets:
            asked = budget(ranked, target) if ranked else []
            by_name = dict(zip((summary.name for summary in ranked), asked, strict=True))
            densities = [by_name.get(name, target) for name in names]
            kept = allot(self.recipe.pattern, shapes, densities, target)
            found.append(dict(zip(names, kept, strict=True)))
        return found

    def prune(
        self, visit: Visit, counts: Mapping[str, int], others: Sequence[Cut] = ()
    ) -> tuple[dict[str, torch.Tensor], list[LayerRecord]]:
        """Prune the layers of one unit.

        Parameters
        ----------
        visit : Visit
            The unit.
        counts : mapping of str to int
            Weights to keep per layer.
        others : sequence of Cut, optional
            Cuts to make of the same weights from the same moments; the unit is left without them.

        Returns
        -------
        masks : dict of str to Tensor
            By layer name, in the weights' own shapes.
        records : list of LayerRecord
        """
        for cut in others:
            cut.clear()
        masks, records = {}, {}
        stages = self._stages(visit)
        weights = self._token_weights(visit, stages[0])
        paused = len(stages) > 1 and visit.pause_at(stages)
        for stage in stages:
            calls = visit.calls(stage) if paused else None
            statistics = self._statistics(visit, self.recipe.needs, stage, weights, calls)
            with self._timed("pruning"):
                found = self.recipe.together(visit, statistics, counts)
                for cut in others:
                    cut.found = self.recipe.together(visit, statistics, cut.counts)
                for layer in stage.layers:
                    known = statistics.pop(layer.name)
                    if not self._is_seen(known, self.recipe.needs):
                        self.idle.append(layer.name)
                    self._try_others(layer, known, others)
                    recipe, keep = self._recipe_for(layer, known, counts[layer.name])
                    stored, done = self._stored.get(layer.name), found.get(layer.name)
                    mask, record = prune_layer(
                        layer, visit.index, recipe, known, keep, stored, done
                    )
                    masks[layer.name], records[layer.name] = mask, record
        self._progress(f"{self.recipe.done} {visit.unit.name or 'the model'}")
        return masks, [records[layer.name] for layer in visit.unit.layers]

    def _stages(self, visit: Visit) -> list[Stage]:
        """Return the layers in the groups in which they are calibrated and pruned."""
        if not self.recipe.stages or not forward(self.recipe.needs) or not self.stream.samples:
            return [Stage(visit.unit.layers)]
        with self._timed("calibration"):
            return find_stages(visit)

    def _token_weights(self, visit: Visit, first: Stage) -> dict[int, torch.Tensor]:
        """Return by what the moments scale the tokens of each sample, where they do."""
        tokens = self.recipe.tokens
        if not tokens.by_attention or not forward(self.recipe.needs) or not visit.alone:
            return {}
        with self._timed("calibration"):
            dense = visit.dense
            received = self._received(visit, first.later) if dense is None else dense.received
        return {index: tokens(each) for index, each in received.items()}

    def _received(self, visit: Visit, later: Sequence[Layer]) -> dict[int, torch.Tensor]:
        """Return the attention that tokens receive, in passes that end early where they may."""

        def watch(ending: Sequence[Layer], most: int | None = None) -> dict[int, torch.Tensor]:
            received: dict[int, torch.Tensor] = {}
            with WatchingAttention(received), ending_at(ending):
                visit.run(most)
            return received

        # All attention may lie before the second group of layers, as it does in most blocks.
        whole, part = watch((), 1), watch(later, 1)
        same = whole.keys() == part.keys() and all(torch.equal(whole[i], part[i]) for i in whole)
        return watch(later if same else ())

    def _try_others(self, layer: Layer, known: Statistics, others: Sequence[Cut]) -> None:
        """Prune a layer as other cuts have it, and leave it as it is."""
        if not others:
            return
        dense, stored = layer.matrix(), self._stored.get(layer.name)
        for cut in others:
            recipe, keep = self._recipe_for(layer, known, cut.counts[layer.name])
            done = cut.found.get(layer.name)
            _, mask, rounded = cut_layer(layer, dense, recipe, known, keep, stored, done)
            cut.masks[layer.name] = layer.store(mask).bool()
            cut.weights[layer.name] = rounded

    def _recipe_for(self, layer: Layer, known: Statistics, keep: int) -> tuple[Recipe, int]:
        """Return how to prune a layer: without data where none has reached it."""
        if self._is_seen(known, self.recipe.needs):
            return self.recipe, keep
        if self._unseen == "dense":
            return Recipe(Magnitude(), density=1.0), layer.weight.numel()
        return Recipe(Magnitude(), self.recipe.pattern, density=self.recipe.density), keep

    def _is_seen(self, known: Statistics, needs: frozenset[type[Moment]]) -> bool:
        if backward(needs) and not known.saw_gradients:
            return False
        found = (known.saw_any(kind) for kind in perturbed(needs))
        return all(found) and (known.tokens > 0 or not forward(needs))

    def _statistics(
        self,
        visit: Visit,
        needs: frozenset[type[Moment]],
        stage: Stage | None = None,
        weights: Mapping[int, torch.Tensor] | None = None,
        calls: Iterator[Call] | None = None,
    ) -> dict[str, Statistics]:
        """Return the moments of every layer's inputs, and of its gradients if there are any."""
        stage = stage or Stage(visit.unit.layers)
        layers = stage.layers
        if not forward(needs) or not self.stream.samples:
            found = {layer.name: Statistics(layer.name, needs) for layer in layers}
        else:
            with self._timed("calibration"):
                model = self.stream.source.model
                dense, run = visit.dense, visit.run
                found = collect_inputs(
                    model, stage, needs, run, dense=dense, weights=weights, calls=calls
                )
                # Passes leave holes, a tenth of all memory, which pruning would add to.
                trim_memory()
        if self._gradients is not None:
            for layer in layers:
                found[layer.name].adopt_gradients(self._gradients[layer.name])
        return found

    def _survey(self) -> dict[str, LayerSummary]:
        """Summarise the scores on the dense model of every layer that the data reaches."""
        score = self.recipe.budget.score or self.recipe.score
        summaries: dict[str, LayerSummary] = {}
        # Without moments of inputs there is no need to run anything.
        stream = self.stream if forward(score.needs) else self.stream.without_samples()
        with closing(stream.visits()) as visits:
            for visit in visits:
                summaries |= self._summaries(visit, score)
        return summaries

    def _summaries(self, visit: Visit, score: Score) -> dict[str, LayerSummary]:
        statistics = self._statistics(visit, score.needs)
        # A layer that the update will find without gradients is not ranked either.
        needs = score.needs | backward(self.recipe.needs)
        summaries = {}
        for layer in visit.unit.layers:
            layer.check_finite()
            known = statistics.pop(layer.name)
            if self._is_seen(known, needs):
                values, shape = score(layer.matrix(), known), layer.weight.shape
                summaries[layer.name] = summarise(layer.name, shape, visit.index, values)
        return summaries

    def _shapes_only(self) -> dict[str, LayerSummary]:
        return {
            layer.name: summarise(layer.name, layer.weight.shape, index)
            for index, unit in enumerate(self.stream.units)
            for layer in unit.layers
        }

    def _check_shapes(self) -> None:
        for layer in self.layers:
            try:
                self.recipe.pattern.quantum(layer.shape)
            except LayerError as error:
                raise LayerError(f"layer {layer.name!r}: {error}") from None

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[phase] += time.perf_counter() - start
