"""Targets that no finite constant fits best: refused by labels and weights, whole and in folds."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneGroupOut

from thresher.core.errors import DataError
from thresher.linear import (
    LassoCV,
    ScoringSystem,
    SimultaneousGLM,
    SparseGLM,
    SparseGLMCV,
    SparseLogistic,
    SparseLogisticCV,
    datafits,
)
from thresher.solve.datafits import Offset

X = np.random.default_rng(0).standard_normal((60, 4))
HALF = np.arange(60) < 30
#: A good target, and which samples must count for it to be one.
TARGETS = {
    "logistic": (datafits.Logistic(), np.where(HALF, 1.0, -1.0), ~HALF),
    "multinomial": (datafits.Multinomial(), np.eye(3)[np.arange(60) // 20], ~HALF),
    "poisson": (datafits.Poisson(), np.where(HALF, 0.0, 2.0), ~HALF),
    "cox": (datafits.Cox(), np.where(HALF, -1.0, 1.0) * (1 + np.arange(60)), ~HALF),
}
kinds = pytest.mark.parametrize("kind", TARGETS)


@kinds
def test_a_target_without_what_it_tells_apart_is_refused(kind):
    datafit, y, counts = TARGETS[kind]
    SparseGLM(datafit, alpha=0.01).fit(X, y)
    spoilt = y.copy()
    spoilt[counts] = y[~counts][: counts.sum()] if kind != "multinomial" else y[0]
    for fit in (SparseGLM(datafit).fit, SparseGLM(datafit).path, SparseGLMCV(datafit).fit):
        with pytest.raises(DataError, match=r"class|counts|no event"):
            fit(X, spoilt)


@kinds
def test_weights_of_zero_make_a_target_degenerate(kind):
    datafit, y, counts = TARGETS[kind]
    with pytest.raises(DataError, match=r"class|counts|no event"):
        SparseGLM(datafit).fit(X, y, sample_weight=np.where(counts, 0.0, 1.0))


@kinds
def test_a_fold_that_leaves_nothing_to_fit_is_named(kind):
    datafit, y, counts = TARGETS[kind]
    groups = np.where(counts, 1, 0) if kind != "multinomial" else np.arange(60) // 20
    with pytest.raises(DataError, match="the samples outside fold"):
        SparseGLMCV(datafit, cv=LeaveOneGroupOut(), n_alphas=3).fit(X, y, groups=groups)
    # A fold that holds out one class alone is judged by what the others teach.
    SparseGLMCV(datafit, cv=KFold(3, shuffle=True, random_state=0), n_alphas=3).fit(X, y)


def test_without_a_constant_a_single_class_under_a_penalty_has_a_fit():
    model = SparseGLM(datafits.Logistic(), alpha=0.01, fit_intercept=False)
    assert model.fit(np.abs(X), np.ones(60)).criterion_ < 1e-5


def test_classifiers_name_the_class():
    y = np.array(["a", "b"])[HALF.astype(int)]
    for model in (SparseLogistic(), SparseLogisticCV(), ScoringSystem(node_limit=1)):
        with pytest.raises(ValueError, match="class"):
            model.fit(X, np.full(60, "a"))
    for model in (SparseLogistic(), SparseLogisticCV()):
        with pytest.raises(DataError, match="class"):
            model.fit(X, y, sample_weight=HALF.astype(float))
    with pytest.raises(DataError, match="class 2 of 3"):
        SparseLogistic().fit(
            X, np.arange(60) // 20, sample_weight=(np.arange(60) < 40).astype(float)
        )


def test_one_of_many_problems_is_named():
    Y = np.column_stack([np.where(HALF, 1.0, -1.0), np.ones(60)])
    with pytest.raises(DataError, match="problem 1"):
        SimultaneousGLM(datafits.Logistic(), n_alphas=2).fit(X, Y)
    with pytest.raises(DataError, match="problem 0"):
        SimultaneousGLM(datafits.Logistic(), n_alphas=2).fit(X, Y[:, 0], HALF.astype(float))


@kinds
def test_scores_of_a_degenerate_sample_are_finite_or_nothing(kind):
    datafit, y, counts = TARGETS[kind]
    model = SparseGLM(datafit, alpha=0.01).fit(X, y)
    score = model.score(X[~counts], y[~counts])
    if kind == "cox":
        assert np.isnan(score)  # no pair can be compared
    elif kind == "multinomial":
        assert score <= 1
    else:
        assert score == 0


def test_a_grid_search_is_not_decided_by_a_fold_of_zeros():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 3))
    y = rng.poisson(np.exp(0.2 + 0.8 * X[:, 0])).astype(float)
    y[:12] = 0
    found = GridSearchCV(SparseGLM(datafits.Poisson()), {"alpha": [0.005, 5.0]}, cv=KFold(10))
    assert found.fit(X, y).best_params_["alpha"] == 0.005


def test_constant_targets_score_as_scikit_learn_has_it():
    model = SparseGLM(alpha=0.1).fit(X, X[:, 0])
    assert model.score(X, np.ones(60)) == 0
    assert SparseGLM(alpha=0.1).fit(X, np.ones(60)).score(X, np.ones(60)) == 1


class Overlapping:
    def split(self, X, y=None, groups=None):
        yield np.arange(40), np.arange(39, 60)

    def get_n_splits(self, *arguments):
        return 1


class Empty(Overlapping):
    def split(self, X, y=None, groups=None):
        return iter(())


class ByFirstColumn(Overlapping):
    """Splits as time-ordered data are split: by what is in the first column."""

    def split(self, X, y=None, groups=None):
        self.seen, self.target = np.shape(X), np.asarray(y)
        late = X[:, 0] > np.median(X[:, 0])
        yield np.flatnonzero(~late), np.flatnonzero(late)


def test_splitters_get_the_data_and_their_folds_are_checked():
    y = X[:, 1] + 0.1 * X[:, 2]
    for model, target in (
        (LassoCV(n_alphas=5), y),
        (SparseLogisticCV(n_alphas=3), np.array(["a", "b"])[(y > 0).astype(int)]),
    ):
        splitter = ByFirstColumn()
        model.set_params(cv=splitter).fit(X, target)
        assert splitter.seen == X.shape
        np.testing.assert_array_equal(splitter.target, target)
    with pytest.raises(DataError, match="fold 0 holds out 1 samples that it also fits"):
        LassoCV(cv=Overlapping()).fit(X, y)
    with pytest.raises(DataError, match="returns no folds"):
        LassoCV(cv=Empty()).fit(X, y)


def test_an_offset_does_not_hide_a_degenerate_target():
    loss = Offset(datafits.Poisson(), np.ones(60))
    assert loss.degeneracy(np.zeros(60), np.full(60, 1 / 60), True)
