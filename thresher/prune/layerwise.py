"""Pruning one layer, and one block of layers after another."""

from __future__ import annotations

__all__ = ["BlockwisePruner", "prune_layer"]

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from ..core.errors import LayerError, NumericalError
from ..parts.budgets import LayerSummary, allot, summarise
from ..parts.chooser import MaskChooser
from ..parts.layers import Layer
from ..parts.moments import Moment
from ..parts.statistics import Statistics
from ..stream.blocks import BlockChain
from ..stream.collect import collect_inputs
from ..stream.hidden import HiddenStates
from .recipe import Recipe
from .record import LayerRecord

Gradients = dict[str, Statistics]

_HISTOGRAM_BINS = 60


@torch.no_grad()
def prune_layer(
    layer: Layer, block: int, recipe: Recipe, statistics: Statistics, keep: int
) -> tuple[torch.Tensor, LayerRecord]:
    """Prune one layer in place.

    Parameters
    ----------
    layer : Layer
        Its weight is overwritten.
    block : int
        Index of its block, for the record.
    recipe : Recipe
        How to choose and update.
    statistics : Statistics
        Of the layer's inputs.
    keep : int
        Weights to keep.

    Returns
    -------
    mask : Tensor of bool
        In the weight's own shape.
    record : LayerRecord

    Raises
    ------
    NumericalError
        If the weight is not finite before or after; it is then left as it was.
    """
    start = time.perf_counter()
    layer.check_finite()
    dense = layer.matrix()
    choose = MaskChooser(recipe.score, recipe.pattern, keep, statistics, tuple(dense.shape))
    pruned, mask = recipe.update(dense, choose, statistics)
    if not bool(torch.isfinite(pruned).all()):
        raise NumericalError(
            f"the update of layer {layer.name!r} gave NaN or infinite weights; raise its damping"
        )
    record = LayerRecord(
        name=layer.name,
        block=block,
        shape=list(layer.weight.shape),
        kept=int(mask.sum()),
        error=_relative_error(dense, pruned, statistics.sample),
        seconds=0.0,
        histogram=_histogram(dense, pruned, mask),
    )
    layer.weight.copy_(layer.store(pruned))
    record.seconds = time.perf_counter() - start
    return layer.store(mask).bool(), record


def _relative_error(
    dense: torch.Tensor, pruned: torch.Tensor, sample: torch.Tensor | None
) -> float:
    change, whole = dense - pruned, dense
    if sample is not None:
        change, whole = sample @ change.mT, sample @ whole.mT
    scale = float(whole.square().sum())
    return float(change.square().sum()) / scale if scale else 0.0


def _histogram(
    dense: torch.Tensor, pruned: torch.Tensor, mask: torch.Tensor
) -> dict[str, list[float]]:
    limit = max(4 * float(dense.std(correction=0)), 1e-12)
    edges = torch.linspace(-limit, limit, _HISTOGRAM_BINS + 1)

    def count(values: torch.Tensor) -> list[float]:
        inside = values.clamp(-limit, limit).cpu()
        return torch.histc(inside, _HISTOGRAM_BINS, -limit, limit).int().tolist()

    return {"edges": edges.tolist(), "dense": count(dense), "pruned": count(pruned[mask])}


class BlockwisePruner:
    """Prunes the blocks of a model in order, each fed by its pruned predecessors.

    Parameters
    ----------
    chain : BlockChain
        The blocks.
    layers : list of Layer
        The layers to prune, each inside a block.
    recipe : Recipe
        How to prune them.
    loaded : callable, optional
        ``loaded(index)`` returns a context in which block `index` has its weights; by
        default they are always there.
    autocast : torch.dtype, optional
        Lower precision for the matrix products of forward passes; solving is in float32.
    progress : callable, optional
        ``progress(text)`` is called when a step of the work ends.
    """

    def __init__(
        self,
        chain: BlockChain,
        layers: Sequence[Layer],
        recipe: Recipe,
        *,
        loaded: Callable[[int], AbstractContextManager[Any]] | None = None,
        autocast: torch.dtype | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.chain = chain
        self.layers = list(layers)
        self.recipe = recipe
        self.timings: dict[str, float] = defaultdict(float)
        self._loaded = loaded or (lambda index: nullcontext())
        self._autocast = autocast
        self._progress = progress or (lambda text: None)
        self._by_block = self._assign()
        self._check_shapes()

    def layers_of(self, index: int) -> list[Layer]:
        """Return the layers to prune in block `index`."""
        return self._by_block[index]

    def counts(
        self,
        hidden: Iterable[Any],
        samples: Sequence[Any] = (),
        gradients: Gradients | None = None,
    ) -> dict[str, int]:
        """Decide how many weights every layer keeps.

        Parameters
        ----------
        hidden : iterable of Tensor
            Inputs of the first block; only read when the budget looks at scores of data.
        samples : sequence
            Inputs of the whole model, for layers outside the blocks.
        gradients : dict of str to Statistics, optional
            Gradient moments, when the budget's score needs them.

        Returns
        -------
        dict of str to int
            By layer name.
        """
        if self.recipe.budget.surveys:
            summaries = self._survey(hidden, samples, gradients)
        else:
            summaries = self._shapes_only()
        ordered = [summaries[layer.name] for layer in self.layers]
        densities = self.recipe.budget(ordered, self.recipe.target)
        shapes = [layer.shape for layer in self.layers]
        kept = allot(self.recipe.pattern, shapes, densities, self.recipe.target)
        return dict(zip((layer.name for layer in self.layers), kept, strict=True))

    def prune_block(
        self,
        index: int,
        hidden: HiddenStates,
        counts: dict[str, int],
        gradients: Gradients | None = None,
    ) -> tuple[dict[str, torch.Tensor], list[LayerRecord]]:
        """Prune the layers of one block, then advance the hidden states through it.

        Parameters
        ----------
        index : int
            Which block.
        hidden : HiddenStates
            Its inputs; afterwards its outputs, if another block is fed with them.
        counts : dict of str to int
            Weights to keep per layer.
        gradients : dict of str to Statistics, optional
            Gradient moments, when the recipe's score needs them.

        Returns
        -------
        masks : dict of str to Tensor
            By layer name, in the weights' own shapes.
        records : list of LayerRecord
        """
        name = self.chain.names[index] or type(self.chain.model).__name__
        statistics = self._statistics(index, hidden, self.recipe.needs)
        masks, records = {}, []
        with self._timed("pruning"):
            for layer in self._by_block[index]:
                known = statistics.pop(layer.name)
                if gradients is not None:
                    known.adopt_gradients(gradients[layer.name])
                mask, record = prune_layer(layer, index, self.recipe, known, counts[layer.name])
                masks[layer.name] = mask
                records.append(record)
        self._progress(f"pruned {name}")
        if self._feeds_another(index):
            with self._timed("forward"), self._forward_context():
                hidden.advance(lambda state: self.chain.run(index, state))
        self._progress(f"ran {name}")
        return masks, records

    def _statistics(
        self, index: int, hidden: Iterable[torch.Tensor], needs: frozenset[type[Moment]]
    ) -> dict[str, Statistics]:
        layers = self._by_block[index]

        def run() -> None:
            with self._forward_context():
                for state in hidden:
                    self.chain.run(index, state)

        with self._timed("calibration"):
            return collect_inputs(layers, needs, run)

    def _feeds_another(self, index: int) -> bool:
        return index + 1 < len(self.chain.names) and self.chain.names[index + 1] != ""

    def _survey(
        self, hidden: Iterable[Any], samples: Sequence[Any], gradients: Gradients | None
    ) -> dict[str, LayerSummary]:
        """Summarise every layer's scores on the dense model."""
        score = self.recipe.budget.score or self.recipe.score
        states = list(hidden) if score.needs else []
        summaries = {}
        for index, name in enumerate(self.chain.names):
            with self._loaded(index):
                inputs = states if name else samples
                statistics = self._statistics(index, inputs if score.needs else [], score.needs)
                for layer in self._by_block[index]:
                    layer.check_finite()
                    known = statistics.pop(layer.name)
                    if gradients is not None:
                        known.adopt_gradients(gradients[layer.name])
                    values = score(layer.matrix(), known)
                    summaries[layer.name] = summarise(layer.name, layer.weight.shape, index, values)
                if self._feeds_another(index):
                    with self._forward_context():
                        states = [self.chain.run(index, state) for state in states]
        return summaries

    def _shapes_only(self) -> dict[str, LayerSummary]:
        return {
            layer.name: summarise(layer.name, layer.weight.shape, index)
            for index, layers in self._by_block.items()
            for layer in layers
        }

    def _assign(self) -> dict[int, list[Layer]]:
        assigned: dict[int, list[Layer]] = {i: [] for i in range(len(self.chain.names))}
        for layer in self.layers:
            owners = [
                i
                for i, name in enumerate(self.chain.names)
                if not name or f"{layer.name}.".startswith(f"{name}.")
            ]
            if not owners:
                raise LayerError(
                    f"layer {layer.name!r} is outside the chain of blocks "
                    f"({self.chain.names[0]}, ...); exclude it"
                )
            assigned[owners[0]].append(layer)
        return assigned

    def _check_shapes(self) -> None:
        for layer in self.layers:
            try:
                self.recipe.pattern.quantum(layer.shape)
            except LayerError as error:
                raise LayerError(f"layer {layer.name!r}: {error}") from None

    @contextmanager
    def _forward_context(self) -> Any:
        """Run forward passes, and the products of their statistics, in the asked precision.

        A layer under autocast multiplies its inputs rounded to ``autocast``; with "medium"
        precision their second moment is that of the rounded inputs, summed in float32.
        """
        if self._autocast is None:
            with torch.no_grad():
                yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            with torch.no_grad(), torch.autocast(self._device(), dtype=self._autocast):
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def _device(self) -> str:
        kinds = {parameter.device.type for parameter in self.chain.model.parameters()}
        return "cuda" if "cuda" in kinds else "cpu"

    @contextmanager
    def _timed(self, phase: str) -> Any:
        start = time.perf_counter()
        yield
        self.timings[phase] += time.perf_counter() - start
