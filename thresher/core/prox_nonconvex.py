"""Proximal operators of penalties that flatten out, so that large entries are not shrunk.

Like :mod:`thresher.core.prox` these speak the array API standard, and each solves
``argmin_z 0.5 * ||z - x||^2 + step * penalty(z)`` globally, entry by entry, for every step:
where the problem has several stationary points the best of them is returned.
"""

from __future__ import annotations

__all__ = ["log_sum", "lq", "mcp", "scad"]

from typing import Any

from array_api_compat import array_namespace

from .errors import OptionError


def mcp(x: Any, step: float, alpha: Any, gamma: float) -> Any:
    """Prox of the minimax concave penalty.

    The penalty is ``alpha |z| - z^2 / (2 gamma)`` up to ``|z| = gamma alpha``, then constant.

    Parameters
    ----------
    x : array
        Any shape.
    step : float
        Positive.
    alpha : float or array
        Slope at zero, non-negative, broadcast against `x`.
    gamma : float
        Positive; the larger, the closer to the L1 norm.

    Returns
    -------
    array
        Same shape as `x`. Entries beyond ``gamma * alpha`` are returned as they are.

    References
    ----------
    Zhang, Nearly unbiased variable selection under minimax concave penalty (2010).
    """
    xp = array_namespace(x)
    _require_positive(step=step, gamma=gamma)
    size = xp.abs(x)
    if step >= gamma:  # the inner piece is concave: only zero and x itself can be best
        return xp.where(size**2 > step * gamma * alpha**2, x, xp.zeros_like(x))
    inner = xp.clip(size - step * alpha, min=0.0) / (1 - step / gamma)
    return xp.where(size < gamma * alpha, xp.sign(x) * inner, x)


def scad(x: Any, step: float, alpha: Any, gamma: float) -> Any:
    """Prox of the smoothly clipped absolute deviation penalty.

    The penalty is ``alpha |z|`` up to `alpha`, a parabola up to ``gamma alpha``, then constant.

    Parameters
    ----------
    x : array
        Any shape.
    step : float
        Positive.
    alpha : float or array
        Slope at zero, non-negative, broadcast against `x`.
    gamma : float
        Above 1 (the authors suggest 3.7).

    Returns
    -------
    array
        Same shape as `x`.

    References
    ----------
    Fan and Li, Variable selection via nonconcave penalized likelihood and its oracle
    properties (2001).
    """
    xp = array_namespace(x)
    _require_positive(step=step, gamma=gamma - 1)
    size = xp.abs(x)
    alpha = alpha + xp.zeros_like(x)

    def penalty(z: Any) -> Any:
        middle = (2 * gamma * alpha * z - z**2 - alpha**2) / (2 * (gamma - 1))
        flat = alpha**2 * (gamma + 1) / 2
        return xp.where(z <= alpha, alpha * z, xp.where(z <= gamma * alpha, middle, flat))

    candidates = [xp.minimum(xp.clip(size - step * alpha, min=0.0), alpha)]
    if gamma - 1 > step:
        stationary = ((gamma - 1) * size - step * gamma * alpha) / (gamma - 1 - step)
        candidates.append(xp.minimum(xp.maximum(stationary, alpha), gamma * alpha))
    candidates.append(xp.maximum(size, gamma * alpha))
    best = candidates[0]
    lowest = (best - size) ** 2 / 2 + step * penalty(best)
    for candidate in candidates[1:]:
        value = (candidate - size) ** 2 / 2 + step * penalty(candidate)
        best = xp.where(value < lowest, candidate, best)
        lowest = xp.minimum(value, lowest)
    return xp.sign(x) * best


def log_sum(x: Any, step: float, alpha: Any, epsilon: float) -> Any:
    """Prox of the log-sum penalty ``alpha * log(1 + |z| / epsilon)``.

    Parameters
    ----------
    x : array
        Any shape.
    step : float
        Positive.
    alpha : float or array
        Strength, non-negative, broadcast against `x`.
    epsilon : float
        Positive; the smaller, the closer to counting non-zeros.

    Returns
    -------
    array
        Same shape as `x`.

    References
    ----------
    Candès, Wakin and Boyd, Enhancing sparsity by reweighted l1 minimization (2008); the prox
    is the larger root of a quadratic.
    """
    xp = array_namespace(x)
    _require_positive(step=step, epsilon=epsilon)
    size = xp.abs(x)
    half = (size + epsilon) / 2
    root = half**2 - step * alpha
    z = half + xp.sqrt(xp.clip(root, min=0.0)) - epsilon
    z = xp.where((root > 0) & (z > 0), z, xp.zeros_like(z))
    gain = size**2 / 2 - (z - size) ** 2 / 2
    kept = gain > step * alpha * xp.log1p(z / epsilon)
    return xp.where(kept, xp.sign(x) * z, xp.zeros_like(x))


def lq(x: Any, step: float, alpha: Any, q: float) -> Any:
    """Prox of ``alpha * |z|^q`` for a power between zero and one.

    Parameters
    ----------
    x : array
        Any shape.
    step : float
        Positive.
    alpha : float or array
        Strength, non-negative, broadcast against `x`.
    q : float
        In (0, 1).

    Returns
    -------
    array
        Same shape as `x`.

    References
    ----------
    Marjanovic and Solo, On lq optimization and matrix completion (2012), theorem 1; the
    larger stationary point is found by Newton's method from above.
    """
    xp = array_namespace(x)
    _require_positive(step=step, q=q)
    if q >= 1:
        raise OptionError(f"q must lie between 0 and 1, got {q}; use the L1 norm for q = 1")
    size = xp.abs(x)
    c = step * alpha + xp.zeros_like(x)
    smallest = (2 * c * (1 - q)) ** (1 / (2 - q))
    kept = size > smallest * (2 - q) / (2 * (1 - q))
    z = xp.where(kept, size, xp.ones_like(size))
    for _ in range(30):
        slope = c * q * z ** (q - 1)
        change = (z + slope - size) / (1 + (q - 1) * slope / z)
        z = xp.where(kept, z - change, z)
    return xp.where(kept, xp.sign(x) * z, xp.zeros_like(x))


def _require_positive(**options: float) -> None:
    for name, value in options.items():
        if not value > 0:
            where = "1" if name == "gamma" and value <= 0 else "0"
            raise OptionError(f"{name} must be above {where}, got {value}")
