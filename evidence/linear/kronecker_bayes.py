"""Kronecker-structured prior variances against unstructured ones."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import KroneckerBayes, OrthogonalMatchingPursuit, SparseBayes, kronecker_omp
from thresher.linear.bayes.em import exact_expectation, maximise_evidence

from .._plots import lines
from .._statistics import paired_margin
from . import _recovery as recovery

_COLUMNS, _NONZEROS = 14, 3
_SETTINGS = ((6, 20), (8, 20), (10, 20), (8, 10), (8, 30))  # rows per factor, decibels


def _structured(update: str) -> Any:
    def recover(factors: list[np.ndarray], y: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a round limit for all methods; errors are compared
            return KroneckerBayes(update, max_iter=150).fit(factors, y).coef_

    return recover


def _unstructured(factors: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    A = np.kron(*factors)
    return maximise_evidence(A, y, exact_expectation(A, y), tol=1e-4, max_iter=150).mean


def _greedy(factors: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    return SparseBayes(fit_intercept=False).fit(np.kron(*factors), y).coef_


def _pursuit(factors: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    model = OrthogonalMatchingPursuit(_NONZEROS**2, fit_intercept=False)
    return model.fit(np.kron(*factors), y).coef_


def _kronecker_pursuit(factors: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    return kronecker_omp(factors, y, [_NONZEROS, _NONZEROS])


_METHODS = {
    "SVD": _structured("svd"),
    "alternating": _structured("alternating"),
    "SBL, EM": _unstructured,
    "SBL, greedy": _greedy,
    "OMP, told the number": _pursuit,
    "Kronecker-OMP, told the numbers": _kronecker_pursuit,
}


def _problem(
    rng: np.random.Generator, rows: int, snr: float
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the factors of a dictionary, a vector of Kronecker support, and measurements."""
    factors = [rng.standard_normal((rows, _COLUMNS)) for _ in range(2)]
    sides = [np.abs(recovery.sparse_vector(rng, _COLUMNS, _NONZEROS)) > 0 for _ in range(2)]
    x = np.kron(*sides) * rng.standard_normal(_COLUMNS**2)
    return factors, x, recovery.with_noise(rng, np.kron(*factors) @ x, snr)


def _hits(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of the non-zeros that are among as many largest coefficients."""
    largest = np.argsort(-np.abs(found))[: np.count_nonzero(truth)]
    return float(np.mean(truth[largest] != 0))


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    trials = max(1, round(32 * scale))
    # Error in dB, hits and processor time, per method, setting and seed.
    found = np.zeros((3, len(_METHODS), len(_SETTINGS), len(seeds)))
    for s, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        for r, (rows, snr) in enumerate(_SETTINGS):
            for _ in range(trials):
                factors, x, y = _problem(rng, rows, snr)
                for m, method in enumerate(_METHODS.values()):
                    start = time.process_time()
                    coef = method(factors, y)
                    seconds = time.process_time() - start
                    scores = recovery.decibels(coef, x), _hits(coef, x), seconds
                    found[:, m, r, s] += np.array(scores) / trials
    return _verdict(found)


def _verdict(found: np.ndarray) -> Outcome:
    errors, hits, seconds = found
    overall = errors.mean(1)
    speed = seconds[1].sum() / seconds[0].sum()
    slacks = {
        "dB by which the worse structured update leads the best rival, less one standard error": (
            paired_margin(overall[2:].min(0) - overall[:2].max(0))
        ),
        "dB by which SVD is more accurate than alternating, less one standard error": (
            paired_margin(overall[1] - overall[0])
        ),
        "speed of SVD over that of alternating, in dB": 10 * np.log10(speed),
    }
    table = [
        {
            "method": m, "rows": rows, "snr_dB": snr, "error_dB": errors[i, j].mean(),
            "hits": hits[i, j].mean(), "cpu_s": seconds[i, j].sum(),
        }
        for i, m in enumerate(_METHODS)
        for j, (rows, snr) in enumerate(_SETTINGS)
    ]  # fmt: skip
    summary = _summary(overall.mean(1), overall[0] - overall[1], speed)
    return Outcome.judged(slacks, summary, table, _figure(errors))


def _summary(overall: np.ndarray, gaps: np.ndarray, speed: float) -> str:
    text = (
        "Mean error in dB: "
        + ", ".join(f"{m} {e:.1f}" for m, e in zip(_METHODS, overall, strict=True))
        + f". The SVD update is {speed:.1f} times as fast as alternating minimisation; its error "
        f"is {gaps.mean():+.1f} dB higher ({', '.join(f'{gap:+.1f}' for gap in gaps)} by seed). "
        "The margin is in dB."
    )
    if gaps.mean() > 0:
        text += (
            " The paper finds the SVD update more accurate. Suspected reason: the nearest "
            "product in the sum of squares follows the largest moments and loses small ones; "
            "alternating minimisation lowers the objective that the prior asks for."
        )
    elif paired_margin(-gaps) <= 0:
        text += (
            " The paper finds the SVD update more accurate; here its gain is within the noise "
            "between seeds: each of the two fails on some supports where the other does not."
        )
    return text


def _figure(errors: np.ndarray) -> Any:
    return lines(
        [f"{rows}² at {snr} dB" for rows, snr in _SETTINGS],
        {m: errors[i].mean(1).tolist() for i, m in enumerate(_METHODS)},
        title=f"Kronecker support of {_NONZEROS}² among {_COLUMNS}²",
        x_title="measurements", y_title="error (dB)",
    )  # fmt: skip


experiment = Experiment(
    method="kronecker-bayes",
    claim="Kronecker-structured prior variances recover Kronecker supports better than "
    "unstructured sparse Bayesian learning and greedy pursuit, and the SVD update is faster and "
    "more accurate than alternating minimisation.",
    baseline="unstructured sparse Bayesian learning, by EM and greedy; OMP told the number of "
    "non-zeros; Kronecker-OMP told the number of each factor",
    run=_run,
)
