"""Random problems for every datafit, and every penalty, shared by the tests."""

import inspect

import numpy as np

from thresher.linear import datafits, penalties, solvers

DATAFITS = {
    "squares": datafits.Squares(),
    "huber": datafits.Huber(),
    "quantile": datafits.SmoothQuantile(0.3, width=0.3),
    "square-root": datafits.SquareRoot(),
    "logistic": datafits.Logistic(),
    "probit": datafits.Probit(),
    "squared-hinge": datafits.SquaredHinge(),
    "poisson": datafits.Poisson(),
    "poisson-identity": datafits.PoissonIdentity(0.1),
    "gamma": datafits.Gamma(),
    "tweedie": datafits.Tweedie(1.4),
    "offset": datafits.Offset(datafits.Logistic(), np.array(0.5)),
    "cox": datafits.Cox(),
    "cox-efron": datafits.Cox("efron"),
    "multinomial": datafits.Multinomial(),
    "tasks": datafits.MultiTaskSquares(),
    "absolute": datafits.AbsoluteError(),
    "intensity": datafits.IntensityError(),
}
SEPARABLE = {
    "l1": penalties.L1(),
    "l1-positive": penalties.L1(positive=True),
    "non-negative": penalties.NonNegative(),
    "elastic-net": penalties.L1L2(ridge=0.5),
    "bounded": penalties.Bounded(ridge=0.5, lower=-0.3, upper=0.2),
    "mcp": penalties.MCP(gamma=10.0),
    "scad": penalties.SCAD(gamma=10.0),
    "log-sum": penalties.LogSum(epsilon=0.8),
    "lq": penalties.Lq(q=0.5),
    "l0": penalties.L0(),
}
STRUCTURED = {
    "slope": penalties.Slope(),
    "l-inf": penalties.LInf(),
    "l1-l-inf": penalties.L1LInf(l1_ratio=0.5),
    "k-support": penalties.KSupport(k=3),
    "total-variation": penalties.TotalVariation(),
    "total-variation-positive": penalties.TotalVariation(positive=True),
    "haar": penalties.HaarL1(),
    "haar-positive": penalties.HaarL1(positive=True),
    "partition": penalties.DyadicPartition(),
}
BALLS = {
    "l1-ball": penalties.L1Ball(),
    "simplex": penalties.Simplex(),
    "nuclear": penalties.NuclearBall(),
}
ROWS = {
    "rows": penalties.Rows(penalties.L1()),
    "rows-elastic-net": penalties.Rows(penalties.L1L2(ridge=0.5)),
    "sparse-rows": penalties.Rows(penalties.L1(), l1=0.5),
    "rows-mcp": penalties.Rows(penalties.MCP(gamma=10.0)),
}
SOLVERS = {
    "coordinates": solvers.CoordinateDescent,
    "groups": solvers.GroupDescent,
    "classes": solvers.ClassDescent,
    "proximal-gradient": solvers.ProximalGradient,
    "accelerated-concave": solvers.AcceleratedConcave,
    "frank-wolfe": solvers.FrankWolfe,
    "local-search": solvers.LocalSearch,
    "greedy-blocks": solvers.GreedyBlocks,
    "spiral": solvers.Spiral,
    "stochastic-models": solvers.StochasticModels,
}


def weighted(columns: int) -> dict[str, penalties.Penalty]:
    """Return penalties with a weight for every column; the last column is free."""
    weights = np.append(np.linspace(0.5, 2.0, columns - 1), 0.0)
    return {
        "adaptive-l1": penalties.L1(weights=np.linspace(0.5, 2.0, columns)),
        "weighted-l1": penalties.L1(weights=weights),
        "weighted-mcp": penalties.MCP(weights=weights, gamma=10.0),
    }


def grouped(columns: int) -> dict[str, penalties.Penalty]:
    groups = np.arange(columns) // 3
    return {
        "group": penalties.group_lasso(groups),
        "sparse-group": penalties.sparse_group_lasso(groups, 1.0, 0.5),
        "group-mcp": penalties.Grouped(penalties.MCP(gamma=10.0), groups),
    }


def every_penalty(columns: int) -> dict[str, penalties.Penalty]:
    """Return all penalties, for so many columns."""
    return SEPARABLE | weighted(columns) | grouped(columns) | ROWS | STRUCTURED | BALLS


def concrete_subclasses(base: type) -> set[type]:
    """Return the public classes of the library that derive from `base` and can be made."""
    found, open_ = set(), [base]
    while open_:
        for kind in open_.pop().__subclasses__():
            open_.append(kind)
            public = kind.__module__.startswith("thresher.") and not kind.__name__.startswith("_")
            if public and not inspect.isabstract(kind):
                found.add(kind)
    return found


def target(name: str, linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a noisy target of the kind the datafit takes."""
    noise = rng.standard_normal(len(linear))
    if name in ("logistic", "offset", "probit", "squared-hinge"):
        labels = np.where(linear + 2 * noise > 0, 1.0, -1.0)
        labels[:2] = [1.0, -1.0]
        return labels
    if name == "poisson":
        return rng.poisson(np.exp(np.clip(linear / 3, -2, 2))).astype(float) + (
            np.arange(len(linear)) < 2
        )
    if name == "poisson-identity":
        return rng.poisson(np.maximum(linear, 0) + 0.5).astype(float) + (np.arange(len(linear)) < 2)
    if name == "gamma":
        return np.exp(np.clip(linear / 3, -2, 2)) * rng.gamma(2.0, 0.5, len(linear))
    if name == "tweedie":
        claims = rng.poisson(np.exp(np.clip(linear / 3, -2, 2))) + (np.arange(len(linear)) < 2)
        return claims * rng.gamma(2.0, 0.5, len(linear))
    if name == "cox-efron":
        signed = target("cox", linear, rng)  # in whole numbers, so that many are tied
        return np.sign(signed) * np.ceil(2 * np.abs(signed))
    if name == "cox":
        seen = np.where(rng.random(len(linear)) < 0.7, 1.0, -1.0)
        seen[0] = 1.0
        return (0.1 + rng.exponential(np.exp(-np.clip(linear / 3, -2, 2)))) * seen
    if name in ("tasks", "multinomial"):
        scores = np.outer(linear, [1.0, -0.5, 0.3]) + 2 * rng.standard_normal((len(linear), 3))
        if name == "tasks":
            return scores
        labels = scores.argmax(axis=1)
        labels[:3] = [0, 1, 2]
        return np.eye(3)[labels]
    if name == "intensity":
        return (linear + 0.1 * noise) ** 2
    return linear + noise


def problem(name: str, seed: int, rows: int = 50, columns: int = 12, mean: float = 0.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, columns)) + mean
    coef = np.zeros(columns)
    coef[:4] = [1.0, -1.0, 0.7, 0.5]
    return X, target(name, X @ coef - mean, rng)
