"""Sketch-preconditioned against exact updates in alternating completion: error and time by rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import solve_triangular

from thresher.core.evidence import Earlier, Experiment
from thresher.linear import AlternatingCompletion
from thresher.linear.completion.observed import Observed

from .._statistics import least_ratio
from .._study import Draw, Found, Judged, Slacks, Study, every, means, times_ahead

_SIZE, _SHARE, _RANKS, _SWEEPS = 600, 0.5, (4, 16, 48), 3
_ROWS, _STEPS = 4, 3  # rows of a sketch for every unknown; steps with its preconditioner
_NEAR = 1.1  # times the exact error that approximate updates may end at
_OURS, _EXACT = "sketched", "exact"


@dataclass(frozen=True)
class _Problem:
    matrix: np.ndarray
    observed: Observed
    rank: int


def _draw(rank: int, drawn: Draw) -> _Problem:
    """Return a matrix of exact rank, and half of its entries with a little noise."""
    rng, size = drawn.rng, drawn.amount(_SIZE, 120)
    matrix = rng.standard_normal((size, rank)) @ rng.standard_normal((rank, size))
    noisy = matrix + 0.01 * np.sqrt(rank) * rng.standard_normal(matrix.shape)
    seen = rng.random(matrix.shape) < _SHARE
    return _Problem(matrix, Observed(np.where(seen, noisy, np.nan)), rank)


class _Sketched(AlternatingCompletion):
    """Every row's least squares by conjugate gradients, preconditioned by a sketch of its own."""

    def _half(self, observed: Observed, fixed: np.ndarray, start: np.ndarray) -> np.ndarray:
        rng, found, starts = np.random.default_rng(0), start.copy(), observed.values.indptr
        for i in np.flatnonzero(observed.counts):
            entries = slice(starts[i], starts[i + 1])
            used, target = fixed[observed.columns[entries]], observed.values.data[entries]
            found[i] = _solve(used, target, start[i], rng)
        return found


def _solve(A: np.ndarray, b: np.ndarray, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Step from `start`, in the basis in which a count sketch of the columns is orthonormal."""
    rows, rank = A.shape
    buckets = rng.integers(_ROWS * rank, size=rows)
    signs = rng.choice([-1.0, 1.0], rows)
    sketch = sparse.csr_array((signs, (buckets, np.arange(rows))), shape=(_ROWS * rank, rows)) @ A
    factor = np.linalg.qr(sketch, mode="r")
    if np.abs(np.diag(factor)).min() <= 1e-10 * np.abs(factor).max():
        return np.linalg.lstsq(A, b, rcond=None)[0]
    x, residual = start.copy(), b - A @ start
    slope = solve_triangular(factor, A.T @ residual, trans="T")
    direction, size = slope.copy(), float(slope @ slope)
    for _ in range(_STEPS):
        move = solve_triangular(factor, direction)
        change = A @ move
        bend = float(change @ change)
        if bend == 0:
            break
        x = x + size / bend * move
        residual = residual - size / bend * change
        slope = solve_triangular(factor, A.T @ residual, trans="T")
        following = float(slope @ slope)
        direction, size = slope + following / size * direction, following
    return x


def _completed(
    kind: type[AlternatingCompletion], inner: int | None
) -> Callable[[_Problem], np.ndarray]:
    def run(p: _Problem) -> np.ndarray:
        model = kind(p.rank, inner=inner, tol=0.0, max_iter=_SWEEPS, random_state=0)
        left, right = model.fit_observed(p.observed)
        return left @ right.T

    return run


def _error(found: np.ndarray, p: _Problem) -> float:
    return float(np.linalg.norm(found - p.matrix) / np.linalg.norm(p.matrix))


def _grows(found: Found) -> Slacks:
    speed = found.times("cpu_seconds", _OURS, _EXACT)
    keys = found.study.keys
    part = f"ratio of times at rank {keys[-1][0]} over that at {keys[0][0]}, less one"
    return {part: float(least_ratio(speed[-1] / speed[0]) - 1)}


def _accurate(found: Found) -> Slacks:
    ratios = least_ratio(_NEAR * found.times("error", _OURS, _EXACT))
    return {
        f"rank {key[0]}: error below {_NEAR:g} times the exact one's": float(ratio - 1)
        for key, ratio in zip(found.study.keys, ratios, strict=True)
    }


def _faster(found: Found) -> Slacks:
    return times_ahead("cpu_seconds", _OURS, _EXACT)(found.where(rank=found.study.keys[-1][0]))


experiment = Experiment(
    method=AlternatingCompletion.card.name,
    claim="Approximate updates, each row's least squares preconditioned by a sketch, cost nearly "
    "linear time in the observed entries times the rank, against its square for exact ones, and "
    "do not change the recovery.",
    baseline="alternating minimisation with exact least squares by normal equations",
    run=Judged(
        study=Study(
            over=("rank",),
            settings={rank: rank for rank in _RANKS},
            draw=_draw,
            methods={
                _OURS: _completed(_Sketched, None),
                _EXACT: _completed(AlternatingCompletion, None),
                "conjugate gradients": _completed(AlternatingCompletion, 2),
            },
            measures={"error": _error},
        ),
        rule=every(_accurate, _grows, _faster),
        view=means("cpu_seconds", f"Processor seconds of {_SWEEPS} sweeps", "seconds"),
        against={_OURS: (_EXACT,)},
        note=f"A matrix of side {_SIZE}, {_SHARE:.0%} of it seen. The sketch is a count sketch of "
        f"{_ROWS} rows for every unknown, factorised by QR, with {_STEPS} steps from the last "
        "solution; exact rows and sketched ones are loops alike. The class itself takes "
        "steps for all rows at once without a sketch, which are shown beside.",
        reason="With so few entries in a row its Gram matrix is one product at the speed of the "
        "processor, cheaper than the QR of a sketch, whose cube of the rank the bound drops.",
    ),
    earlier=(
        Earlier(
            rule="two plain steps of conjugate gradients within 1.1 of the exact errors, and a "
            "ratio of times that grows with the rank",
            reproduced=False,
            margin=-0.634563,
            why="the paper's preconditioned solver was not built; ranks had different shares seen",
        ),
    ),
)
