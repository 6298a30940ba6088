"""Second-order against first-order hard thresholding for sparse phase retrieval."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from thresher.core.evidence import Experiment
from thresher.linear import SparsePhaseRetrieval

from .. import _planted as planted
from .._statistics import least_ratio, lower
from .._study import Draw, Found, Judged, Slacks, Study, in_means, means

_FEATURES, _NONZEROS, _MEASUREMENTS, _LIMIT = 500, 12, (200, 300, 400, 600), 300
_RARER = 0.02  # share of draws by which Newton may recover more rarely
_ORDER = 1.7  # least order of convergence; 2 is quadratic


def _draw(count: int, drawn: Draw) -> planted.Planted:
    rng = drawn.rng
    A = planted.gaussian(rng, count, _FEATURES)
    x = planted.sparse_vector(rng, _FEATURES, _NONZEROS)
    return planted.Planted(A, np.abs(A @ x), x)


def _recover(newton: bool) -> Callable[[planted.Planted], SparsePhaseRetrieval]:
    return lambda p: SparsePhaseRetrieval(_NONZEROS, newton=newton, max_iter=_LIMIT).fit(p.A, p.y)


def _distance(found: np.ndarray, p: planted.Planted) -> float:
    return min(planted.relative_error(sign * found, p) for sign in (1, -1))


def _failed(model: SparsePhaseRetrieval, p: planted.Planted) -> float:
    return float(_distance(model.coef_, p) >= 1e-6)


def _steps(model: SparsePhaseRetrieval, p: planted.Planted) -> float:
    """Return the steps, or as many as there may be where the vector is not found."""
    return _LIMIT if _failed(model, p) else model.n_iter_


def _inverse_order(model: SparsePhaseRetrieval, p: planted.Planted) -> float:
    """Return one over the mean order of steps that start near and end above rounding."""
    errors = [_distance(point, p) for point in model.path_]
    near = [(a, b) for a, b in itertools.pairwise(errors) if 1e-6 < a < 1e-2 and b > 1e-14]
    return 1 / float(np.mean([np.log(b) / np.log(a) for a, b in near])) if near else np.nan


def _rule(found: Found) -> Slacks:
    inverse = found.of("inverse_order", "Newton")
    rarer = found.lead("failed", "Newton", "gradient").mean(axis=0) + _RARER
    both = np.any([found.of("failed", m) > 0.5 for m in found.study.methods], axis=0)
    ratios = found.times("steps", "Newton", "gradient")[~both]
    return {
        f"order of convergence above {_ORDER:g}": float(
            lower(1 / _ORDER - inverse[~np.isnan(inverse)])
        ),
        "recovers no more rarely": float(lower(rarer)),
        "fewer steps where both recover, ratio less one": float(least_ratio(ratios) - 1),
    }


experiment = Experiment(
    method=SparsePhaseRetrieval.card.name,
    claim="Newton steps on the support found by hard thresholding converge quadratically, in far "
    "fewer steps than first-order methods, and recover as often.",
    baseline="hard-thresholded gradient steps on the amplitude loss from the same start",
    run=Judged(
        study=Study(
            over=("measurements",),
            settings={count: count for count in _MEASUREMENTS},
            draw=_draw,
            methods={"Newton": _recover(True), "gradient": _recover(False)},
            measures={"failed": _failed, "steps": _steps, "inverse_order": _inverse_order},
            draws=20,
        ),
        rule=_rule,
        view=means("failed", f"Share of {_NONZEROS} of {_FEATURES} not recovered", "failed"),
        against={"Newton": ("gradient",)},
        note="`inverse_order` is one over the order of convergence near the solution, 1/2 where it "
        f"is quadratic; it is to be above {_ORDER:g}. As often is read as at most "
        f"{_RARER:.0%} of draws more rarely.",
    ),
    earlier=(in_means(True, 0.0894444),),
)
