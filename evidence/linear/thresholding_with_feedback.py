"""Thresholding with feedback against other greedy recovery, over the number of non-zeros."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import dct

from thresher.core.evidence import Earlier, Experiment
from thresher.linear import (
    OrthogonalMatchingPursuit,
    ThresholdingWithFeedback,
    amp,
    cosamp,
    hard_thresholding_pursuit,
    iht,
)
from thresher.linear.recovery.thresholding import Recovery

from .. import _planted as planted
from .._study import Draw, Found, Judged, Slacks, Study, ahead_overall, every, grid, means

_ROWS, _COLUMNS, _SUPPORTS = 100, 250, (5, 10, 20, 30, 40)
_LIMIT = 100  # steps; what fails counts as many
_RIVALS = ("IHT", "HTP", "CoSaMP")


def _partial_dct(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    chosen = np.sort(rng.choice(columns, rows, replace=False))
    return dct(np.eye(columns), norm="ortho", axis=0)[chosen] * np.sqrt(columns / rows)


_MATRICES: dict[str, planted.Design] = {
    "Gaussian": lambda rng, n, p: planted.gaussian(rng, n, p) / np.sqrt(n),
    "partial DCT": _partial_dct,
}


def _draw(setting: tuple[str, int], drawn: Draw) -> planted.Planted:
    rng = drawn.rng
    A = _MATRICES[setting[0]](rng, _ROWS, _COLUMNS)
    return planted.plant(rng, A, planted.sparse_vector(rng, _COLUMNS, setting[1]))


def _told(recover: Callable[..., Recovery]) -> Callable[[planted.Planted], Recovery]:
    return lambda p: recover(p.A, p.y, np.count_nonzero(p.x), max_iter=_LIMIT)


def _feedback(k: int, adaptive: bool, p: planted.Planted) -> Recovery:
    return ThresholdingWithFeedback(k, adaptive=adaptive, max_iter=_LIMIT).recover(p.A, p.y)


def _omp(p: planted.Planted) -> Recovery:
    model = OrthogonalMatchingPursuit(np.count_nonzero(p.x), tol=1e-16, fit_intercept=False)
    model.fit(p.A, p.y)
    return Recovery(model.coef_, model.n_iter_, float(np.linalg.norm(p.y - p.A @ model.coef_)))


def _failed(found: Recovery, p: planted.Planted) -> float:
    return float(planted.relative_error(found.coef, p) > 1e-4)


def _steps(found: Recovery, p: planted.Planted) -> float:
    return _LIMIT if _failed(found, p) else found.n_iter


def _rule(found: Found) -> Slacks:
    rule = every(*(ahead_overall(measure, "feedback", *_RIVALS) for measure in ("failed", "steps")))
    parts = {matrix: rule(found.where(matrix=matrix)) for matrix in _MATRICES}
    return {f"{matrix}: {k}": v for matrix, slacks in parts.items() for k, v in slacks.items()}


experiment = Experiment(
    method=ThresholdingWithFeedback.card.name,
    claim="Null-space tuning with hard thresholding and feedback converges in few, finitely many "
    "steps, and is exceedingly effective. (Judged, as in the published version: it recovers more "
    "often and in fewer steps than other thresholding. The explicit count is not judged.)",
    baseline="IHT, HTP and CoSaMP, told the number of non-zeros too; OMP and AMP beside them",
    run=Judged(
        study=Study(
            over=("matrix", "non-zeros"),
            settings=grid(tuple(_MATRICES), _SUPPORTS),
            draw=_draw,
            methods={
                "feedback": lambda p: _feedback(np.count_nonzero(p.x), False, p),
                "adaptive feedback": lambda p: _feedback(_ROWS // 2, True, p),
                "IHT": _told(iht),
                "HTP": _told(hard_thresholding_pursuit),
                "CoSaMP": _told(cosamp),
                "OMP": _omp,
                "AMP": lambda p: amp(p.A, p.y, max_iter=_LIMIT),
            },
            measures={"failed": _failed, "steps": _steps},
            draws=6,
        ),
        rule=_rule,
        view=means("failed", f"Share not recovered from {_ROWS} of {_COLUMNS}", "failed"),
        against={"feedback": _RIVALS},
        note="Slacks are shares of draws and numbers of steps over all numbers of non-zeros, for "
        f"each kind of matrix; what fails counts as {_LIMIT} steps. The adaptive scheme, which is "
        "not told their number, is shown and not judged. The published version (Numerical "
        "Algorithms 2022) claims a clearly advantageous balance beside other greedy algorithms.",
        reason="CoSaMP fits twice as many columns in every step, which helps where there are many "
        "non-zeros; on the DCT, whose rows are orthogonal, null-space tuning is the gradient step "
        "of HTP and nothing is gained (suspected).",
    ),
    earlier=(
        Earlier(
            rule="recovers more often than the best of IHT, HTP and CoSaMP, on Gaussian matrices",
            reproduced=False,
            margin=-0.05,
            why="it was set aside as beyond the claim; it is judged again here",
        ),
        Earlier(
            rule="fewer steps than a count that follows from the contraction, derived here",
            reproduced=True,
            margin=0.13553,
            why="HTP and CoSaMP pass it with the same margin, which does not depend on the method",
        ),
    ),
)
