"""Greedy, subset and Bayesian estimators against planted truth and against scikit-learn."""

import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model
from sklearn.base import clone
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning

from thresher.core.errors import DataError, OptionError
from thresher.linear import (
    LARS,
    BestSubset,
    OrthogonalMatchingPursuit,
    SparseBayes,
    batch_omp,
)
from thresher.linear.bayes.sparse_bayes import _Climb
from thresher.linear.greedy.best_subset import exchange_search
from thresher.solve import support_fit
from thresher.solve.support_fit import Move, SupportFit
from thresher.solve.weighted_columns import WeightedColumns


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 400)) + 1.0
    coef = np.zeros(400)
    coef[rng.choice(400, 8, replace=False)] = rng.choice([-1, 1], 8) * rng.uniform(1, 2, 8)
    return X, X @ coef + 3.0 + 0.1 * rng.standard_normal(120), coef


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_batch_omp_agrees_with_scikit_learn(dtype):
    rng = np.random.default_rng(0)
    dictionary = rng.standard_normal((40, 16))
    signals = rng.standard_normal((50, 16))
    ours = batch_omp(dictionary.astype(dtype), signals.astype(dtype), 4)
    unit = dictionary / np.linalg.norm(dictionary, axis=1, keepdims=True)
    peer = sparse_encode(signals, unit, algorithm="omp", n_nonzero_coefs=4)
    tolerance = 1e-9 if dtype is np.float64 else 1e-4
    np.testing.assert_allclose(ours @ dictionary, peer @ unit, atol=tolerance)
    assert ours.dtype == dtype
    assert np.all(np.diff(ours.indptr) == 4)


def test_batch_omp_stops_at_the_tolerance_and_on_zero_signals():
    dictionary = np.eye(5)
    signals = np.array([[3.0, 2.0, 1.0, 0, 0], [0, 0, 0, 0, 0], [0, 1e-9, 0, 0, 0]])
    codes = batch_omp(dictionary, signals, 5, tolerance=1.5)
    np.testing.assert_allclose(codes.toarray()[0], [3, 2, 0, 0, 0])
    assert np.diff(codes.indptr).tolist() == [2, 0, 0]
    np.testing.assert_allclose(batch_omp(dictionary, signals, 5).toarray(), signals)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_batch_omp_codes_in_any_units(dtype):
    rng = np.random.default_rng(0)
    dictionary = rng.standard_normal((30, 10)).astype(dtype)
    signals = rng.standard_normal((4, 10)).astype(dtype)
    plain = batch_omp(dictionary, signals, 3, tolerance=0.5).toarray()
    least, most = (2.0**-100, 2.0**100) if dtype is np.float32 else (2.0**-660, 2.0**660)
    for scale in (least, most):
        units = np.array([1.0, scale, 1.0, 1.0])[:, None].astype(dtype)
        codes = batch_omp(dictionary, signals * units, 3, tolerance=0.5).toarray()
        np.testing.assert_array_equal(codes[[0, 2, 3]], plain[[0, 2, 3]])
        alone = batch_omp(dictionary, signals, 3).toarray()
        np.testing.assert_array_equal(
            batch_omp(dictionary, signals * dtype(scale), 3).toarray(), alone * dtype(scale)
        )
        np.testing.assert_array_equal(
            batch_omp(dictionary * dtype(scale), signals, 3).toarray(), alone / dtype(scale)
        )


def test_batch_omp_refuses_what_it_cannot_code():
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((30, 10)), rng.standard_normal((4, 10))
    for tolerance in (None, "x", np.nan, -1):
        with pytest.raises(OptionError, match="tolerance must be a finite number of at least 0"):
            batch_omp(A, B, 3, tolerance)
    for bad in (B + 0j, np.full((4, 10), "a", dtype=object), [[1.0], [1.0, 2.0]]):
        with pytest.raises(DataError, match="signals must be a matrix of real numbers"):
            batch_omp(A, bad, 3)
    with pytest.raises(DataError, match=r"dictionary is a sparse matrix; pass dictionary.toarray"):
        batch_omp(sparse.csr_array(A), B, 3)
    with pytest.raises(DataError, match="signals hold NaN or infinite values"):
        batch_omp(A, np.where(B > 1, np.inf, B), 3)
    for same in (A.astype(np.longdouble), A.astype(object)):
        found = batch_omp(same, B, 3)
        np.testing.assert_array_equal(found.toarray(), batch_omp(A, B, 3).toarray())


def test_tolerances_are_of_the_square_of_the_norm():
    # The residuals of diag(3, 2, 1) have squared norms 5, 1 and 0.
    X, y = np.eye(3), np.array([3.0, 2.0, 1.0])
    for square, chosen in ((5.01, 1), (4.99, 2), (0.9, 3)):
        model = OrthogonalMatchingPursuit(tol=square, fit_intercept=False).fit(X, y)
        assert len(model.support_) == batch_omp(X, y[None], 3, tolerance=square).nnz == chosen
        peer = linear_model.OrthogonalMatchingPursuit(tol=square, fit_intercept=False).fit(X, y)
        assert np.count_nonzero(peer.coef_) == chosen
    both = OrthogonalMatchingPursuit(1, tol=0.9, fit_intercept=False).fit(X, y)
    assert len(both.support_) == 1
    with pytest.raises(OptionError, match="tol must be a finite number of at least 0, got 'x'"):
        OrthogonalMatchingPursuit(tol="x").fit(X, y)


def test_batch_omp_does_not_choose_duplicates():
    rng = np.random.default_rng(0)
    atom = rng.standard_normal(8)
    codes = batch_omp(np.vstack([atom, atom, 2 * atom, np.zeros(8)]), 5 * atom[None], 4)
    assert codes.nnz == 1
    np.testing.assert_allclose(
        codes.toarray() @ np.vstack([atom, atom, 2 * atom, 0 * atom]), 5 * atom[None]
    )


def test_more_columns_than_there_are_is_a_clear_error():
    with pytest.raises(OptionError, match="cannot choose 9 of 4 atoms"):
        batch_omp(np.eye(4), np.ones((2, 4)), 9)
    with pytest.raises(DataError, match="same number of features"):
        batch_omp(np.eye(4), np.ones((2, 5)), 1)
    with pytest.raises(DataError, match="NaN"):
        batch_omp(np.eye(4), np.full((2, 4), np.nan), 1)
    for estimator in (OrthogonalMatchingPursuit(9), BestSubset(9)):
        with pytest.raises(OptionError, match="cannot choose 9 of 4 columns"):
            estimator.fit(np.eye(4), np.arange(4.0))


def test_omp_agrees_with_scikit_learn(planted):
    X, y, _ = planted
    ours = OrthogonalMatchingPursuit(8).fit(X, y)
    centred = X - X.mean(axis=0)
    scale = np.linalg.norm(centred, axis=0)
    peer = linear_model.OrthogonalMatchingPursuit(n_nonzero_coefs=8).fit(centred / scale, y)
    np.testing.assert_allclose(ours.coef_ * scale, peer.coef_, atol=1e-8)


@pytest.mark.parametrize("estimator", [OrthogonalMatchingPursuit(8), BestSubset(8), SparseBayes()])
def test_planted_support_is_found(estimator, planted):
    X, y, coef = planted
    estimator.fit(X, y)
    largest = np.argsort(-np.abs(estimator.coef_))[:8]
    assert set(largest) == set(np.flatnonzero(coef))
    np.testing.assert_allclose(estimator.coef_[largest], coef[largest], atol=0.1)
    assert estimator.intercept_ == pytest.approx(3.0, abs=0.3)


def test_exchanges_escape_the_greedy_choice():
    # The sum of two columns correlates better than either: greedy takes the decoy first.
    rng = np.random.default_rng(1)
    X = np.linalg.qr(rng.standard_normal((60, 20)))[0]
    X[:, 2] = (X[:, 0] + X[:, 1]) / np.sqrt(2) + 0.02 * X[:, 2]
    y = X[:, 0] + X[:, 1] + 0.3 * X[:, 5]
    greedy = OrthogonalMatchingPursuit(3, fit_intercept=False).fit(X, y)
    best = BestSubset(3, fit_intercept=False).fit(X, y)
    assert 2 in greedy.support_
    assert set(best.support_) == {0, 1, 5}


def test_bayes_knows_its_noise_and_uncertainty(planted):
    X, y, _ = planted
    model = SparseBayes().fit(X[:80], y[:80])
    assert np.sqrt(model.noise_variance_) == pytest.approx(0.1, rel=0.35)
    mean, std = model.predict(X[80:], return_std=True)
    assert np.mean(np.abs(mean - y[80:]) < 3 * std) > 0.9


def many_coefficients(count, seed):
    rng = np.random.default_rng((seed, 100))
    A, coef = rng.standard_normal((100, 200)), np.zeros(200)
    coef[rng.choice(200, count, replace=False)] = rng.standard_normal(count)
    signal = A @ coef
    noise = np.linalg.norm(signal) / 10 * 10**-1.5 * rng.standard_normal(100)
    return A, coef, signal + noise


@pytest.mark.parametrize("count", [5, 30, 40])
def test_bayes_finds_many_coefficients(count):
    """Where noise is estimated too early the model is empty, or nearly so: error 0.6 and more."""
    errors = {SparseBayes: [], linear_model.ARDRegression: []}
    for seed in range(6):
        A, coef, y = many_coefficients(count, seed)
        for kind, found in errors.items():
            model = kind(fit_intercept=False).fit(A, y)
            found.append(np.linalg.norm(model.coef_ - coef) / np.linalg.norm(coef))
    assert np.median(errors[SparseBayes]) < 0.05
    assert np.median(errors[SparseBayes]) < np.median(errors[linear_model.ARDRegression])


def test_bayes_makes_nothing_of_noise():
    rng = np.random.default_rng(0)
    for _ in range(5):
        model = SparseBayes().fit(rng.standard_normal((60, 200)), rng.standard_normal(60))
        assert len(model.support_) <= 1


def test_bayes_says_when_its_search_was_cut_short():
    A, _, y = many_coefficients(30, 0)
    with pytest.warns(ConvergenceWarning, match="after 5 changes; raise max_iter"):
        SparseBayes(max_iter=5).fit(A, y)
    with pytest.raises(OptionError, match="max_iter must be a whole number of at least 1, got 0"):
        SparseBayes(max_iter=0).fit(A, y)
    with pytest.raises(OptionError, match="tol must be a finite number of at least 0, got -1"):
        SparseBayes(tol=-1).fit(A, y)


def test_bayes_reports_the_evidence_of_its_model():
    A, _, y = many_coefficients(5, 0)
    columns = WeightedColumns(A, centre=False)
    model = _Climb(columns, y, 100.0, 1e-4, 1000).run(1.0)[0]
    used = columns.take(model.kept)
    covariance = (used * model.variances) @ used.T + model.noise * np.eye(100)
    evidence = -np.linalg.slogdet(covariance)[1] - y @ np.linalg.solve(covariance, y)
    assert model.value == pytest.approx(evidence - 2 * np.log(199) * len(model.kept))


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_bayes_takes_weights_and_sparse_matrices(fit_intercept):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 30)) * (rng.random((60, 30)) < 0.4) + 0.5 * np.eye(60, 30)
    y = X[:, :3] @ [2.0, -1.0, 3.0] + 1 + 0.3 * rng.standard_normal(60)
    counts = rng.integers(0, 4, 60)
    rows = np.repeat(np.arange(60), counts)
    plain = SparseBayes(fit_intercept=fit_intercept).fit(X[rows], y[rows])
    assert set(plain.support_) >= {0, 1, 2}
    for layout in (np.asarray, sparse.csr_array, sparse.csc_matrix):
        model = SparseBayes(fit_intercept=fit_intercept).fit(layout(X), y, sample_weight=counts)
        for name in ("coef_", "intercept_", "covariance_", "noise_variance_"):
            np.testing.assert_allclose(getattr(model, name), getattr(plain, name), atol=1e-9)
        for found, expected in zip(
            model.predict(layout(X), return_std=True),
            plain.predict(X, return_std=True),
            strict=True,
        ):
            np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [1, 2, 60])
@pytest.mark.parametrize(("value", "fit_intercept"), [(0.0, True), (0.0, False), (0.1, True)])
def test_bayes_of_a_constant_is_empty_at_once(rows, value, fit_intercept):
    X = np.random.default_rng(0).standard_normal((rows, 8))
    model = SparseBayes(fit_intercept=fit_intercept).fit(X, np.full(rows, value))
    assert not np.any(model.coef_)
    assert model.n_iter_ == 1
    np.testing.assert_allclose(model.predict(X), value)


@pytest.mark.parametrize("seed", range(6))
def test_no_exchange_of_two_columns_improves_the_best_subset(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 20)) + 2 * rng.standard_normal((60, 1))  # all alike
    X -= X.mean(axis=0)
    X /= np.linalg.norm(X, axis=0)
    y = X[:, ::4] @ rng.choice([-1.0, 1.0], 5) + 0.3 * rng.standard_normal(60)

    def loss(support):
        return np.linalg.lstsq(X[:, support], y)[1][0]

    support, coefficients = exchange_search(WeightedColumns(X, centre=False), y, np.arange(5))
    np.testing.assert_allclose(coefficients, np.linalg.lstsq(X[:, support], y)[0], rtol=1e-8)
    others = np.setdiff1d(np.arange(20), support)
    swapped = [[*np.delete(support, k), j] for k in range(5) for j in others]
    assert loss(support) <= min(map(loss, swapped)) * (1 + 1e-9)


def test_updates_of_rank_one_end_where_a_fresh_fit_does():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 60)) + rng.standard_normal((80, 1))
    X /= np.linalg.norm(X, axis=0)
    y = X[:, :20].sum(axis=1) + 0.3 * rng.standard_normal(80)
    columns = WeightedColumns(X, centre=False)
    fit = SupportFit(columns, y, np.arange(30, 42))
    fit.make(fit.best_exchange(np.zeros(60)))
    moves = ((0, 3), (5, 7), (0, 9), (11, 30), (4, None), (None, 50), (10, None), (None, 51))
    for place, column in moves:
        before, expected = fit.loss, _gain(fit, place, column)
        fit.make(Move(0.0, place, column))
        assert before - fit.loss == pytest.approx(expected, abs=1e-9)
    fresh = SupportFit(columns, y, fit.support)
    for name in ("rows", "inverse", "coefficients", "loss", "correlations", "left"):
        np.testing.assert_allclose(getattr(fit, name), getattr(fresh, name), atol=1e-8)


def _gain(fit, place, column):
    if column is None:
        return -fit.exits()[place]
    return fit.entries()[column] if place is None else fit.exchanges(np.array([column]))[place, 0]


def test_an_exchange_that_waits_far_down_the_order_is_found(monkeypatch):
    # Looking at two columns at a time must give what looking at all of them gives.
    rng = np.random.default_rng(1)
    X = rng.standard_normal((50, 40)) + 2 * rng.standard_normal((50, 1))
    columns = WeightedColumns(X, centre=False)
    y = rng.standard_normal(50)
    whole = exchange_search(columns, y, np.arange(6))[0]
    monkeypatch.setattr(support_fit, "_AT_ONCE", 2)
    assert set(exchange_search(columns, y, np.arange(6))[0]) == set(whole)


@pytest.mark.parametrize("estimator", [OrthogonalMatchingPursuit(6), BestSubset(6), LARS(6)])
class TestWeightsAndSparseDesigns:
    def problem(self):
        rng = np.random.default_rng(3)
        X = rng.standard_normal((60, 30)) * (rng.random((60, 30)) < 0.3)
        X[:, 4] = 0.1  # constant
        X[:, 5] = X[:, 0]  # duplicate
        return X, X[:, :4] @ [3.0, -2.0, 1.0, 1.0] + 2 + 0.3 * rng.standard_normal(60), rng

    @pytest.mark.parametrize("intercept", [True, False])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_sparse_designs_give_what_dense_ones_do(self, estimator, intercept, dtype):
        X, y, rng = self.problem()
        weight = rng.random(60)
        estimator = clone(estimator).set_params(fit_intercept=intercept)
        dense = clone(estimator).fit(X.astype(dtype), y, sample_weight=weight)
        thin = clone(estimator).fit(sparse.csr_array(X.astype(dtype)), y, sample_weight=weight)
        assert dense.coef_.dtype == thin.coef_.dtype == dtype
        # Single precision is that of the coefficients alone.
        tolerance = 1e-10 if dtype is np.float64 else 1e-5
        np.testing.assert_allclose(thin.predict(X), dense.predict(X), atol=tolerance)
        assert len(thin.support_) == len(dense.support_) == 6

    def test_a_weight_of_two_is_two_samples(self, estimator):
        X, y, rng = self.problem()
        count = rng.integers(0, 3, 60)
        weighted = clone(estimator).fit(X, y, sample_weight=count)
        repeated = clone(estimator).fit(np.repeat(X, count, axis=0), np.repeat(y, count))
        # Either of the duplicates may be chosen.
        np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-10)

    def test_weights_below_zero_and_wrong_counts_are_named(self, estimator):
        X, y, _ = self.problem()
        with pytest.raises(DataError, match="sample_weight must not be negative"):
            clone(estimator).fit(X, y, sample_weight=np.full(60, -1.0))
        name = "k" if isinstance(estimator, BestSubset) else "n_nonzero_coefs"
        with pytest.raises(OptionError, match=f"{name} must be a whole number of at least 1"):
            clone(estimator).set_params(**{name: 2.5}).fit(X, y)


def test_a_wide_sparse_design_is_not_made_dense():
    # As a dense matrix this would take 80 GB.
    X = sparse.random_array((10_000, 1_000_000), density=1e-5, format="csc", rng=0)
    best = np.argsort(-np.diff(X.indptr))[:3]
    y = X[:, best] @ np.array([3.0, -2.0, 1.0]) + 1.0
    for estimator in (OrthogonalMatchingPursuit(3), LARS(3), BestSubset(3)):
        model = estimator.fit(X, y)
        assert set(model.support_) == set(best)
