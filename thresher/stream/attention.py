"""The attention that tokens receive, read off the functions that models compute it with."""

from __future__ import annotations

__all__ = ["WatchingAttention"]

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .current import running_index, token_mask

_SOFTMAX = (functional.softmax, torch.softmax, torch.Tensor.softmax)


class WatchingAttention(TorchFunctionMode):
    """Sums up the attention of a token to itself and others that modules compute in the context.

    Seen are ``scaled_dot_product_attention``, and softmaxes of (batch, heads, tokens, tokens).

    Parameters
    ----------
    received : dict of int to Tensor of shape (batch, tokens)
        Filled by the index of the sample that runs: what each token received, over heads and
        queries. Padding asks nothing, and is said to receive as little as any token of its text.
    """

    def __init__(self, received: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.received = received

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            self._take(_received(*args, **(kwargs or {})))
        elif func in _SOFTMAX and output.dim() == 4 and output.shape[-1] == output.shape[-2]:
            self._take(_asked(output.sum(1)).sum(1))
        return output

    def _take(self, received: torch.Tensor | None) -> None:
        if received is None:
            return
        known = self.received.get(running_index())
        if known is not None and known.shape != received.shape:
            return
        received = received.detach().float()
        total = received if known is None else known + received
        real = token_mask()
        if real is not None and real.shape == total.shape:
            real = real.to(total.device)
            least = total.masked_fill(~real, torch.inf).amin(-1, keepdim=True)
            total = torch.where(real, total, least)
        self.received[running_index()] = total


def _asked(shares: torch.Tensor) -> torch.Tensor:
    """Return shares of (batch, queries, keys), zero where the query is padding."""
    real = token_mask()
    if real is None or real.shape != shares.shape[:2]:
        return shares
    return shares.masked_fill(~real.to(shares.device)[..., None], 0)


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
    bias = _additive(attn_mask, query, is_causal)
    # One head at a time: of all together the scores would be the largest tensor of a pass.
    shared = query.shape[1] // key.shape[1]
    total = query.new_zeros(len(query), tokens, dtype=torch.float32)
    for head in range(query.shape[1]):
        keys = key[:, head // shared].float().mT
        scores = torch.baddbmm(
            bias[:, min(head, bias.shape[1] - 1)],
            query[:, head].float(),
            keys,
            alpha=width**-0.5 if scale is None else scale,
        )
        shares = scores.softmax(-1)
        if attn_mask is not None:
            shares.nan_to_num_()  # of a query that may look at nothing, which is all padding
        total += _asked(shares).sum(-2)
    return total


def _additive(mask: torch.Tensor | None, query: torch.Tensor, causal: bool) -> torch.Tensor:
    """Return what is added to scores, shape (batch or 1, heads or 1, tokens, tokens), float32."""
    tokens = query.shape[-2]
    bias = torch.zeros(1, 1, tokens, tokens, dtype=torch.float32, device=query.device)
    if causal:
        bias += torch.full_like(bias, -torch.inf).triu(1)
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        mask = bias.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)
    return bias + mask.float()
