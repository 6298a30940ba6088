"""The threshold by error: how large neurons' outputs may be that are dropped together."""

from __future__ import annotations

__all__ = ["threshold_at_error", "truncation_errors"]

import torch

from ...core.errors import DataError

#: Halvings of the range of sizes, which is of as many thresholds as there are sizes.
_HALVINGS = 24


def truncation_errors(
    rows: torch.Tensor, matrix: torch.Tensor, sizes: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Return what dropping the neurons below a threshold costs each token, of shape (tokens,).

    Parameters
    ----------
    rows : Tensor of shape (tokens, neurons)
        What the last layer of a feed-forward network is given.
    matrix : Tensor of shape (outputs, neurons)
        Its weights.
    sizes : Tensor of shape (tokens, neurons)
        Norms of what the neurons add to the output.
    threshold : float
        Of these.

    Returns
    -------
    Tensor
        Norm of the sum of what is dropped, over that of the whole output without bias; 0 where
        nothing is put out.

    References
    ----------
    Zhang et al., ReLU^2 Wins: Discovering Efficient Activation Functions for Sparse LLMs (2024),
    section 3, cumulative errors of tail truncation (CETT).
    """
    whole = (rows @ matrix.mT).norm(dim=-1)
    lost = (rows.masked_fill(sizes >= threshold, 0) @ matrix.mT).norm(dim=-1)
    return torch.where(whole > 0, lost / whole.clamp(min=torch.finfo(whole.dtype).tiny), 0)


def threshold_at_error(
    rows: torch.Tensor, matrix: torch.Tensor, sizes: torch.Tensor, error: float
) -> torch.Tensor:
    """Return the largest threshold whose mean truncation error is at most `error`, of shape ().

    Found by bisection over the sizes that were seen, as the error grows with the threshold but for
    neurons that cancel one another.

    Parameters
    ----------
    rows, matrix, sizes
        See :func:`truncation_errors`.
    error : float
        In [0, 1].

    Raises
    ------
    DataError
        If there are no rows.
    """
    if not rows.numel():
        raise DataError("no token reaches the network; pass more data")
    ordered = sizes.flatten().sort().values
    low, high = 0, len(ordered) - 1
    for _ in range(_HALVINGS):
        if low >= high:
            break
        middle = (low + high + 1) // 2
        found = truncation_errors(rows, matrix, sizes, float(ordered[middle])).mean()
        low, high = (middle, high) if float(found) <= error else (low, middle - 1)
    return ordered[low].clone()
