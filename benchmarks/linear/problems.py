"""The problems: data, strength, who can solve them, and what an answer must reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from .data import dictionary, planted, planted_sparse, real

OURS = "thresher"
# For scale only: its licence keeps it out of comparisons that anyone learns code from.
YARDSTICKS = ("spams-bin",)
GAP, VIOLATION, EXCESS = "duality gap", "violation", "objective"


@dataclass(frozen=True)
class Problem:
    """One problem.

    Parameters
    ----------
    name : str
        Shown, and what results are merged by.
    kind : str
        Key of the calls and measures.
    libraries : tuple of str
        Thresher first.
    build : callable
        Returns the arrays that the worker loads.
    stop : str
        What every library must bring below `target`: the duality gap or the violation of
        stationarity, relative to that at zero; or the excess over the best objective that any
        library found, relative to the objective at zero. Empty where a call has no tolerance.
    target : float
        The bound.
    series : str
        Problems of one series differ in size alone and make one plot.
    """

    name: str
    kind: str
    libraries: tuple[str, ...]
    build: Callable[[], dict[str, Any]]
    seed: int | None = None
    stop: str = GAP
    target: float = 1e-6
    series: str = ""


def problems(python: str, quick: bool) -> Iterator[Problem]:
    """Yield all problems; `python` reads the real data, `quick` is a small trial without them."""
    yield from lassos(quick)
    yield from paths(quick)
    for name in ("nci60", "golub", "spam"):
        yield from classifications(name, python, quick)
    yield coding(quick)
    yield from subsets(quick)
    yield large_path(quick)


def lassos(quick: bool) -> Iterator[Problem]:
    shapes = [(60, 100), (60, 200)] if quick else [(1000, 5000)]
    shapes += [] if quick else [(500, columns) for columns in (1000, 5000, 20_000, 50_000)]
    for rows, columns in shapes:
        libraries = (OURS, "celer", "skglm", "adelie", "scikit-learn")

        def build(rows: int = rows, columns: int = columns) -> dict[str, Any]:
            X, y, _ = planted(rows, columns, 50, seed=0)
            return {"X": X, "y": y, "alphas": [np.abs(X.T @ y).max() / rows / 50]}

        name = f"Lasso {rows} x {columns}, alpha_max/50"
        series = "" if rows == 1000 else f"Lasso, n={rows}, alpha_max/50"
        small = columns <= 5000
        yield Problem(
            name, "lasso", libraries if small else libraries[:-1], build, 0, series=series
        )


def paths(quick: bool) -> Iterator[Problem]:
    count = 10 if quick else 50
    for rows, columns in [(60, 200)] if quick else [(1000, 5000), (500, 50_000)]:

        def build(rows: int = rows, columns: int = columns) -> dict[str, Any]:
            X, y, _ = planted(rows, columns, 50, seed=0)
            top = np.abs(X.T @ y).max() / rows
            return {"X": X, "y": y, "alphas": top * np.geomspace(1, 0.02, count)}

        name = f"Lasso path of {count}, {rows} x {columns}, to alpha_max/50"
        yield Problem(name, "path", (OURS, "adelie", "celer"), build, 0, EXCESS)


def classifications(name: str, python: str, quick: bool) -> Iterator[Problem]:
    """Yield logistic, group and MCP problems on one data set with labels of -1 and 1."""

    def data() -> tuple[np.ndarray, np.ndarray]:
        if quick:
            X, y, _ = planted(60, 120, 5, seed=1)
            return X, np.where(y > 0, 1.0, -1.0)
        return real(name, python)

    for share in (10, 50):

        def build_logistic(share: int = share) -> dict[str, Any]:
            X, y = data()
            return {"X": X, "y": y, "alphas": [np.abs(X.T @ y).max() / (2 * len(y)) / share]}

        libraries = (OURS, "celer", "skglm", "adelie", "scikit-learn")
        yield Problem(
            f"logistic L1 {name}, alpha_max/{share}", "logistic", libraries, build_logistic
        )

    def build_group() -> dict[str, Any]:
        X, y = data()
        size = 5 if name == "nci60" else 3
        y = y - y.mean()
        norms = np.linalg.norm((X.T @ y).reshape(-1, size), axis=1)
        return {"X": X, "y": y, "alphas": [norms.max() / len(y) / 10], "group": size}

    libraries = (OURS, "celer", "skglm", "adelie")
    yield Problem(f"group Lasso {name}, alpha_max/10", "group", libraries, build_group)

    def build_mcp() -> dict[str, Any]:
        X, y = data()
        y = y - y.mean()
        return {"X": X, "y": y, "alphas": [np.abs(X.T @ y).max() / len(y) / 5]}

    yield Problem(
        f"MCP {name}, alpha_max/5", "mcp", (OURS, "skglm"), build_mcp, None, VIOLATION, 1e-5
    )


def coding(quick: bool) -> Problem:
    count = 200 if quick else 20_000

    def build() -> dict[str, Any]:
        atoms, signals = dictionary(256, 64, count, seed=2)
        return {"X": atoms, "y": signals, "size": 5}

    libraries = (OURS, "spams-bin", "scikit-learn")
    return Problem(f"OMP coding of {count} signals, d=64, K=256, k=5", "coding", libraries, build,
                   2, "")  # fmt: skip


def subsets(quick: bool) -> Iterator[Problem]:
    rows, columns, size = (100, 200, 5) if quick else (1000, 5000, 50)
    # The second kind is hard enough that the truth is not always found.
    for label, correlation, noise in (("independent", 0.0, 1 / 3), ("correlated 0.7", 0.7, 1.0)):
        for seed in (3,) if quick else range(3, 13):

            def build(
                seed: int = seed, correlation: float = correlation, noise: float = noise
            ) -> dict[str, Any]:
                X, y, support = planted(rows, columns, size, seed, correlation, noise)
                return {"X": X, "y": y, "size": size, "support": support}

            name = f"best {size} of {columns}, n={rows}, {label}, seed {seed}"
            yield Problem(name, "subset", (OURS, "abess"), build, seed, "")


def large_path(quick: bool) -> Problem:
    rows, columns = (200, 500) if quick else (100_000, 1_000_000)

    def build() -> dict[str, Any]:
        X, y = planted_sparse(rows, columns, 10, 50 if quick else 1000, seed=6)
        top = np.abs(X.T @ y).max() / rows
        alphas = top * np.geomspace(1, 0.1, 20)
        return {"X": X, "y": y, "alphas": alphas}

    name = f"Lasso path of 20, CSC {rows} x {columns}, 10 per column, to alpha_max/10"
    return Problem(name, "path", (OURS, "celer", "adelie"), build, 6, EXCESS)


def save(problem: Problem, file: str) -> None:
    """Write the arrays that the worker loads."""
    arrays = problem.build() | {"kind": problem.kind, "target": problem.target or np.inf}
    if sparse.issparse(arrays["X"]):
        X = arrays.pop("X")
        arrays |= {"data": X.data, "indices": X.indices, "starts": X.indptr, "shape": X.shape}
    np.savez(file, **arrays)
