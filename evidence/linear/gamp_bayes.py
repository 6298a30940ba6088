"""Message passing in sparse Bayesian learning against exact inversion and damped GAMP."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from thresher.core.errors import NumericalError
from thresher.core.evidence import Earlier, Experiment
from thresher.linear import GAMPBayes
from thresher.linear.bayes.em import exact_expectation, maximise_evidence

from .. import _planted as planted
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, ahead, every, means, times_ahead

_ROWS, _COLUMNS, _SUPPORT, _SNR = 250, 500, 38, 40
_DAMPING, _PASSES = 0.3, 1000
_NEAR = 1.0  # decibels behind that count as alike
_DESIGNS: dict[str, planted.Design] = {
    "independent": planted.gaussian,
    "correlated 0.8": planted.correlated(0.8),
    "condition 100": planted.ill_conditioned(100),
}
_HARD = tuple(_DESIGNS)[1:]


def _draw(design: planted.Design, drawn: Draw) -> planted.Planted:
    rng = drawn.rng
    A = planted.unit_columns(design(rng, _ROWS, _COLUMNS))
    return planted.plant(rng, A, planted.sparse_vector(rng, _COLUMNS, _SUPPORT), _SNR)


def _messages(p: planted.Planted) -> np.ndarray:
    return GAMPBayes(damping=_DAMPING, fit_intercept=False).fit(p.A, p.y).coef_


def _exact(p: planted.Planted) -> np.ndarray:
    return maximise_evidence(p.A, p.y, exact_expectation(p.A, p.y), tol=1e-4).mean


def _gamp(p: planted.Planted) -> np.ndarray:
    """Pass damped messages under a Bernoulli-Gaussian prior that is told all its parameters."""
    density, squares = _SUPPORT / _COLUMNS, p.A**2
    noise = float(np.mean((p.y - p.A @ p.x) ** 2))
    mean, variance, dual = np.zeros(_COLUMNS), np.full(_COLUMNS, density), np.zeros(_ROWS)
    with np.errstate(all="ignore"):
        for _ in range(_PASSES):
            spread = squares @ variance
            target = (p.y - p.A @ mean + spread * dual) / (spread + noise)
            dual = dual + _DAMPING * (target - dual)
            width = 1 / (squares.T @ (1 / (spread + noise)))
            guess, shrink = mean + width * (p.A.T @ dual), 1 / (1 + width)
            odds = np.log(density / (1 - density)) + np.log(width * shrink) / 2
            inside = expit(odds + guess**2 * shrink / width / 2)
            estimate = inside * shrink * guess
            second = inside * (shrink * width + (shrink * guess) ** 2)
            before = mean
            mean = mean + _DAMPING * (estimate - mean)
            variance = variance + _DAMPING * (second - estimate**2 - variance)
            if not np.linalg.norm(mean - before) > 1e-6 * np.linalg.norm(mean):
                break
    return mean


def _as_accurate(found: Found) -> Slacks:
    leads = found.lead("error_dB", "GGAMP-SBL", "exact SBL") + _NEAR
    pairs = zip(_DESIGNS, lower(leads), strict=True)
    return {f"{design}: less than {_NEAR:g} dB behind exact": float(s) for design, s in pairs}


def _robust(found: Found) -> Slacks:
    rule = ahead("error_dB", "GGAMP-SBL", "damped GAMP")
    return {k: v for design in _HARD for k, v in rule(found.where(design=design)).items()}


experiment = Experiment(
    method=GAMPBayes.card.name,
    claim="Sparse Bayesian learning by damped message passing is much more robust to the "
    "measurement matrix than damped GAMP, at much lower cost than with exact inversion.",
    baseline="damped GAMP under the right prior, and expectation-maximisation with exact inversion",
    run=Judged(
        study=Study(
            over=("design",),
            settings=_DESIGNS,
            draw=_draw,
            methods={
                "GGAMP-SBL": _messages,
                "exact SBL": _exact,
                "damped GAMP": _gamp,
            },
            measures={"error_dB": planted.error_db},
            failed={NumericalError: np.full(_COLUMNS, np.inf)},
        ),
        rule=every(_robust, _as_accurate, times_ahead("cpu_seconds", "GGAMP-SBL", "exact SBL")),
        view=means("error_dB", f"Error of {_SUPPORT} of {_COLUMNS} from {_ROWS}", "error (dB)"),
        against={"GGAMP-SBL": ("exact SBL", "damped GAMP")},
        note=f"0 dB is the zero vector, 40 stands for divergence. Both damp by {_DAMPING:g}; GAMP "
        "is told its density and the variances of prior and noise. Robustness is judged on the "
        "two hard designs. The version for several measurement vectors is not rerun.",
        reason="So damped, GAMP settles on correlated columns too, and knows more of the truth "
        "than a prior that is learned; it fails where the condition is bad, in some draws.",
    ),
    earlier=(
        Earlier(
            rule="over 1 dB ahead of undamped messages on the hard designs, without GAMP",
            reproduced=True,
            margin=1.2549,
            why="the paper's rival is damped; undamped messages diverge whatever the prior",
        ),
    ),
)
