"""Matrix completion against planted low-rank matrices and against exact solutions."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import DataError, OptionError
from thresher.linear import AlternatingCompletion, OneSidedCompletion
from thresher.linear.completion.alternating import _conjugate_gradients, _exact
from thresher.linear.completion.observed import Observed


@parametrize_with_checks([AlternatingCompletion(random_state=0), OneSidedCompletion()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((120, 3)) @ rng.standard_normal((3, 80))
    return matrix, np.where(rng.random(matrix.shape) < 0.3, matrix, np.nan)


class TestObserved:
    def test_dense_and_sparse_hold_the_same(self, planted):
        _, holes = planted
        rows, columns = np.nonzero(~np.isnan(holes))
        stored = sparse.coo_array((holes[rows, columns], (rows, columns)), shape=holes.shape)
        ours, other = Observed(holes), Observed(stored)
        np.testing.assert_array_equal(ours.values.toarray(), other.values.toarray())
        np.testing.assert_array_equal(ours.rows, other.rows)

    def test_observed_zero_is_an_entry(self):
        assert Observed(np.array([[0.0, np.nan], [1.0, 0.0]])).values.nnz == 3

    def test_at_and_times_agree_with_dense(self, planted):
        _, holes = planted
        rng = np.random.default_rng(1)
        left, right = rng.standard_normal((120, 4)), rng.standard_normal((80, 4))
        observed = Observed(holes)
        dense = np.where(np.isnan(holes), 0, left @ right.T)
        np.testing.assert_allclose(
            observed.times(observed.at(left, right), right), dense @ right, atol=1e-10
        )

    def test_nothing_observed(self):
        with pytest.raises(DataError, match="no observed entry"):
            Observed(np.full((2, 2), np.nan))


class TestAlternatingCompletion:
    @pytest.mark.parametrize("inner", [None, 2, 4])
    def test_completes_a_low_rank_matrix(self, planted, inner):
        matrix, holes = planted
        model = AlternatingCompletion(3, inner=inner, tol=1e-8, random_state=0)
        filled = model.fit_transform(holes)
        assert np.linalg.norm(filled - matrix) < 1e-3 * np.linalg.norm(matrix)
        np.testing.assert_array_equal(filled[~np.isnan(holes)], holes[~np.isnan(holes)])

    def test_errors_fall(self, planted):
        model = AlternatingCompletion(3, random_state=0).fit(planted[1])
        assert np.all(np.diff(model.errors_) < 1e-9)

    def test_many_inner_steps_are_the_exact_solution(self, planted):
        observed = Observed(planted[1])
        fixed = np.random.default_rng(2).standard_normal((80, 5))
        start = np.zeros((120, 5))
        found = _conjugate_gradients(observed, fixed, start, 0.1, 50)
        np.testing.assert_allclose(found, _exact(observed, fixed, 0.1), atol=1e-8)

    def test_rank_out_of_range(self):
        with pytest.raises(OptionError, match="rank must be a whole number of at least 1, got 0"):
            AlternatingCompletion(0).fit(np.eye(3))


class TestOneSidedCompletion:
    def test_row_space_from_two_entries_per_row(self):
        rng = np.random.default_rng(0)
        basis = np.linalg.qr(rng.standard_normal((12, 2)))[0]
        scores = rng.standard_normal((20_000, 2)) * [2, 1]
        seen = np.argsort(rng.random((20_000, 12)), axis=1)[:, :2]
        holes = np.full((20_000, 12), np.nan)
        np.put_along_axis(holes, seen, np.take_along_axis(scores @ basis.T, seen, axis=1), axis=1)
        model = OneSidedCompletion(2).fit(holes)
        found = model.components_.T
        assert np.linalg.norm(found @ found.T - basis @ basis.T) < 0.15
        np.testing.assert_allclose(model.singular_values_, [2, 1], rtol=0.1)

    def test_complete_matrix_gives_its_singular_vectors(self):
        rng = np.random.default_rng(1)
        matrix = (rng.standard_normal((200, 2)) * [3, 1]) @ rng.standard_normal((2, 10))
        model = OneSidedCompletion(2).fit(matrix)
        right = np.linalg.svd(matrix)[2][:2]
        np.testing.assert_allclose(np.abs(model.components_ @ right.T), np.eye(2), atol=1e-5)
        np.testing.assert_allclose(model.gram_, matrix.T @ matrix / 200, atol=1e-4)
        scores = model.transform(np.where(rng.random(matrix.shape) < 0.5, matrix, np.nan))
        assert np.median(np.abs(scores @ model.components_ - matrix)) < 1e-4

    def test_every_pair_of_every_row_counts_the_same(self):
        # The minimum of the sum, over rows and the pairs they observe, of (x_j x_k - v_j v_k)^2.
        rng = np.random.default_rng(2)
        X = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 5))
        X[rng.random(X.shape) > np.linspace(0.3, 1.0, 5)] = np.nan
        model = OneSidedCompletion(1, tol=1e-12).fit(X)
        v = model.singular_values_[0] * model.components_[0]
        slope, size = np.zeros(5), np.zeros(5)
        for row in X:
            seen = np.flatnonzero(~np.isnan(row))
            pairs = np.outer(row[seen], row[seen])
            slope[seen] += (np.outer(v[seen], v[seen]) - pairs) @ v[seen]
            size[seen] += np.abs(pairs) @ np.abs(v[seen])
        assert np.max(np.abs(slope)) < 1e-5 * np.max(size)

    def test_single_entries_are_not_enough(self):
        with pytest.raises(DataError, match="no row observes two columns"):
            OneSidedCompletion().fit(np.where(np.eye(4) > 0, 1.0, np.nan))

    @pytest.mark.parametrize("unit", [1e-150, 1e150])
    def test_any_unit_gives_the_same_vectors(self, unit, planted):
        _, holes = planted
        plain = OneSidedCompletion(2).fit(holes)
        scaled = OneSidedCompletion(2).fit(unit * holes)
        np.testing.assert_allclose(scaled.components_, plain.components_, atol=1e-5)
        np.testing.assert_allclose(
            scaled.singular_values_, unit * plain.singular_values_, rtol=1e-5
        )

    def test_squares_out_of_range_are_named(self, planted):
        with pytest.raises(DataError, match="whose squares leave the range of numbers; rescale X"):
            OneSidedCompletion(2).fit(1e160 * planted[1])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
            ({"rank": 1.5}, "rank must be a whole number"),
            ({"max_iter": 0}, "max_iter must be a whole number"),
            ({"tol": 0}, "tol must be a finite number above 0"),
        ],
    )
    def test_options_out_of_range(self, options, message):
        with pytest.raises(OptionError, match=message):
            OneSidedCompletion(**options).fit(np.eye(3))
