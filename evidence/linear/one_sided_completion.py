"""The row space from two entries per row: completing X^T X against factorising X."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import AlternatingCompletion, OneSidedCompletion
from thresher.linear.completion import Observed

from .._models import paired_margin
from .._plots import lines

_COLUMNS, _RANK = 40, 3
_SIZES = (5_000, 20_000, 50_000)
_PENALTIES = (1e-6, 1e-2, 0.1, 1.0, 10.0)


def _one_sided(observed: Observed) -> np.ndarray:
    return OneSidedCompletion(_RANK).fit_observed(observed).components_


def _alternating(observed: Observed) -> np.ndarray:
    """Complete X itself, its penalty chosen by the error on hidden entries."""
    values = observed.values.tocoo()
    # The second entry of every tenth row; each row keeps one.
    hidden = (np.arange(values.nnz) % 2 == 1) & (values.row % 10 == 0)
    kept = sparse.coo_array(
        (values.data[~hidden], (values.row[~hidden], values.col[~hidden])), shape=values.shape
    )

    def miss(ridge: float) -> float:
        left, right = _factorise(Observed(kept), ridge)
        guess = np.einsum("ij,ij->i", left[values.row[hidden]], right[values.col[hidden]])
        return float(np.sum((guess - values.data[hidden]) ** 2))

    return _factorise(observed, min(_PENALTIES, key=miss))[1].T


def _factorise(observed: Observed, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    model = AlternatingCompletion(_RANK, ridge=ridge, max_iter=20, random_state=0)
    return model.fit_observed(observed)


def _singular_vectors(observed: Observed) -> np.ndarray:
    start = np.ones(_COLUMNS)
    return svds(observed.values, k=_RANK, v0=start)[2]


def _distance(components: np.ndarray, truth: np.ndarray) -> float:
    """Return the distance of the projections on two row spaces, 1 where they are orthogonal."""
    gap = components.T @ components - truth.T @ truth
    return float(np.linalg.norm(gap) / np.sqrt(2 * _RANK))


def _observe(rng: np.random.Generator, rows: int, truth: np.ndarray) -> Observed:
    scores = rng.standard_normal((rows, _RANK))
    seen = np.argsort(rng.random((rows, _COLUMNS)), axis=1)[:, :2]
    values = np.einsum("ir,rij->ij", scores, truth[:, seen])
    values += 0.1 / np.sqrt(_COLUMNS) * rng.standard_normal(values.shape)
    where = (np.repeat(np.arange(rows), 2), seen.ravel())
    return Observed(sparse.coo_array((values.ravel(), where), shape=(rows, _COLUMNS)))


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    sizes = _SIZES if scale >= 0.5 else _SIZES[:2]
    seeds = seeds[: max(1, round(len(seeds) * scale))]
    names = ("one-sided", "alternating on X", "SVD of zero-filled X")
    errors = np.zeros((len(names), len(sizes), len(seeds)))
    for s, seed in enumerate(seeds):
        for r, rows in enumerate(sizes):
            rng = np.random.default_rng((seed, rows))
            truth = np.linalg.qr(rng.standard_normal((_COLUMNS, _RANK)))[0].T
            observed = _observe(rng, rows, truth)
            found = (
                _one_sided(observed),
                _alternating(observed),
                _singular_vectors(observed),
            )
            errors[:, r, s] = [_distance(components, truth) for components in found]
    margin = paired_margin(errors[1:].min(0).mean(0) - errors[0].mean(0))
    table: list[dict[str, Any]] = [
        {"method": m, "rows": n, "subspace_error": errors[i, j].mean()}
        for i, m in enumerate(names)
        for j, n in enumerate(sizes)
    ]
    summary = (
        f"Distance of the found row space of rank {_RANK} from the true one (1 is orthogonal) with "
        f"{', '.join(map(str, sizes))} rows of two entries each: "
        + "; ".join(
            f"{m} " + ", ".join(f"{e:.2f}" for e in errors[i].mean(1)) for i, m in enumerate(names)
        )
        + ". The margin is the mean advantage over the better of the others, less one standard "
        "error; the penalty of alternating minimisation was chosen on hidden entries."
    )
    figure = lines(
        list(sizes), {m: errors[i].mean(1).tolist() for i, m in enumerate(names)},
        title=f"Row space of {_COLUMNS} columns from two entries per row",
        x_title="rows", y_title="subspace error",
    )  # fmt: skip
    return Outcome(margin > 0, margin, summary, table, figure)


experiment = Experiment(
    method="one-sided-completion",
    claim="Two entries per row suffice to recover the right singular vectors by completing "
    "X^T X, where completing X itself fails.",
    baseline="alternating minimisation on X with its penalty chosen on hidden entries, and the SVD "
    "of X with zeros at missing entries",
    run=_run,
)
