"""Answers that must not depend on units, on where zero lies, or on single precision."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso as Reference

from thresher.core.errors import DataError
from thresher.linear import (
    ElasticNet,
    GroupLasso,
    Lasso,
    LassoCV,
    MultiTaskLasso,
    SparseGLM,
    SparseLogistic,
    datafits,
    penalties,
)
from thresher.solve.path import alpha_max
from thresher.solve.solvers import CoordinateDescent, Problem
from thresher.solve.solvers.conditioning import condition

from . import problems


def regression(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 20))
    return X, X[:, :3].sum(axis=1) + 0.3 * rng.standard_normal(60)


FITS = {
    "lasso": lambda X, y: Lasso(0.1).fit(X, y),
    "elastic-net": lambda X, y: ElasticNet(0.1, 0.5).fit(X, y),
    "mcp": lambda X, y: SparseGLM(penalty=penalties.MCP(0.1)).fit(X, y),
    "group": lambda X, y: GroupLasso(np.arange(20) // 4, 0.1).fit(X, y),
    "tasks": lambda X, y: MultiTaskLasso(0.1).fit(X, np.column_stack([y, -y])),
    "slope": lambda X, y: SparseGLM(penalty=penalties.Slope(0.1)).fit(X, y),
    "huber": lambda X, y: SparseGLM(datafits.Huber(), penalties.L1(0.1)).fit(X, y),
    "logistic": lambda X, y: SparseLogistic(0.02, tol=1e-9).fit(X, y > 0),
    "cox": lambda X, y: SparseGLM(datafits.Cox(), penalties.L1(0.05), tol=1e-8).fit(X, np.exp(y)),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize(
    ("dtype", "mean", "accuracy"),
    [("float32", 3.0, 1e-5), ("float32", 1e3, 1e-4), ("float64", 1e6, 1e-8)],
)
def test_the_origin_of_the_features_does_not_matter(name, dtype, mean, accuracy):
    X, y = regression()
    shifted = (X + mean).astype(dtype)
    # Rounding to single precision moves the data; the reference has the same data.
    near = shifted.astype(float) - mean
    found, expected = FITS[name](shifted, y.astype(dtype)), FITS[name](near, y)
    assert found.coef_.dtype == dtype
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=accuracy)
    np.testing.assert_allclose(
        found.intercept_ + mean * found.coef_.astype(float).sum(axis=-1),
        expected.intercept_,
        atol=max(accuracy, mean * np.finfo(dtype).eps) * 10,
    )


@pytest.mark.parametrize(
    "datafit",
    [datafits.Squares(), datafits.Huber(), datafits.SmoothQuantile(), datafits.SquareRoot()],
    ids=lambda datafit: type(datafit).__name__,
)
@pytest.mark.parametrize("mean", [-1e7, 1e9])
def test_the_origin_of_the_target_does_not_matter(datafit, mean):
    X, y = regression()
    y = np.round(y, 6)  # so that adding the mean rounds little
    found, expected = (
        SparseGLM(datafit, penalties.L1(0.1), tol=1e-9).fit(X, target) for target in (y + mean, y)
    )
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-6)
    assert found.intercept_ - mean == pytest.approx(expected.intercept_, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(["float32", "float64"]),
    mean=st.sampled_from([0, 3, 30, 1e3]),
    packed=st.booleans(),
)
def test_single_precision_agrees_with_scikit_learn(seed, dtype, mean, packed):
    X, y = regression(seed)
    X = (X + mean * np.arange(20) / 20).astype(dtype)
    centred = X.astype(float) - X.astype(float).mean(axis=0)
    expected = Reference(0.1, tol=1e-12, max_iter=100_000).fit(centred, y)
    found = Lasso(0.1, tol=1e-8).fit(sparse.csc_array(X) if packed else X, y.astype(dtype))
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=2e-4)


def test_single_precision_on_a_table_of_mixed_units():
    X, y = load_wine(return_X_y=True)
    found = Lasso(0.01).fit(X.astype("float32"), y.astype("float32"))
    assert found.score(X, y) == pytest.approx(Lasso(0.01).fit(X, y).score(X, y), abs=1e-5)


@pytest.mark.parametrize("features", [1e-150, 1e-100, 1.0, 1e150])
@pytest.mark.parametrize("target", [1e-150, 1e-100, 1.0, 1e150])
def test_the_units_do_not_matter(features, target):
    X, y = regression()
    found = Lasso(0.1 * features * target, tol=1e-10).fit(X * features, y * target)
    np.testing.assert_allclose(
        found.coef_ * (features / target), Lasso(0.1, tol=1e-10).fit(X, y).coef_, atol=1e-5
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("model", "unit", "dtype"),
    [
        (Lasso(1e-300), 1.0, "float64"),
        (Lasso(1e-12), 1.0, "float64"),
        (Lasso(1.0), 1e150, "float64"),
        (Lasso(1e-6), 1.0, "float32"),
        (GroupLasso(np.arange(20) // 4, 1e-15), 1.0, "float64"),
        (SparseGLM(datafits.SquareRoot(), alpha=1e-15), 1.0, "float64"),
    ],
)
def test_a_strength_that_rounding_drowns_is_as_none(model, unit, dtype):
    X, y = regression()
    expected = np.linalg.lstsq(X - X.mean(axis=0), y - y.mean())[0]
    model.fit((X * unit).astype(dtype), y)
    np.testing.assert_allclose(model.coef_ * unit, expected, atol=1e-4)


@pytest.mark.parametrize("estimator", [Lasso(0.1), SparseLogistic(0.02)])
def test_weights_whose_sum_overflows_count_as_equal(estimator):
    X, y = regression()
    target = (y > 0).astype(float)
    found = estimator.fit(X, target, sample_weight=np.full(60, 1e308)).coef_.copy()
    np.testing.assert_allclose(found, estimator.fit(X, target).coef_, atol=1e-12)


# Norms; the others' strength goes with another power of the unit.
NORMS = sorted(set(problems.STRUCTURED) - {"k-support", "partition"})


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize(
    ("features", "target"), [(1e-150, 1), (1e-5, 1), (1e5, 1), (1e150, 1), (1e-20, 1e100)]
)
def test_the_units_do_not_matter_to_structured_penalties(name, features, target):
    X, y = regression()
    one, other = (
        SparseGLM(penalty=problems.STRUCTURED[name], alpha=0.05 * a * b).fit(X * a, y * b)
        for a, b in ((1, 1), (features, target))
    )
    assert np.any(one.coef_)
    np.testing.assert_allclose(other.coef_ * (features / target), one.coef_, atol=1e-9)


@pytest.mark.parametrize("name", problems.STRUCTURED)
@pytest.mark.filterwarnings("error")
def test_features_of_zero_need_no_step(name):
    X, y = regression()
    model = SparseGLM(penalty=problems.STRUCTURED[name], alpha=0.05).fit(X * 0, y)
    assert not np.any(model.coef_)
    assert model.intercept_ == pytest.approx(y.mean())


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize(
    "datafit", [datafits.Squares(), datafits.Huber()], ids=["squares", "huber"]
)
def test_single_precision_whose_squares_leave_its_range(scale, datafit):
    X, y = regression()
    model = SparseGLM(datafit, penalties.L1(0.1 * scale), tol=1e-9)
    found = model.fit((X * scale).astype("float32"), y)
    expected = SparseGLM(datafit, penalties.L1(0.1), tol=1e-9).fit(X, y)
    np.testing.assert_allclose(found.coef_ * scale, expected.coef_, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-170, 1e160])
@pytest.mark.parametrize("pack", [np.asarray, sparse.csc_array], ids=["dense", "csc"])
@pytest.mark.parametrize("intercept", [True, False])
def test_squares_out_of_range_are_refused(scale, pack, intercept):
    X, y = regression()
    X[:, 2] *= scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(DataError, match="column 2 of X leave the range of float64"):
            Lasso(0.1, fit_intercept=intercept).fit(pack(X), y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [True, False])
def test_constant_columns_stay_out(dtype, weighted):
    X, y = regression()
    X[:, 3], X[:, 4], X[:, 5] = 0.1, 3e4, 0.0
    X += 1e4 * (np.arange(20) == 7)
    weight = np.arange(60) % 3.0 if weighted else None
    found = Lasso(0.01).fit(X.astype(dtype), y, sample_weight=weight)
    assert not found.coef_[3:6].any()
    assert np.count_nonzero(found.coef_) >= 3


def test_only_what_needs_it_is_restated():
    X, y = regression()
    for design, restated in ((X, False), (X + 10, False), (X + 1e5, True)):
        problem = Problem.build(design, y, datafits.Squares(), penalties.L1(0.1))
        assert (condition(problem).problem.design is not problem.design) == restated


def test_single_precision_meets_the_default_tolerance_in_every_fold():
    X, y = load_wine(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        # One fit in 250 of the default grid, which goes further, misses it and is warned of.
        LassoCV(cv=5, eps=0.01).fit(X.astype("float32"), y.astype(float))


@pytest.mark.parametrize("offset", [1e7, -1e7])
def test_a_target_far_from_zero_is_centred_before_the_gap_is_measured(offset):
    X, y = problems.problem("squares", 8, columns=9)
    far = Problem.build(X, y + offset, datafits.Squares(), penalties.L1())
    far = far.with_penalty(far.penalty.scaled(0.1 * alpha_max(far)))
    near = Problem.build(X, y, datafits.Squares(), far.penalty)
    one, other = (CoordinateDescent(tol=1e-12, max_iter=50).solve(each) for each in (near, far))
    # The gap is a difference of terms as large as the squared target: of `offset` itself they
    # would leave no digit of it.
    assert one.converged
    assert other.converged
    np.testing.assert_allclose(other.coef, one.coef, atol=1e-7)
    assert other.intercept == pytest.approx(one.intercept + offset, abs=1e-6)


SHIFTED = [d for d in problems.DATAFITS.values() if d.shift_equivariant and d.smooth]


@pytest.mark.parametrize("datafit", SHIFTED, ids=lambda datafit: type(datafit).__name__)
@pytest.mark.parametrize("shift", [1e9, 1e11])
def test_a_large_mean_of_the_target_changes_the_intercept_alone(datafit, shift):
    X, y = problems.problem("tasks" if datafit.multiple_outputs else "squares", 0)
    penalty = penalties.Rows(penalties.L1(0.1)) if datafit.multiple_outputs else penalties.L1(0.1)
    far = y + shift
    one, other = (
        SparseGLM(datafit, penalty, tol=1e-10).fit(X, target) for target in (far - shift, far)
    )
    assert np.count_nonzero(one.coef_)
    assert other.criterion_ >= 0
    np.testing.assert_allclose(other.coef_, one.coef_, atol=1e-6)
    np.testing.assert_allclose(other.intercept_ - shift, one.intercept_, atol=1e-15 * shift + 1e-6)


@pytest.mark.parametrize("datafit", SHIFTED, ids=lambda datafit: type(datafit).__name__)
@pytest.mark.parametrize(("rows", "level"), [(50, 0.0), (50, 1e11 + 0.1), (1, 3.0)])
def test_a_constant_target_needs_no_coefficient(datafit, rows, level):
    X = np.random.default_rng(0).standard_normal((rows, 4))
    shape = (rows, 2) if datafit.multiple_outputs else (rows,)
    penalty = penalties.Rows(penalties.L1(0.1)) if datafit.multiple_outputs else penalties.L1(0.1)
    model = SparseGLM(datafit, penalty).fit(X, np.full(shape, level))
    assert not np.any(model.coef_)
    np.testing.assert_allclose(model.predict(X), level, atol=0.15)  # the width of a quantile
