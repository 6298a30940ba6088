"""The attention that tokens receive, read off the functions that models compute it with."""

from __future__ import annotations

__all__ = ["received_attention"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .current import running_index

_SOFTMAX = (functional.softmax, torch.softmax, torch.Tensor.softmax)


@contextmanager
def received_attention() -> Iterator[dict[int, torch.Tensor]]:
    """Sum up the attention of a token to itself and others that a module computes.

    Seen are ``scaled_dot_product_attention``, and softmaxes of (batch, heads, tokens, tokens).

    Yields
    ------
    dict of int to Tensor of shape (batch, tokens)
        By the index of the sample that ran: what each token received, over heads and queries.
    """
    seeing = _Seeing()
    with seeing:
        yield seeing.received


class _Seeing(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.received: dict[int, torch.Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            self._take(_received(*args, **(kwargs or {})))
        elif func in _SOFTMAX and output.dim() == 4 and output.shape[-1] == output.shape[-2]:
            self._take(output.sum((1, 2)))
        return output

    def _take(self, received: torch.Tensor | None) -> None:
        if received is None:
            return
        known = self.received.get(running_index())
        if known is not None and known.shape != received.shape:
            return
        received = received.detach().float()
        self.received[running_index()] = received if known is None else known + received


def _received(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor | None:
    """Return what every key receives, of attention of (batch, heads, tokens, width) to itself."""
    if query.dim() != 4 or query.shape[-2] != key.shape[-2] or query.is_nested:
        return None
    tokens, width = query.shape[-2:]
    # One head at a time: of all together the scores would be the largest tensor of a pass.
    shared = query.shape[1] // key.shape[1]
    total = query.new_zeros(len(query), tokens, dtype=torch.float32)
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
    for head in range(query.shape[1]):
        scores = query[:, head] @ key[:, head // shared].mT
        scores = scores.float() * (width**-0.5 if scale is None else scale)
        if attn_mask is not None:
            mask = attn_mask.expand(*query.shape[:2], tokens, tokens)[:, head]
            as_bool = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, -torch.inf) if as_bool else scores + mask
        if is_causal:
            scores = scores.masked_fill(later, -torch.inf)
        # Of a query that may look at nothing, which is all padding.
        total += scores.softmax(-1).nan_to_num().sum(-2)
    return total
