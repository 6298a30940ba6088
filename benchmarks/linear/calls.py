"""How every library is called: per kind of problem, a function that gives the timed call.

Stands alone: imported by the worker where only a peer is installed. Each function takes the
name of the library, the problem and a tolerance, and returns a function without arguments;
imports of the library happen before, so that they are not timed for anyone.
"""

import os

import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
ADELIE = {
    "intercept": False, "progress_bar": False, "early_exit": False, "adev_tol": 1.0,
    "ddev_tol": 0.0, "n_threads": THREADS,
}  # fmt: skip


def lasso(library, problem, tol):
    X, y, alpha = problem["X"], problem["y"], float(problem["alphas"][0])
    if library == "adelie":
        return path(library, problem, tol)
    if library == "thresher":
        from thresher.linear import Lasso
    elif library == "skglm":
        from skglm import Lasso
    elif library == "celer":
        from celer import Lasso
    else:
        from sklearn.linear_model import Lasso
    options = {"max_iter": 100_000} if library == "scikit-learn" else {}
    return lambda: Lasso(alpha, fit_intercept=False, tol=tol, **options).fit(X, y).coef_


def path(library, problem, tol):
    X, y, alphas = problem["X"], problem["y"], problem["alphas"]
    if library == "thresher":
        from thresher.linear import Lasso

        return lambda: Lasso(fit_intercept=False, tol=tol).path(X, y, alphas=alphas).coefs
    if library == "celer":
        from celer import celer_path

        return lambda: celer_path(X, y, "lasso", alphas=alphas, tol=tol)[1].T
    if library == "adelie":
        import adelie

        options = {**ADELIE, "lmda_path": alphas, "tol": tol}
        matrix = X if isinstance(X, np.ndarray) else adelie.matrix.sparse(X, n_threads=THREADS)
        return lambda: adelie.grpnet(matrix, adelie.glm.gaussian(y), **options).betas
    from sklearn.linear_model import lasso_path

    return lambda: lasso_path(X, y, alphas=alphas, tol=tol, max_iter=100_000)[1].T


def logistic(library, problem, tol):
    X, y, alpha = problem["X"], problem["y"], float(problem["alphas"][0])
    if library == "adelie":
        import adelie

        options = {**ADELIE, "lmda_path": problem["alphas"], "tol": tol, "irls_tol": tol}
        loss = adelie.glm.binomial((y > 0).astype(float))
        return lambda: adelie.grpnet(X, loss, **options).betas
    options = {"fit_intercept": False, "tol": tol}
    if library == "thresher":
        from thresher.linear import SparseLogistic

        return lambda: SparseLogistic(alpha, **options).fit(X, y).coef_
    if library == "skglm":
        from skglm import SparseLogisticRegression

        options |= {"max_iter": 200}
        return lambda: SparseLogisticRegression(alpha, **options).fit(X, y).coef_
    if library == "celer":
        from celer import LogisticRegression
    else:
        from sklearn.linear_model import LogisticRegression

        # Its coordinate descent; without intercept it has the same objective.
        options |= {"l1_ratio": 1.0, "solver": "liblinear", "max_iter": 10_000}
    return lambda: LogisticRegression(C=1 / (alpha * len(y)), **options).fit(X, y).coef_


def group(library, problem, tol):
    X, y, alpha = problem["X"], problem["y"], float(problem["alphas"][0])
    size, columns = int(problem["group"]), problem["X"].shape[1]
    options = {"fit_intercept": False, "tol": tol}
    if library == "thresher":
        from thresher.linear import SparseGLM
        from thresher.solve.datafits import Squares
        from thresher.solve.penalties import group_lasso

        penalty = group_lasso(np.arange(columns) // size, alpha, np.ones(columns // size))
        return lambda: SparseGLM(Squares(), penalty, **options).fit(X, y).coef_
    if library == "adelie":
        import adelie

        own = {
            **ADELIE, "lmda_path": problem["alphas"], "tol": tol,
            "groups": np.arange(0, columns, size), "penalty": np.ones(columns // size),
        }  # fmt: skip
        return lambda: adelie.grpnet(X, adelie.glm.gaussian(y), **own).betas
    if library == "celer":
        from celer import GroupLasso
    else:
        from skglm import GroupLasso
    return lambda: GroupLasso(size, alpha, **options).fit(X, y).coef_


def mcp(library, problem, tol):
    X, y, alpha = problem["X"], problem["y"], float(problem["alphas"][0])
    options = {"fit_intercept": False, "tol": tol}
    if library == "thresher":
        from thresher.linear import SparseGLM
        from thresher.solve.datafits import Squares
        from thresher.solve.penalties import MCP

        return lambda: SparseGLM(Squares(), MCP(alpha), **options).fit(X, y).coef_
    from skglm import MCPRegression

    return lambda: MCPRegression(alpha, gamma=3.0, **options).fit(X, y).coef_


def coding(library, problem, tol):
    atoms, signals, count = problem["X"], problem["y"], int(problem["size"])
    if library == "thresher":
        from thresher.linear import batch_omp

        return lambda: batch_omp(atoms, signals, count)
    if library == "spams-bin":
        import spams

        # It wants signals and atoms as columns; the transposes are views in its order.
        return lambda: spams.omp(signals.T, atoms.T, L=count, numThreads=THREADS).T
    from sklearn.decomposition import sparse_encode

    return lambda: sparse_encode(signals, atoms, algorithm="omp", n_nonzero_coefs=count)


def subset(library, problem, tol):
    X, y, count = problem["X"], problem["y"], int(problem["size"])
    if library == "thresher":
        from thresher.linear import BestSubset

        return lambda: BestSubset(count, fit_intercept=False).fit(X, y).coef_
    from abess import LinearRegression

    options = {"support_size": count, "fit_intercept": False, "thread": THREADS}
    return lambda: LinearRegression(**options).fit(X, y).coef_


CALLS = {
    "lasso": lasso,
    "path": path,
    "logistic": logistic,
    "group": group,
    "mcp": mcp,
    "coding": coding,
    "subset": subset,
}
