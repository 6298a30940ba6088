"""Feed-forward networks in a unit: which layers feed which, through what activation."""

from __future__ import annotations

__all__ = ["Activation", "FeedForward", "find_feed_forward"]

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..parts.elementwise import ACTIVATIONS, Activation
from ..parts.forms import Columns, Rows
from ..parts.layers import Layer
from .calls import input_of, watching_calls
from .ranks import check_agreement
from .visit import Visit

#: Rows on which a network is recognised, and the relative difference that rounding explains.
_ROWS, _TOLERANCE = 64, 0.02


@dataclass(frozen=True)
class FeedForward:
    """``down(activation(up(x)))``, or ``down(activation(gate(x)) * up(x))``.

    Parameters
    ----------
    up, down : Layer
        What reads the network's input, and what gives its output.
    gate : Layer or None
        What scales the outputs of `up`, where something does.
    activation : callable
        A function of every value by itself.
    """

    up: Layer
    down: Layer
    gate: Layer | None
    activation: Activation

    @property
    def layers(self) -> list[Layer]:
        """The layers, in the order in which they run."""
        return [layer for layer in (self.gate, self.up, self.down) if layer is not None]


def find_feed_forward(visit: Visit) -> list[FeedForward]:
    """Find the feed-forward networks of a unit by what its layers do to the first sample.

    A layer belongs to one where its input is what an activation makes of the products of the one or
    two layers that were called right before it; names play no part.

    Parameters
    ----------
    visit : Visit
        Of the unit.

    Returns
    -------
    list of FeedForward
        Without layers that are called more than once in a pass, or whose weights are stored
        with others.

    Raises
    ------
    DataError
        If processes that share the samples find different ones.
    """
    plain = [layer for layer in visit.unit.layers if layer.is_called and _is_plain(layer)]
    if not visit.alone or len(plain) < 2:
        return []
    calls: list[_Call] = []

    def note(layer: Layer, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = input_of(layer, args, keywords)
        rows = layer.inputs(given.detach())
        calls.append(_Call(layer, given, rows[:: max(1, len(rows) // _ROWS)].float().clone()))

    with watching_calls(plain, note), torch.no_grad():
        visit.run(most=1)
    found = list(_networks(calls))
    names = [[layer.name for layer in network.layers] for network in found]
    check_agreement(names, f"the feed-forward networks of {visit.unit.name!r}")
    return found


@dataclass(frozen=True)
class _Call:
    """What a layer was called with, and some rows of it as they were then."""

    layer: Layer
    given: torch.Tensor
    rows: torch.Tensor

    def product(self) -> torch.Tensor:
        return self.layer.products(self.rows)


def _is_plain(layer: Layer) -> bool:
    one = len(layer.users) == 1 and layer.part is None and not layer.readers
    return one and isinstance(layer.form, Rows | Columns) and len(layer.shape) == 2


def _networks(calls: Sequence[_Call]) -> Iterator[FeedForward]:
    times = Counter(call.layer.name for call in calls)
    busy = {name for name, count in times.items() if count > 1}
    for place, down in enumerate(calls):
        before = [c for c in calls[max(0, place - 2) : place] if c.layer.name not in busy]
        network = None if down.layer.name in busy else _recognised(before, down)
        if network is not None:
            busy |= {layer.name for layer in network.layers}
            yield network


def _recognised(before: Sequence[_Call], down: _Call) -> FeedForward | None:
    """Return the network that ends with a layer, if the calls before it explain its input."""
    shape = down.rows.shape
    fitting = [(call, call.product()) for call in before]
    fitting = [(call, made) for call, made in fitting if made.shape == shape]
    guesses: list[tuple[torch.Tensor, _Call, _Call | None, Activation]] = []
    for activation in ACTIVATIONS.values():
        for call, made in fitting:
            guesses.append((activation(made), call, None, activation))
        for (first, opening), (second, made) in itertools.permutations(fitting, 2):
            if first.given is second.given:
                guesses.append((activation(opening) * made, second, first, activation))
    scale = float(down.rows.norm())
    if not guesses or not scale:
        return None
    misses = [float((guess[0] - down.rows).norm()) / scale for guess in guesses]
    best = min(range(len(guesses)), key=misses.__getitem__)
    if not misses[best] <= _TOLERANCE:
        return None
    _, up, gated, activation = guesses[best]
    return FeedForward(up.layer, down.layer, None if gated is None else gated.layer, activation)
