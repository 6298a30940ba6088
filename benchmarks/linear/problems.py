"""The problems, and how good an answer to each is, computed the same way for every library."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thresher.assets.fetch import cached, fetch
from thresher.assets.registry import ASSETS

# Read in a process of its own: a pickle can run code.
_CONVERT = """
import lzma, pickle, sys
import numpy as np
frame = pickle.loads(lzma.open(sys.argv[1]).read())
values = frame.select_dtypes("number").to_numpy(float)
labels = frame.select_dtypes(exclude="number").iloc[:, -1].astype(str).to_numpy(str)
np.savez(sys.argv[2], X=values, labels=labels)
"""


@dataclass(frozen=True)
class Problem:
    """Data, strength, the libraries that can solve it, and the measure of an answer.

    ``error(coef)`` is what every library must bring below `target`; the loosest tolerance
    of each that does is what is timed.
    """

    name: str
    kind: str
    X: np.ndarray
    y: np.ndarray
    alpha: float | np.ndarray
    libraries: tuple[str, ...]
    error: Callable[[np.ndarray], float]
    target: float
    measure: str


def planted(rows: int, columns: int, support: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a centred Gaussian design and a target of signal-to-noise ratio 3."""
    rng = np.random.default_rng(seed)
    X = np.asfortranarray(rng.standard_normal((rows, columns)))
    X -= X.mean(axis=0)
    y = X[:, :support].sum(axis=1) + np.sqrt(support) / 3 * rng.standard_normal(rows)
    return X, y - y.mean()


def nci60(python: str) -> tuple[np.ndarray, np.ndarray]:
    """Return standardised gene expressions (64 x 6,830) and whether a tumour is a melanoma."""

    def build(folder: Path) -> None:
        source = next(fetch(ASSETS["nci60"]).glob("NCI60*"))
        target = str(folder / "nci60.npz")
        subprocess.run([python, "-c", _CONVERT, str(source), target], check=True)

    data = np.load(cached("nci60-converted", build) / "nci60.npz")
    X = data["X"][:, :6830]
    X = np.asfortranarray((X - X.mean(axis=0)) / X.std(axis=0))
    return X, np.where(data["labels"] == "MELANOMA", 1.0, -1.0)


def lasso_gap(X: np.ndarray, y: np.ndarray, alpha: float) -> Callable[[np.ndarray], float]:
    """Return the duality gap relative to the objective at zero."""

    def gap(coef: np.ndarray) -> float:
        residual = y - X @ coef
        scale = min(1.0, alpha * len(y) / np.abs(X.T @ residual).max())
        dual = scale * residual
        primal = residual @ residual / (2 * len(y)) + alpha * np.abs(coef).sum()
        return (primal - (y @ dual - dual @ dual / 2) / len(y)) / (y @ y / (2 * len(y)))

    return gap


def logistic_gap(X: np.ndarray, y: np.ndarray, alpha: float) -> Callable[[np.ndarray], float]:
    """Return the duality gap relative to the objective at zero, ``log 2``."""

    def gap(coef: np.ndarray) -> float:
        z = y * (X @ coef)
        share = 1 / (1 + np.exp(z))
        share = share * min(1.0, alpha * len(y) / np.abs(X.T @ (y * share)).max())
        entropy = -share * np.log(share) - (1 - share) * np.log1p(-share)
        primal = np.logaddexp(0, -z).mean() + alpha * np.abs(coef).sum()
        return (primal - entropy.mean()) / np.log(2)

    return gap


def group_gap(X: np.ndarray, y: np.ndarray, alpha: float) -> Callable[[np.ndarray], float]:
    """Return the duality gap for groups of five with unit weights, relative to that at zero."""

    def norms(coef: np.ndarray) -> np.ndarray:
        return np.linalg.norm(coef.reshape(-1, 5), axis=1)

    def gap(coef: np.ndarray) -> float:
        residual = y - X @ coef
        scale = min(1.0, alpha * len(y) / norms(X.T @ residual).max())
        dual = scale * residual
        primal = residual @ residual / (2 * len(y)) + alpha * norms(coef).sum()
        return (primal - (y @ dual - dual @ dual / 2) / len(y)) / (y @ y / (2 * len(y)))

    return gap


def mcp_violation(X: np.ndarray, y: np.ndarray, alpha: float) -> Callable[[np.ndarray], float]:
    """Return the violation of stationarity (gamma 3), relative to that at zero."""

    def violation(coef: np.ndarray) -> float:
        gradient = X.T @ (X @ coef - y) / len(y)
        slope = np.maximum(alpha - np.abs(coef) / 3.0, 0)
        inside = np.abs(gradient + np.sign(coef) * slope)
        outside = np.maximum(np.abs(gradient) - alpha, 0)
        return float(np.where(coef == 0, outside, inside).max() / np.abs(X.T @ y / len(y)).max())

    return violation


def path_gap(X: np.ndarray, y: np.ndarray, alphas: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return the largest duality gap along the path."""
    return lambda coefs: max(
        lasso_gap(X, y, alpha)(coef) for alpha, coef in zip(alphas, coefs, strict=True)
    )


def problems(python: str, small: bool) -> list[Problem]:
    """Return all problems; `python` is an interpreter with pandas, `small` a quick trial."""
    shapes = [(200, 500)] if small else [(1000, 5000), (500, 50_000)]
    found = []
    for rows, columns in shapes:
        X, y = planted(rows, columns, 50, 0)
        top = np.abs(X.T @ y).max() / rows
        peers = ("celer", "skglm") + (("scikit-learn",) if columns <= 5000 else ())
        name = f"{rows} x {columns}"
        gap = lasso_gap(X, y, top / 50)
        found.append(
            Problem(
                f"Lasso {name}", "lasso", X, y, top / 50, ("thresher", *peers), gap, 1e-6, "gap"
            )
        )
        alphas = top * np.geomspace(1, 0.02, 50)
        error = path_gap(X, y, alphas)
        found.append(
            Problem(
                f"Lasso path of 50, {name}",
                "path",
                X,
                y,
                alphas,
                ("thresher", "adelie", "celer"),
                error,
                1e-5,
                "largest gap",
            )
        )
    X, y = (shapes and planted(60, 500, 5, 1)) if small else nci60(python)
    y = np.sign(y) if small else y
    for share in (10, 50):
        alpha = np.abs(X.T @ y).max() / (2 * len(y)) / share
        found.append(
            Problem(
                f"logistic NCI60, alpha max / {share}",
                "logistic",
                X,
                y,
                alpha,
                ("thresher", "celer", "skglm", "scikit-learn"),
                logistic_gap(X, y, alpha),
                1e-6,
                "gap",
            )
        )
    regression = y - y.mean()
    norms = np.linalg.norm((X.T @ regression).reshape(-1, 5), axis=1)
    alpha = norms.max() / len(y) / 10
    found.append(
        Problem(
            "group Lasso NCI60",
            "group",
            X,
            regression,
            alpha,
            ("thresher", "adelie", "celer", "skglm"),
            group_gap(X, regression, alpha),
            1e-6,
            "gap",
        )
    )
    alpha = np.abs(X.T @ regression).max() / len(y) / 5
    found.append(
        Problem(
            "MCP NCI60",
            "mcp",
            X,
            regression,
            alpha,
            ("thresher", "skglm"),
            mcp_violation(X, regression, alpha),
            1e-5,
            "violation",
        )
    )
    rng = np.random.default_rng(2)
    atoms = rng.standard_normal((256, 64))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    signals = rng.standard_normal((500 if small else 20_000, 64))

    def coding_error(codes: np.ndarray) -> float:
        return float(np.linalg.norm(signals - codes @ atoms) / np.linalg.norm(signals))

    found.append(
        Problem(
            f"OMP coding of {len(signals)} signals",
            "coding",
            atoms,
            signals,
            5.0,
            ("thresher", "scikit-learn"),
            coding_error,
            np.inf,
            "relative residual",
        )
    )
    X, y = planted(*((200, 500, 10) if small else (1000, 5000, 50)), 3)
    size = 10 if small else 50

    def missed(coef: np.ndarray) -> float:
        return 1 - len(set(np.argsort(-np.abs(coef))[:size]) & set(range(size))) / size

    found.append(
        Problem(
            f"best {size} of {X.shape[1]}",
            "subset",
            X,
            y,
            float(size),
            ("thresher", "abess"),
            missed,
            np.inf,
            "1 - F1 of the support",
        )
    )
    return found
