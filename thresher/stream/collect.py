"""Filling statistics: what layers are given while a model runs."""

from __future__ import annotations

__all__ = ["Stage", "collect_inputs", "ending_at"]

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..parts.forms import Columns, Kernel, Rows
from ..parts.layers import Layer
from ..parts.moments import Moment
from ..parts.statistics import Statistics
from .calls import input_of, version_of, watching_calls
from .current import running_index, token_mask
from .dense import DenseNotes
from .passes import EnoughSeenError
from .products import watching_products
from .ranks import rank, ranks, sum_over_ranks
from .surroundings import check_not_transformed

#: Positional and keyword arguments.
Call = tuple[tuple[Any, ...], dict[str, Any]]

#: One of so many samples is held out.
_HELD_OUT = 4


@dataclass(frozen=True)
class Stage:
    """Layers whose inputs do not depend on one another.

    Parameters
    ----------
    layers : tuple of Layer
        In the order in which the unit has them.
    later : tuple of Layer
        Layers of which the first call shows that nothing of this stage is still to come; empty
        where a pass has to go on to its end.
    once : bool
        Whether each layer is called once in a pass, which has shown all when all were called.
    first : Layer, optional
        The layer that is called first, where all are given the very same then and nothing of an
        earlier stage is still to come, so that a sample may wait there until they are pruned.
    """

    layers: tuple[Layer, ...]
    later: tuple[Layer, ...] = ()
    once: bool = False
    first: Layer | None = None


def collect_inputs(
    model: nn.Module,
    layers: Sequence[Layer] | Stage,
    needs: Iterable[type[Moment]],
    run: Callable[[], None],
    *,
    dense: DenseNotes | None = None,
    weights: Mapping[int, torch.Tensor] | None = None,
    calls: Iterable[Call] | None = None,
) -> dict[str, Statistics]:
    """Collect the input statistics of layers while `run` sends data through them.

    Tokens that the attention mask of the sample that runs leaves out are not counted, where they
    can be told: in the inputs of layers that are given (batch, tokens) or (batch x tokens) rows;
    of encoder-decoders in the encoder, whose mask it is.

    A layer that modules are called with is watched there; for one that is used without such a
    call, as experts are, its products are watched, in a second run where a module was expected
    to be called and was not.

    Parameters
    ----------
    model : nn.Module
        What the layers are part of.
    layers : sequence of Layer, or Stage
        The layers to watch; a pass of a unit ends where a stage has nothing more to show.
    needs : iterable of Moment classes
        See :class:`Statistics`.
    run : callable
        Runs the modules on all calibration data, the same whenever it is called.
    dense : DenseNotes, optional
        What the layers were given on the dense path; both inputs of a token make a pair.
    weights : mapping of int to Tensor of shape (batch, tokens), optional
        By the index of a sample: by what the inputs of its tokens are scaled.
    calls : iterable of (tuple, dict), optional
        In the place of `run`: what all layers are called with, sample by sample.

    Returns
    -------
    dict of str to Statistics
        By layer name; without tokens where the data never reached a layer.
    """
    needs = frozenset(needs)
    stage = layers if isinstance(layers, Stage) else Stage(tuple(layers))
    called = [layer for layer in stage.layers if layer.is_called]
    others = [layer for layer in stage.layers if not layer.is_called]
    job = _Job(model, needs, run, stage, dense, weights or {})
    if calls is not None:
        return job.collect_from(calls)
    try:
        # Processes would share different moments, and could not add them up.
        found = job.collect(called, others, share=ranks() == 1)
    except _NoLongerSharedError:
        found = job.collect(called, others, share=False)
    idle = [layer for layer in called if found[layer.name].tokens == 0]
    if idle:
        found |= job.collect([], idle, share=False)
    return found


@dataclass(frozen=True)
class _Job:
    """What is asked for, of whichever layers; see :func:`collect_inputs`."""

    model: nn.Module
    needs: frozenset[type[Moment]]
    run: Callable[[], None]
    stage: Stage
    dense: DenseNotes | None
    weights: Mapping[int, torch.Tensor]

    def collect(
        self, called: Sequence[Layer], others: Sequence[Layer], *, share: bool
    ) -> dict[str, Statistics]:
        collector = _Collector([*called, *others], self, share)
        products = watching_products(self.model, others, collector.take_product)
        calls = watching_calls(called, collector.take)
        # Hooks run in the order in which they are put: what a layer is given is taken first.
        ending = _ending_after(called if self.stage.once else ())
        with calls, ending, ending_at(self.stage.later), products, torch.no_grad():
            self.run()
        sum_over_ranks(collector.statistics, [*called, *others])
        return collector.finish()

    def collect_from(self, calls: Iterable[Call]) -> dict[str, Statistics]:
        layers = self.stage.layers
        collector = _Collector(layers, self, share=ranks() == 1)
        with torch.no_grad():
            for args, keywords in calls:
                for layer in layers:
                    collector.take(layer, args, keywords)
        sum_over_ranks(collector.statistics, layers)
        return collector.finish()


def ending_at(layers: Sequence[Layer]) -> AbstractContextManager[None]:
    """End the rehearsal of a unit where one of the layers is called, while the context lasts."""

    def end(*_: Any) -> None:
        raise EnoughSeenError

    return watching_calls(layers, end)


def _ending_after(layers: Sequence[Layer]) -> AbstractContextManager[None]:
    """End the rehearsal of a unit where the last of the layers is called, whichever that is."""
    called: set[tuple[int, str]] = set()

    def strike_off(layer: Layer, *_: Any) -> None:
        called.add((running_index(), layer.name))
        if all((running_index(), each.name) in called for each in layers):
            raise EnoughSeenError

    return watching_calls(layers, strike_off)


def _of_the_mask(model: nn.Module) -> Callable[[Layer], bool]:
    """Return a test of whether a layer's inputs are the tokens that an attention mask is about."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return lambda layer: True
    ask: Any = getattr(model, "get_encoder", nn.Module)
    encoder: nn.Module = ask()
    inside = {id(module) for module in encoder.modules()}
    return lambda layer: all(id(user) in inside for user in layer.users)


class _NoLongerSharedError(Exception):
    """Layers that were given the same tensors at first are given different ones now."""


class _Collector:
    """Feeds every layer's inputs to its statistics, computing shared ones once.

    Query, key and value projections are given the very same tensor, as are the gate and up
    projections; a layer called right after another with the same tensor shares its moments.
    """

    def __init__(self, layers: Sequence[Layer], job: _Job, share: bool) -> None:
        self.statistics = {layer.name: Statistics(layer.name, job.needs) for layer in layers}
        self._share = share
        self._masked = _of_the_mask(job.model)
        self._weights = job.weights
        self._dense = job.dense
        # How often each layer was called for the sample that runs.
        self._calls_of: dict[str, tuple[int, int]] = {}
        self._leaders: dict[str, str] = {}
        self._calls: Counter[str] = Counter()
        self._last: tuple[torch.Tensor, Any, str] | None = None

    def take(self, layer: Layer, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Take what a layer is called with."""
        check_not_transformed(layer.name)
        given = input_of(layer, args, keywords)
        self._calls[layer.name] += 1
        reading = (_reading(layer), version_of(given), self._masked(layer))
        if self._share and self._is_shared(layer, given, reading):
            return
        self._last = (given, reading, layer.name)
        dense = self._dense_of(layer, given)
        rows, pairs = (
            None if x is None else layer.inputs(self._real(layer, self._scaled(layer, x)))
            for x in (given.detach(), dense)
        )
        assert rows is not None
        self.take_rows(layer, rows, pairs)

    def _dense_of(self, layer: Layer, given: torch.Tensor) -> torch.Tensor | None:
        """Return what the dense path gave at this call, where its rows are of the same tokens."""
        index, before = self._calls_of.get(layer.name, (-1, 0))
        call = before if index == running_index() else 0
        self._calls_of[layer.name] = running_index(), call + 1
        # Rows without an axis of tokens may be those that a router has picked.
        if self._dense is None or given.dim() <= 2:
            return None
        dense = self._dense.get(layer, running_index(), call)
        return dense if dense is not None and dense.shape == given.shape else None

    def _scaled(self, layer: Layer, given: torch.Tensor) -> torch.Tensor:
        """Return inputs as loud as their tokens are to be heard."""
        weights = self._weights.get(running_index())
        plain = given.dim() > 2 and isinstance(layer.form, Rows | Columns)
        if weights is None or not plain or given.shape[:2] != weights.shape:
            return given
        tokens = weights.to(given).reshape(*weights.shape, *(1 for _ in given.shape[2:]))
        return given * tokens

    def take_product(self, layer: Layer, rows: Callable[[], torch.Tensor]) -> None:
        """Take the rows of a product with a layer's weight."""
        # Of others, such as recurrent steps and attention, the order of tokens is not known.
        plain = layer.users and not layer.readers
        self.take_rows(layer, self._real(layer, rows()) if plain else rows())

    def _real(self, layer: Layer, given: torch.Tensor) -> torch.Tensor:
        """Return the input of a layer without tokens that only fill up a batch."""
        mask = token_mask()
        if mask is None or not isinstance(layer.form, Rows | Columns) or not self._masked(layer):
            return given
        mask = mask.to(given.device)
        if given.dim() > 2 and given.shape[:2] == mask.shape:
            return given[mask]
        flat = given.dim() == 2 and given.shape[0] == mask.numel()
        return given[mask.flatten()] if flat else given

    def _is_shared(self, layer: Layer, given: torch.Tensor, reading: Any) -> bool:
        """Return whether the layer before was given the same, and always has been."""
        if self._last is not None and self._last[0] is given and self._last[1] == reading:
            leader = self._last[2]
            fresh = leader != layer.name and self.statistics[layer.name].tokens == 0
            if fresh and self._leaders.setdefault(layer.name, leader) == leader:
                return True
        if layer.name in self._leaders:
            raise _NoLongerSharedError
        return False

    def take_rows(
        self, layer: Layer, rows: torch.Tensor, dense: torch.Tensor | None = None
    ) -> None:
        """Take the rows that a layer's matrix multiplies, and those of the dense path."""
        if not rows.shape[-2]:
            return
        before = torch.get_float32_matmul_precision()
        # Rows in bfloat16 multiply exactly as bfloat16; their products are summed in float32.
        half = rows.dtype == torch.bfloat16
        torch.set_float32_matmul_precision("medium" if half else before)
        try:
            # Under autocast the sums would be rounded to the forward pass's precision, and what is
            # made in inference mode cannot be changed in place outside it.
            inference = torch.inference_mode(False)
            with inference, torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
                self.statistics[layer.name].update(rows, dense, held_out=_is_held_out())
        finally:
            torch.set_float32_matmul_precision(before)

    def finish(self) -> dict[str, Statistics]:
        self._last = None
        for follower, leader in self._leaders.items():
            if self._calls[follower] != self._calls[leader]:
                raise _NoLongerSharedError
            self.statistics[follower] = self.statistics[leader].renamed(follower)
        return self.statistics


def _is_held_out() -> bool:
    """Whether the sample that runs is one of those to judge by: the same among any processes."""
    place = running_index() * ranks() + rank()
    return place % _HELD_OUT == _HELD_OUT - 1


def _reading(layer: Layer) -> Any:
    """Return what, besides the input, decides the rows a layer makes of it."""
    if isinstance(layer.form, Kernel):
        module = layer.form.module
        return (module.kernel_size, module.stride, module.padding, module.dilation, module.groups)
    return type(layer.form)
