"""Every triple of datafit, penalty and solver is solved or refused by name, before any work."""

import inspect
import warnings

import numpy as np
import pytest

from thresher.core.errors import OptionError
from thresher.linear import SparseGLM, datafits, penalties, solvers

COLUMNS = 12
OUTPUTS = 3


def examples(penalty):
    """Return penalties of a class, with and without what depends on the number of coefficients."""
    groups = np.arange(COLUMNS) // 3
    if penalty is penalties.Grouped:
        radial = [penalties.L1(0.1), penalties.MCP(0.1), penalties.L0(0.1)]
        return [penalty(r, groups, l1) for r in radial for l1 in (0.0, 0.05)]
    if penalty is penalties.Rows:
        return [penalty(penalties.L1(0.1), l1) for l1 in (0.0, 0.05)]
    plain = [penalty()] if issubclass(penalty, penalties.Ball) else [penalty(0.1)]
    if issubclass(penalty, penalties.Separable):
        plain.append(penalty(0.1, np.ones(COLUMNS)))
    return plain


def concrete(module, base):
    found = [getattr(module, name) for name in module.__all__]
    return [
        thing
        for thing in found
        if inspect.isclass(thing) and issubclass(thing, base) and not inspect.isabstract(thing)
    ]


def target(datafit, linear):
    if isinstance(datafit, datafits.Multinomial):
        return np.eye(OUTPUTS)[np.arange(len(linear)) % OUTPUTS]
    if datafit.multiple_outputs:
        return np.column_stack([linear] * OUTPUTS)
    if isinstance(datafit, datafits.Logistic):
        return np.where(linear > 0, 1.0, -1.0)
    counts = isinstance(datafit, datafits.Poisson | datafits.PoissonIdentity | datafits.Cox)
    return np.ceil(np.abs(linear)) if counts else linear


SOLVERS = [
    solver(max_iter=3)
    for solver in concrete(solvers, solvers.Solver)
]  # fmt: skip


@pytest.mark.parametrize("datafit", concrete(datafits, datafits.Datafit))
@pytest.mark.parametrize("intercept", [True, False])
def test_a_pair_is_solved_or_refused(datafit, intercept):
    rng = np.random.default_rng(0)
    X = np.abs(rng.standard_normal((30, COLUMNS)))
    datafit = datafit()
    y = target(datafit, X[:, 0] - X[:, 1] + rng.standard_normal(30))
    solved = 0
    for penalty in [p for kind in concrete(penalties, penalties.Penalty) for p in examples(kind)]:
        problem = solvers.Problem.build(X, y, datafit, penalty, intercept=intercept)
        for solver in SOLVERS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    solution = solver.solve(problem)
                except OptionError:
                    continue
            assert solution.coef.shape == problem.coef_shape
            assert np.all(np.isfinite(solution.coef)), (penalty, solver)
            solved += 1
    assert solved > 5


WRONG = {
    "weights": penalties.L1(0.01, weights=np.ones(3)),
    "group weights": penalties.Grouped(
        penalties.L1(weights=np.ones(2)), np.arange(COLUMNS) // 3
    ),
    "groups": penalties.group_lasso(np.arange(5)),
    "lambdas": penalties.Slope(lambdas=np.ones(4)),
}  # fmt: skip


@pytest.mark.parametrize("penalty", WRONG.values(), ids=WRONG.keys())
def test_a_penalty_of_another_size_is_refused(penalty):
    X = np.random.default_rng(0).standard_normal((30, COLUMNS))
    with pytest.raises(OptionError, match=r"has \d+ entries for \d+ "):
        SparseGLM(penalty=penalty).fit(X, X[:, 0])


def test_row_weights_of_another_size_are_refused():
    X = np.random.default_rng(0).standard_normal((30, COLUMNS))
    model = SparseGLM(datafits.MultiTaskSquares(), penalties.Rows(penalties.L1(weights=np.ones(2))))
    with pytest.raises(OptionError, match="weights has 2 entries for 12"):
        model.fit(X, X[:, :2])


def test_several_outputs_name_the_penalty_that_takes_them():
    X = np.random.default_rng(0).standard_normal((30, COLUMNS))
    for penalty in (penalties.Slope(), penalties.L1(weights=np.ones(COLUMNS))):
        with pytest.raises(OptionError, match="use Rows"):
            SparseGLM(datafits.MultiTaskSquares(), penalty).fit(X, X[:, :2])
