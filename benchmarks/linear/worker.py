"""Times one library on one problem; run by the interpreter of that library's environment.

Reads ``PROBLEM.npz`` and writes ``RESULT.json`` and ``RESULT.npz``. Stands alone: it must run
where only the peer is installed.
"""

import json
import sys
import time
import warnings
from importlib.metadata import version

import numpy as np

warnings.simplefilter("ignore")


def lasso(library, X, y, alpha, tol):
    if library == "thresher":
        from thresher.linear import Lasso

        return lambda: Lasso(alpha, fit_intercept=False, tol=tol).fit(X, y).coef_
    if library == "skglm":
        from skglm import Lasso
    elif library == "celer":
        from celer import Lasso
    else:
        from sklearn.linear_model import Lasso
    options = {"max_iter": 100_000} if library == "scikit-learn" else {}
    return lambda: Lasso(alpha, fit_intercept=False, tol=tol, **options).fit(X, y).coef_


def path(library, X, y, alphas, tol):
    if library == "thresher":
        from thresher.linear import Lasso

        return lambda: Lasso(fit_intercept=False, tol=tol).path(X, y, alphas=alphas).coefs
    if library == "celer":
        from celer import celer_path

        return lambda: celer_path(X, y, "lasso", alphas=alphas, tol=tol)[1].T
    if library == "adelie":
        import adelie

        options = {
            "lmda_path": alphas, "intercept": False, "progress_bar": False, "early_exit": False,
            "adev_tol": 1.0, "ddev_tol": 0.0, "n_threads": 2, "tol": tol,
        }  # fmt: skip
        return lambda: adelie.grpnet(X, adelie.glm.gaussian(y), **options).betas.toarray()
    from sklearn.linear_model import lasso_path

    return lambda: lasso_path(X, y, alphas=alphas, tol=tol, max_iter=100_000)[1].T


def logistic(library, X, y, alpha, tol):
    if library == "thresher":
        from thresher.linear import SparseLogistic

        return lambda: SparseLogistic(alpha, fit_intercept=False, tol=tol).fit(X, y).coef_[0]
    if library == "skglm":
        from skglm import SparseLogisticRegression

        return lambda: (
            SparseLogisticRegression(alpha, fit_intercept=False, tol=tol).fit(X, y).coef_[0]
        )
    C = 1 / (alpha * len(y))
    if library == "celer":
        from celer import LogisticRegression

        return lambda: LogisticRegression(C=C, tol=tol).fit(X, y).coef_[0]
    from sklearn.linear_model import LogisticRegression

    # liblinear is scikit-learn's coordinate descent; without intercept it has the same objective.
    options = {"penalty": "l1", "solver": "liblinear", "fit_intercept": False, "max_iter": 10_000}
    return lambda: LogisticRegression(C=C, tol=tol, **options).fit(X, y).coef_[0]


def group(library, X, y, alpha, tol):
    size = 5
    groups = np.arange(X.shape[1]) // size
    if library == "thresher":
        from thresher.linear import SparseGLM
        from thresher.linear.datafits import Squares
        from thresher.linear.penalties import group_lasso

        ones = np.ones(groups[-1] + 1)
        penalty = group_lasso(groups, alpha, ones)
        return lambda: SparseGLM(Squares(), penalty, fit_intercept=False, tol=tol).fit(X, y).coef_
    if library == "celer":
        from celer import GroupLasso

        return lambda: GroupLasso(size, alpha, fit_intercept=False, tol=tol).fit(X, y).coef_
    if library == "adelie":
        import adelie

        options = {
            "lmda_path": np.array([alpha]), "intercept": False, "progress_bar": False,
            "early_exit": False, "groups": np.arange(0, X.shape[1], size),
            "penalty": np.ones(groups[-1] + 1), "n_threads": 2, "tol": tol,
        }  # fmt: skip
        return lambda: adelie.grpnet(X, adelie.glm.gaussian(y), **options).betas.toarray()[0]
    from skglm import GroupLasso

    return lambda: GroupLasso(size, alpha, fit_intercept=False, tol=tol).fit(X, y).coef_


def mcp(library, X, y, alpha, tol):
    if library == "thresher":
        from thresher.linear import SparseGLM
        from thresher.linear.datafits import Squares
        from thresher.linear.penalties import MCP

        return lambda: (
            SparseGLM(Squares(), MCP(alpha), fit_intercept=False, tol=tol).fit(X, y).coef_
        )
    from skglm import MCPRegression

    return lambda: MCPRegression(alpha, gamma=3.0, fit_intercept=False, tol=tol).fit(X, y).coef_


def coding(library, X, y, alpha, tol):
    if library == "thresher":
        from thresher.linear import batch_omp

        return lambda: batch_omp(X, y, int(alpha)).toarray()
    from sklearn.decomposition import sparse_encode

    return lambda: sparse_encode(y, X, algorithm="omp", n_nonzero_coefs=int(alpha))


def subset(library, X, y, alpha, tol):
    if library == "thresher":
        from thresher.linear import BestSubset

        return lambda: BestSubset(int(alpha), fit_intercept=False).fit(X, y).coef_
    from abess import LinearRegression

    return lambda: LinearRegression(support_size=int(alpha), fit_intercept=False).fit(X, y).coef_


KINDS = {
    "lasso": lasso, "path": path, "logistic": logistic, "group": group, "mcp": mcp,
    "coding": coding, "subset": subset,
}  # fmt: skip


def main(problem, result, library, tolerances, repeats):
    data = np.load(problem)
    alpha = data["alpha"] if data["alpha"].ndim else float(data["alpha"])
    X = np.asfortranarray(data["X"]) if str(data["kind"]) != "coding" else data["X"]
    runs, coefs, first = [], [], None
    for tolerance in tolerances:
        run = KINDS[str(data["kind"])](library, X, data["y"], alpha, tolerance)
        seconds = []
        # The very first call may compile; it is reported apart.
        for _ in range(repeats + (first is None)):
            start = time.perf_counter()
            coef = run()
            seconds.append(time.perf_counter() - start)
            if seconds[-1] > 20 and len(seconds) > 1:
                break
        if first is None:
            first, *seconds = seconds
        runs.append({"tolerance": tolerance, "warm": min(seconds)})
        coefs.append(np.asarray(coef))
        if sum(run["warm"] for run in runs) > 20:
            break
    np.savez(result + ".npz", *coefs)
    with open(result + ".json", "w") as file:
        json.dump({"version": version(library), "first": first, "runs": runs}, file)


if __name__ == "__main__":
    ladder = [float(text) for text in sys.argv[4].split(",")]
    main(sys.argv[1], sys.argv[2], sys.argv[3], ladder, int(sys.argv[5]))
