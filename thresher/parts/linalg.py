"""The few pieces of linear algebra that second-order methods share."""

from __future__ import annotations

__all__ = [
    "add_products",
    "conjugate_gradients",
    "damped",
    "gram_update",
    "inverse_cholesky",
    "mirror",
    "unit_diagonal",
]

import torch

from ..core.errors import NumericalError

# Splitting the columns and computing the lower block triangle alone saves 3/8 of the work.
_STRIPES = 4


def gram_update(gram: torch.Tensor, inputs: torch.Tensor) -> None:
    """Add ``inputs.T @ inputs`` to the lower block triangle of `gram`, in place.

    Only blocks on and below the diagonal are computed; mirror the triangle once at the
    end with :func:`mirror`.

    Parameters
    ----------
    gram : Tensor of shape (..., columns, columns)
        Float32 accumulator.
    inputs : Tensor of shape (..., tokens, columns)
        Float32 inputs.
    """
    for start, stop in _stripes(inputs.shape[-1]):
        add_products(gram[..., start:stop, :stop], inputs[..., start:stop], inputs[..., :stop])


def add_products(total: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> None:
    """Add ``first.T @ second`` to a tensor, in place and without another of its size.

    Parameters
    ----------
    total : Tensor of shape (..., first, second)
        Float32 accumulator.
    first, second : Tensor of shape (..., tokens, first) and (..., tokens, second)
        Float32 inputs.
    """
    if total.dim() == 2:
        total.addmm_(first.mT, second)
    else:
        total += first.mT @ second


def mirror(gram: torch.Tensor) -> None:
    """Fill the upper block triangle that :func:`gram_update` leaves out, in place."""
    for start, stop in _stripes(gram.shape[-1]):
        gram[..., :start, start:stop] = gram[..., start:stop, :start].mT


def _stripes(columns: int) -> list[tuple[int, int]]:
    width = max(1, -(-columns // _STRIPES))
    return [(start, min(start + width, columns)) for start in range(0, columns, width)]


def damped(matrix: torch.Tensor, damping: float) -> torch.Tensor:
    """Add `damping` times the mean diagonal to the diagonal, and 1 where the diagonal is 0.

    Parameters
    ----------
    matrix : Tensor of shape (..., n, n)
        Symmetric, positive semi-definite.
    damping : float
        Relative ridge; 0.01 is SparseGPT's.

    Returns
    -------
    Tensor of shape (..., n, n)
        Positive definite for a positive `damping`.

    Notes
    -----
    An input that is always zero has a zero row; the 1 on its diagonal separates it from
    the others, so its weights get no say in anybody's compensation.
    """
    result = matrix.clone()
    diagonal = result.diagonal(dim1=-2, dim2=-1)
    ridge = damping * diagonal.mean(-1, keepdim=True)
    diagonal += torch.where(diagonal == 0, torch.ones_like(diagonal), ridge)
    return result


def unit_diagonal(matrix: torch.Tensor) -> torch.Tensor:
    """Scale rows and columns of a positive definite matrix so that its diagonal is one.

    Parameters
    ----------
    matrix : Tensor of shape (..., n, n)
        Symmetric, with a positive diagonal.
    """
    scale = matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
    return matrix * scale.unsqueeze(-1) * scale.unsqueeze(-2)


def conjugate_gradients(
    matrix: torch.Tensor,
    right: torch.Tensor,
    start: torch.Tensor,
    mask: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Solve ``x A = b`` on a support, for all rows at once, however many weights they have.

    Parameters
    ----------
    matrix : Tensor of shape (..., n, n)
        Symmetric, positive definite.
    right : Tensor of shape (..., rows, n)
        The right-hand sides b.
    start : Tensor of shape (..., rows, n)
        Zero where the mask is false.
    mask : Tensor of bool, shape (..., rows, n)
        Where the solution may be other than zero.
    steps : int
        Each costs one product with `matrix`.

    Returns
    -------
    Tensor of shape (..., rows, n)
        Every row's quadratic ``x A x^T / 2 - x b^T`` is at most that of `start`.

    Notes
    -----
    Preconditioned by the diagonal. The restriction of a positive definite matrix to a support is
    one too, so that each row is an ordinary run of the method.
    """
    scale = matrix.diagonal(dim1=-2, dim2=-1).reciprocal().unsqueeze(-2)
    tiny = torch.finfo(start.dtype).tiny
    kept = mask.to(start.dtype)  # products with booleans take several times as long
    solution, residual = start.clone(), (right - start @ matrix) * kept
    scaled = residual * scale
    direction, norm = scaled.clone(), (residual * scaled).sum(-1, keepdim=True)
    for _ in range(steps):
        product = (direction @ matrix).mul_(kept)
        length = norm / (direction * product).sum(-1, keepdim=True).clamp(min=tiny)
        solution += length * direction
        residual -= length * product
        scaled = residual * scale
        before, norm = norm, (residual * scaled).sum(-1, keepdim=True)
        direction = scaled + norm / before.clamp(min=tiny) * direction
    return solution


def inverse_cholesky(matrix: torch.Tensor, damping: float) -> torch.Tensor:
    """Return the upper factor U with ``U.T @ U`` the inverse of the damped matrix.

    Parameters
    ----------
    matrix : Tensor of shape (..., n, n)
        Symmetric, positive semi-definite.
    damping : float
        Relative ridge, see :func:`damped`; raised tenfold, up to three times, while the
        factorisation fails.

    Returns
    -------
    Tensor of shape (..., n, n)
        Upper triangular.

    Raises
    ------
    NumericalError
        If the matrix is not positive definite even with a thousandfold ridge.

    Notes
    -----
    Factoring the matrix with its order reversed gives ``H = R R^T`` with R upper
    triangular, hence ``U = R^-1``: one factorisation and one triangular inverse, where
    inverting and factoring again would lose accuracy twice.
    """
    for attempt in range(4):
        ridge = max(damping, 1e-6) * 10**attempt if attempt else damping
        factor, info = torch.linalg.cholesky_ex(damped(matrix, ridge).flip(-1, -2))
        if not bool((info != 0).any()):
            upper = factor.flip(-1, -2)
            del factor
            inverse = torch.zeros_like(upper)
            inverse.diagonal(dim1=-2, dim2=-1).fill_(1)
            torch.linalg.solve_triangular(upper, inverse, upper=True, out=inverse)
            return inverse
    raise NumericalError(
        f"the second moment of the inputs is not positive definite even with damping {ridge:g}; "
        "calibrate with more tokens or raise the damping"
    )
