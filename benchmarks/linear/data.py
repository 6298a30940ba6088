"""The data: planted problems, and three real ones with labels of -1 and 1."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from scipy import sparse

from thresher.assets.fetch import cached, fetch
from thresher.assets.registry import ASSETS

# Read in a process of its own: a pickle can run code.
_NCI60 = """
import lzma, pickle, sys
import numpy as np
frame = pickle.loads(lzma.open(sys.argv[1]).read())
labels = frame.select_dtypes(exclude="number").iloc[:, -1].astype(str).to_numpy(str)
np.savez(sys.argv[2], X=frame.select_dtypes("number").to_numpy(float)[:, :6830],
         positive=labels == "MELANOMA")
"""
_TABLE = """
import lzma, pickle, sys
import numpy as np
frame = pickle.loads(lzma.open(sys.argv[1]).read())
np.savez(sys.argv[2], **{
    name: column.to_numpy(float if column.dtype.kind in "iufb" else str)
    for name, column in frame.fillna({n: "" for n in frame.select_dtypes("object")}).items()
})
"""
_GOLUB = """
import sys, rdata
import numpy as np
found = rdata.read_rda(sys.argv[1], default_encoding="ascii")
np.savez(sys.argv[2], X=found["golub"].to_numpy().T, positive=np.asarray(found["golub.cl"]) == 1,
         names=np.asarray(found["golub.gnames"], dtype=str).reshape(3, -1)[1])
"""
_SPAM = """
import sys, rdata
import numpy as np
frame = rdata.read_rda(sys.argv[1], default_encoding="ascii")["spam"]
np.savez(sys.argv[2], X=frame.iloc[:, :-1].to_numpy(float),
         positive=(frame.iloc[:, -1] == "spam").to_numpy(bool),
         names=frame.columns[:-1].to_numpy(str))
"""
_SCRIPTS = {"nci60": _NCI60, "golub": _GOLUB, "spam": _SPAM}


def real(name: str, python: str) -> tuple[np.ndarray, np.ndarray]:
    """Return standardised features and labels of -1 and 1, of a data set of :func:`named`."""
    data = named(name, python)
    X = data["X"]
    X = np.asfortranarray((X - X.mean(axis=0)) / X.std(axis=0))
    return X, np.where(data["positive"], 1.0, -1.0)


def named(name: str, python: str) -> dict[str, np.ndarray]:
    """Return features ``X`` as they are, labels ``positive``, and ``names`` of the features.

    NCI60: 64 tumours x 6,830 genes without names, melanoma or not; golub: 38 patients x 3,051
    genes, AML or ALL; spam: 4,601 mails x 57 frequencies. `python` is an interpreter with pandas,
    for the last two also with rdata.
    """

    def build(folder: Path) -> None:
        (source,) = fetch(ASSETS[name]).iterdir()
        target = str(folder / "data.npz")
        subprocess.run([python, "-c", _SCRIPTS[name], str(source), target], check=True)

    with np.load(cached(f"{name}-arrays", build) / "data.npz") as data:
        return dict(data)


def table(name: str, python: str) -> dict[str, np.ndarray]:
    """Return the columns of a data frame by name, numbers or texts.

    heart: 172 rows of 103 candidates for a heart transplant, with entries and exits; movielens:
    100,004 ratings. `python` is an interpreter with pandas.
    """

    def build(folder: Path) -> None:
        (source,) = fetch(ASSETS[name]).iterdir()
        subprocess.run(
            [python, "-W", "ignore", "-c", _TABLE, str(source), str(folder / "data.npz")],
            check=True,
        )

    with np.load(cached(f"{name}-converted", build) / "data.npz") as data:
        return dict(data)


def planted(
    rows: int, columns: int, support: int, seed: int, correlation: float = 0.0, noise: float = 1 / 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a centred Gaussian design, a target, and which columns made it.

    Neighbouring columns have the given correlation; the support is spread evenly, its
    coefficients are one, and `noise` is relative to the norm of the coefficients.
    """
    rng = np.random.default_rng(seed)
    X = np.asfortranarray(rng.standard_normal((rows, columns)))
    if correlation:
        fresh = np.sqrt(1 - correlation**2)
        for j in range(1, columns):
            X[:, j] = correlation * X[:, j - 1] + fresh * X[:, j]
    X -= X.mean(axis=0)
    chosen = np.arange(support) * (columns // support)
    y = X[:, chosen].sum(axis=1) + noise * np.sqrt(support) * rng.standard_normal(rows)
    return X, y - y.mean(), chosen


def planted_sparse(
    rows: int, columns: int, per_column: int, support: int, seed: int
) -> tuple[sparse.csc_array, np.ndarray]:
    """Return a CSC design with so many Gaussian entries in every column, and a target."""
    rng = np.random.default_rng(seed)
    # Distinct rows without drawing permutations: one entry in each of `per_column` strips.
    strip = rows // per_column
    indices = rng.integers(0, strip, (columns, per_column)) + strip * np.arange(per_column)
    starts = np.arange(columns + 1) * per_column
    values = rng.standard_normal(columns * per_column)
    X = sparse.csc_array((values, indices.ravel().astype(np.int32), starts), shape=(rows, columns))
    coef = np.zeros(columns)
    coef[rng.choice(columns, support, replace=False)] = 1.0
    signal = X @ coef
    return X, signal + 0.3 * signal.std() * rng.standard_normal(rows)


def dictionary(atoms: int, features: int, signals: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return atoms of unit norm as rows, and Gaussian signals."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((atoms, features))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found, rng.standard_normal((signals, features))
