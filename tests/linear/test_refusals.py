"""Every triple of datafit, penalty and solver is solved or refused by name, before any work."""

import warnings

import numpy as np
import pytest

from thresher.core.errors import OptionError, ThresherError
from thresher.linear import SparseGLM, SparseGLMCV, datafits, penalties, solvers

from . import problems

COLUMNS = 12


@pytest.mark.parametrize("name", problems.DATAFITS)
@pytest.mark.parametrize("intercept", [True, False])
def test_a_pair_is_solved_or_refused(name, intercept):
    X, y = problems.problem(name, 0, columns=COLUMNS)
    solved = 0
    for penalty in problems.every_penalty(COLUMNS).values():
        problem = solvers.Problem.build(
            X, y, problems.DATAFITS[name], penalty.scaled(0.1), intercept=intercept
        )
        for solver in problems.SOLVERS.values():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    solution = solver(max_iter=3).solve(problem)
                except OptionError:
                    continue
            assert solution.coef.shape == problem.coef_shape
            assert np.all(np.isfinite(solution.coef)), (penalty, solver)
            solved += 1
    assert solved > 5


@pytest.mark.parametrize("solver", problems.SOLVERS.values(), ids=problems.SOLVERS)
def test_what_a_solver_needs_is_said_with_what_to_do_otherwise(solver):
    for need in solver.needs:
        wrong, _, remedy = need.otherwise.rpartition("; ")
        assert wrong
        assert remedy.partition(" ")[0] in ("use", "give", "set")


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


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda X, y: penalties.L1(weights=[1.0, np.inf, 2.0]), "got inf at 1; leave out a column"),
        (lambda X, y: penalties.L1(np.inf), "alpha must be a finite"),
        (lambda X, y: penalties.Slope(np.inf), "alpha must be a finite"),
        (lambda X, y: SparseGLM(penalty=penalties.L1Ball(), alpha=0.0).fit(X, y), "got 0"),
        (lambda X, y: SparseGLM(penalty=penalties.L1Ball()).path(X, y), "give alphas"),
        (lambda X, y: SparseGLMCV(penalty=penalties.Simplex()).fit(X, y), "give alphas"),
        (lambda X, y: SparseGLM().fit(X, y).score(X, y * np.nan), "y holds NaN"),
        (lambda X, y: SparseGLM().fit(X, y).score(X, y[:5]), r"but y has \(5,\)"),
        (
            lambda X, y: solvers.Problem.build(
                X, y, datafits.Squares(), penalties.L1(), y * np.nan
            ),
            "finite",
        ),
    ],
)
def test_what_cannot_be_computed_with_is_refused_by_name(use, message):
    X, y = problems.problem("squares", 0)
    with pytest.raises(ThresherError, match=message):
        use(X, y)
