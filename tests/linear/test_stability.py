"""Stability selection: what is chosen on most halves, and the bound of what is chosen in vain."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import OptionError
from thresher.linear import Lasso, SparseLogistic, StabilitySelection

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 15))
Y = 2 * X[:, 3] - 2 * X[:, 7] + RNG.standard_normal(80)


@parametrize_with_checks([StabilitySelection(n_pairs=3, n_alphas=4, random_state=0)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_stability_is_the_share_of_complementary_halves_that_choose_a_feature():
    class Noting(Lasso):
        seen: list = []  # noqa: RUF012

        def path(self, X, y, *arguments, **options):
            found = super().path(X, y, *arguments, **options)
            if "alphas" in options:
                self.seen.append((y, found.coefs != 0))
            return found

    model = StabilitySelection(Noting(), n_pairs=6, n_alphas=4, random_state=1).fit(X, Y)
    assert len(Noting.seen) == 12
    for (one, _), (other, _) in zip(Noting.seen[::2], Noting.seen[1::2], strict=True):
        np.testing.assert_array_equal(np.sort(np.r_[one, other]), np.sort(Y))
    chosen = np.array([used for _, used in Noting.seen])
    np.testing.assert_allclose(model.stability_path_, chosen.mean(axis=0))
    np.testing.assert_allclose(model.scores_, chosen.mean(axis=0).max(axis=0))
    mean = chosen.any(axis=1).sum(axis=1).mean()
    assert model.expected_false_ == pytest.approx(mean**2 / (0.2 * 15))
    np.testing.assert_array_equal(model.get_support(indices=True), [3, 7])
    np.testing.assert_array_equal(model.transform(X), X[:, [3, 7]])


def test_classes_are_divided_alike_and_repeats_agree():
    y = np.where(np.arange(80) < 6, "rare", "often")
    features = X + 3 * (np.arange(80) < 6)[:, None] * (np.arange(15) == 2)
    model = StabilitySelection(SparseLogistic(), n_pairs=5, n_alphas=5, random_state=0)
    one = model.fit(features, y).scores_
    assert 2 in model.get_support(indices=True)
    np.testing.assert_array_equal(one, clone(model).set_params(n_jobs=2).fit(features, y).scores_)


def test_bad_options():
    with pytest.raises(OptionError, match="estimator must have a path"):
        StabilitySelection("lasso").fit(X, Y)
    with pytest.raises(OptionError, match="threshold must be"):
        StabilitySelection(threshold=0.5).fit(X, Y)
    with pytest.raises(OptionError, match="n_pairs"):
        StabilitySelection(n_pairs=0).fit(X, Y)
