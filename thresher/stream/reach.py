"""Reach: which layers of a unit's attention matter to their own token alone."""

from __future__ import annotations

__all__ = ["find_near_attention"]

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..parts.forms import Columns, Rows
from ..parts.layers import Layer
from .calls import input_of, watching_calls
from .ranks import check_agreement
from .visit import Visit

#: One token in so many is changed, by so many times its product; what others hear of it is counted
#: from this share of what the changed ones do, which rounding stays below.
_EVERY, _FACTOR, _HEARD = 4, -3.0, 0.01


def find_near_attention(visit: Visit, layers: Sequence[Layer]) -> list[Layer]:
    """Find the layers of a unit's attention whose products matter to their own token alone.

    Those are the projections of queries and of attention's output. Keys and values, and fused
    projections that make some, reach other tokens: that is seen by changing a layer's products at
    some tokens of the first sample and looking at the unit's outputs at the others. Attention
    begins with what is given the same tensor as layers that reach far, and ends with the next layer
    after them; names play no part.

    Parameters
    ----------
    visit : Visit
        Of the unit.
    layers : sequence of Layer
        Those of the unit to look at: without the layers of feed-forward networks.

    Returns
    -------
    list of Layer
        In the order in which they run; none where no layer reaches far, or the unit is seen in
        passes of the whole model alone.

    Raises
    ------
    DataError
        If processes that share the samples find different ones.
    """
    plain = [layer for layer in layers if isinstance(layer.form, Rows | Columns)]
    if not visit.alone or len(plain) < 2:
        return []
    calls: list[tuple[Layer, torch.Tensor]] = []

    def note(layer: Layer, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.append((layer, input_of(layer, args, keywords)))

    with watching_calls(plain, note):
        before = visit.outputs(most=1)
    near = {layer.name: _is_near(visit, layer, before) for layer, _ in calls}
    found = _of_attention(calls, near)
    names = [layer.name for layer in found]
    check_agreement(names, f"the layers of attention in {visit.unit.name!r}")
    return found


def _of_attention(
    calls: Sequence[tuple[Layer, torch.Tensor]], near: dict[str, bool]
) -> list[Layer]:
    far = [place for place, (layer, _) in enumerate(calls) if not near[layer.name]]
    if not far:
        return []
    fed = [calls[place][1] for place in far]
    feeds = [any(given is x for x in fed) for _, given in calls]
    after = range(far[-1] + 1, len(calls))
    last = next((place for place in after if not feeds[place]), far[-1])
    span = calls[feeds.index(True) : last + 1]
    return [layer for layer, _ in span if near[layer.name]]


def _is_near(visit: Visit, layer: Layer, before: Sequence[torch.Tensor]) -> bool:
    """Return whether changes of some tokens' products are heard at no other ones."""
    rows: list[int] = []
    handle = layer.module.register_forward_hook(_changing(rows))
    try:
        after = visit.outputs(most=1)
    finally:
        handle.remove()
    if len(before) != 1 or len(after) != 1 or len(rows) != 1 or after[0].shape != before[0].shape:
        return False
    heard = (after[0].float() - before[0].float()).flatten(0, -2).norm(dim=-1)
    # What nothing hears of, such as padding alone, has shown nothing.
    loudest = float(heard.max())
    return loudest > 0 and int((heard > _HEARD * loudest).sum()) <= rows[0]


def _changing(rows: list[int]) -> Callable[..., torch.Tensor]:
    """Return a hook that changes a layer's products at some tokens, and notes at how many."""

    def change(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        some = changed[..., ::_EVERY, :]
        some *= _FACTOR
        # Where all are changed, nothing can be told.
        if output.shape[-2] > 1:
            rows.append(some[..., 0].numel())
        return changed

    return change
