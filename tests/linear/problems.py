"""Random problems for every datafit, shared by the tests."""

import numpy as np

from thresher.linear import datafits, penalties

DATAFITS = {
    "squares": datafits.Squares(),
    "huber": datafits.Huber(),
    "quantile": datafits.SmoothQuantile(0.3, width=0.3),
    "square-root": datafits.SquareRoot(),
    "logistic": datafits.Logistic(),
    "poisson": datafits.Poisson(),
    "cox": datafits.Cox(),
}
SEPARABLE = {
    "l1": penalties.L1(),
    "l1-positive": penalties.L1(positive=True),
    "elastic-net": penalties.L1L2(ridge=0.5),
    "mcp": penalties.MCP(gamma=10.0),
    "scad": penalties.SCAD(gamma=10.0),
    "log-sum": penalties.LogSum(epsilon=1.0),
    "lq": penalties.Lq(q=0.5),
    "l0": penalties.L0(),
}


def grouped(columns: int) -> dict[str, penalties.Penalty]:
    groups = np.arange(columns) // 3
    return {
        "group": penalties.group_lasso(groups),
        "sparse-group": penalties.sparse_group_lasso(groups, 1.0, 0.5),
        "group-mcp": penalties.Grouped(penalties.MCP(gamma=10.0), groups),
    }


STRUCTURED = {
    "slope": penalties.Slope(),
    "l-inf": penalties.LInf(),
    "k-support": penalties.KSupport(k=3),
    "total-variation": penalties.TotalVariation(),
    "haar": penalties.HaarL1(),
}


def target(name: str, linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a noisy target of the kind the datafit takes."""
    noise = rng.standard_normal(len(linear))
    if name == "logistic":
        labels = np.where(linear + 2 * noise > 0, 1.0, -1.0)
        labels[:2] = [1.0, -1.0]
        return labels
    if name == "poisson":
        return rng.poisson(np.exp(np.clip(linear / 3, -2, 2))).astype(float) + (
            np.arange(len(linear)) < 2
        )
    if name == "cox":
        seen = np.where(rng.random(len(linear)) < 0.7, 1.0, -1.0)
        seen[0] = 1.0
        return (0.1 + rng.exponential(np.exp(-np.clip(linear / 3, -2, 2)))) * seen
    return linear + noise


def problem(name: str, seed: int, rows: int = 50, columns: int = 12, mean: float = 0.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, columns)) + mean
    coef = np.zeros(columns)
    coef[:4] = [1.0, -1.0, 0.7, 0.5]
    return X, target(name, X @ coef - mean, rng)
