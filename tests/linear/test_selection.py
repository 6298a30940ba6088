"""Choosing strengths: where grids begin and end, what decides, that the judged model is kept."""

import math
import warnings
from itertools import combinations

import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model
from sklearn.feature_selection import SelectFromModel
from sklearn.metrics import accuracy_score, check_scoring, make_scorer
from sklearn.model_selection import KFold

from thresher import linear
from thresher.core.errors import OptionError
from thresher.linear import datafits, penalties
from thresher.linear.greedy.pursuit import GreedyRegressor
from thresher.linear.penalised.model import PenalizedModel
from thresher.solve.path import alpha_max
from thresher.solve.problem import Problem

from .test_contracts import CASES

RNG = np.random.default_rng(0)
X = RNG.standard_normal((100, 12))
X[:, 1:] += 0.5 * X[:, :1]
Y = 30 * X[:, 0] + X[:, 1:4].sum(axis=1) + RNG.standard_normal(100)
FREE = np.r_[0.0, np.ones(11)]
GROUPS = np.arange(12) // 3


def left_by(columns, y=Y):
    design = np.column_stack([np.ones(len(y)), X[:, columns]])
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


UNPENALISED = {
    "lasso": (penalties.L1(weights=FREE), [0]),
    "mcp": (penalties.MCP(weights=FREE), [0]),
    "group": (penalties.group_lasso(GROUPS, weights=[0.0, 1, 1, 1]), [0, 1, 2]),
    "group mcp": (penalties.Grouped(penalties.MCP(weights=[0.0, 1, 1, 1]), GROUPS), [0, 1, 2]),
}


@pytest.mark.parametrize("name", UNPENALISED)
def test_grids_begin_where_all_that_is_penalised_vanishes(name):
    penalty, free = UNPENALISED[name]
    gradient = X.T @ left_by(free) / 100
    gradient[free] = 0
    blocks = np.sqrt(np.bincount(GROUPS, gradient**2)) if "group" in name else np.abs(gradient)
    problem = Problem.build(X, Y, datafits.Squares(), penalty)
    np.testing.assert_allclose(alpha_max(problem), blocks.max(), rtol=1e-6)
    for factor, empty in ((1.001, True), (0.98, False)):
        model = linear.SparseGLM(penalty=penalty, alpha=factor * blocks.max(), tol=1e-10).fit(X, Y)
        assert (not np.any(np.delete(model.coef_, free))) == empty


@pytest.mark.parametrize("epsilon", [0.2, 3.0])
def test_the_log_sum_begins_where_its_slope_at_zero_is_the_gradient(epsilon):
    problem = Problem.build(X, Y, datafits.Squares(), penalties.LogSum(epsilon=epsilon))
    steepest = np.abs((X - X.mean(axis=0)).T @ (Y - Y.mean()) / 100).max()
    assert alpha_max(problem) == pytest.approx(epsilon * steepest)


@pytest.mark.parametrize("datafit", [datafits.Logistic(), datafits.Huber()])
def test_grids_of_other_losses_begin_there_too(datafit):
    y = np.sign(Y + 20 * RNG.standard_normal(100)) if isinstance(datafit, datafits.Logistic) else Y
    penalty = penalties.L1(weights=FREE)
    top = alpha_max(Problem.build(X, y, datafit, penalty))
    above, below = (
        linear.SparseGLM(datafit, penalty, factor * top, tol=1e-12).fit(X, y).coef_
        for factor in (1.001, 0.98)
    )
    assert not np.any(above[1:])
    assert np.any(below[1:])


def test_a_ridge_on_what_is_free_moves_with_the_strength():
    model = linear.ElasticNet(1.0, l1_ratio=0.7, weights=FREE, tol=1e-12)
    top = float(model.path(X, Y, n_alphas=2).alphas[0])
    above, below = (model.set_params(alpha=f * top).fit(X, Y).coef_ for f in (1.001, 0.98))
    assert not np.any(above[1:])
    assert np.any(below[1:])


def test_a_free_feature_of_constrained_sign_is_fitted_within_it():
    y = Y - 60 * X[:, 0]  # the free coefficient would be negative
    model = linear.Lasso(weights=FREE, positive=True, tol=1e-12)
    top = float(model.path(X, y, n_alphas=2).alphas[0])
    above, below = (model.set_params(alpha=f * top).fit(X, y).coef_ for f in (1.001, 0.98))
    assert not np.any(above[1:])
    assert np.any(below[1:]) or top == 1


def test_nothing_penalised_has_no_grid():
    with pytest.raises(OptionError, match="no natural start"):
        linear.Lasso(weights=np.zeros(12)).path(X, Y)


class TestTheEndOfTheGrid:
    def test_a_high_signal_is_not_cut_off(self):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            design = rng.standard_normal((100, 20))
            y = 3 * design[:, :5].sum(axis=1) + 0.1 * rng.standard_normal(100)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                ours = linear.LassoCV().fit(design, y)
            peer = linear_model.LassoCV().fit(design, y)
            new = rng.standard_normal((500, 20))
            truth = 3 * new[:, :5].sum(axis=1)
            ours, peer = (np.mean((m.predict(new) - truth) ** 2) for m in (ours, peer))
            assert ours < 1.5 * peer

    def test_its_last_strength_is_warned_of_unless_it_was_given(self):
        y = X[:, 0] * 3
        with pytest.warns(UserWarning, match="smallest strength of the grid"):
            linear.LassoCV(eps=0.5, n_alphas=5).fit(X, y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            linear.LassoCV(alphas=[0.5, 0.4]).fit(X, y)
            linear.LassoCV(n_alphas=1, cv=2).fit(X, y)


@pytest.mark.parametrize("penalty", [penalties.MCP(), penalties.SCAD(), penalties.L1()])
def test_the_model_that_the_folds_judged_is_kept(penalty):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        mixed = np.eye(60) * 0.4 + 0.6 * np.ones((60, 60)) / 8
        design = rng.standard_normal((100, 60)) @ mixed
        y = design[:, :5] @ [2, -2, 1.5, 1, -1] + rng.standard_normal(100)
        options = {"penalty": penalty, "tol": 1e-8}
        model = linear.SparseGLMCV(n_alphas=20, cv=3, **options).fit(design, y)
        path = linear.SparseGLM(**options).path(design, y, alphas=model.alphas_)
        place = int(np.flatnonzero(path.alphas == model.alpha_)[0])
        np.testing.assert_allclose(model.coef_, path.coefs[place], atol=1e-3)


class TestWhatDecides:
    y = X[:, 0] + 0.5 * X[:, 5] + np.random.default_rng(3).standard_normal(100)

    def test_one_standard_error(self):
        lowest = linear.LassoCV().fit(X, self.y)
        sparser = linear.LassoCV(selection="one-se").fit(X, self.y)
        means = lowest.cv_loss_.mean(axis=1)
        error = lowest.cv_loss_[means.argmin()].std(ddof=1) / np.sqrt(5)
        expected = lowest.alphas_[means <= means.min() + error].max()
        assert sparser.alpha_ == lowest.alpha_one_se_ == expected > lowest.alpha_
        np.testing.assert_allclose(
            sparser.coef_, linear.Lasso(expected).fit(X, self.y).coef_, atol=1e-4
        )

    @pytest.mark.parametrize(("name", "charge"), [("aic", 2.0), ("bic", np.log(100))])
    def test_information_criteria(self, name, charge):
        model = linear.LassoCV(selection=name).fit(X, self.y)
        path = linear.Lasso().path(X, self.y, alphas=model.alphas_)
        squares = [
            np.sum((self.y - X @ coef - intercept) ** 2)
            for coef, intercept in zip(path.coefs, path.intercepts, strict=True)
        ]
        used = np.count_nonzero(path.coefs, axis=1)
        expected = 100 * np.log(np.array(squares) / 100) + charge * used
        np.testing.assert_allclose(model.information_, expected, rtol=1e-5)
        assert model.alpha_ == model.alphas_[expected.argmin()]
        assert not hasattr(model, "cv_loss_")

    def test_the_extended_criterion_charges_for_the_supports_there_are(self):
        plain, extended = (
            linear.SparseGLMCV(selection=name, alphas=[0.3, 0.1]).fit(X, self.y)
            for name in ("bic", "ebic")
        )
        used = [
            np.count_nonzero(linear.SparseGLM(alpha=alpha).fit(X, self.y).coef_)
            for alpha in (0.3, 0.1)
        ]
        expected = [2 * math.log(math.comb(12, k)) for k in used]
        np.testing.assert_allclose(extended.information_ - plain.information_, expected)

    def test_of_a_likelihood(self):
        y = (self.y > 0).astype(int)
        model = linear.SparseLogisticCV(selection="bic", alphas=5).fit(X, y)
        path = linear.SparseLogistic().path(X, y, alphas=model.alphas_)
        margins = (2 * y - 1) * (X @ path.coefs.T + path.intercepts).T
        expected = 2 * np.log1p(np.exp(-margins)).sum(axis=1)
        expected += np.log(100) * np.count_nonzero(path.coefs, axis=1)
        np.testing.assert_allclose(model.information_, expected, rtol=1e-5)

    def test_unknown_words(self):
        with pytest.raises(OptionError, match="selection='1se' is not known"):
            linear.LassoCV(selection="1se").fit(X, self.y)

    def test_scores_of_scikit_learn(self):
        y = np.where(self.y > 0, "yes", "no")
        weight = np.random.default_rng(4).random(100)
        cv = KFold(4, shuffle=True, random_state=0)
        for design in (X, sparse.csr_array(X)):
            for scoring in ("roc_auc", "neg_log_loss", make_scorer(accuracy_score)):
                model = linear.SparseLogisticCV(scoring=scoring, cv=cv, alphas=[0.1, 0.02])
                model.fit(design, y, sample_weight=weight)
                for k, (train, test) in enumerate(cv.split(X)):
                    for i, alpha in enumerate(model.alphas_):
                        own = linear.SparseLogistic(alpha, tol=1e-9)
                        own.fit(X[train], y[train], sample_weight=weight[train])
                        score = check_scoring(own, scoring=scoring)
                        expected = score(own, X[test], y[test], sample_weight=weight[test])
                        assert model.cv_loss_[i, k] == pytest.approx(-expected, abs=1e-3)
                assert model.alpha_ == model.alphas_[model.cv_loss_.mean(axis=1).argmin()]

    def test_scores_of_a_real_target_and_of_survival(self):
        model = linear.LassoCV(scoring="neg_mean_absolute_error", alphas=[0.5, 0.05], cv=2)
        model.fit(X, self.y)
        half = linear.Lasso(0.05, tol=1e-9).fit(X[50:], self.y[50:])
        mistake = np.abs(half.predict(X[:50]) - self.y[:50]).mean()
        assert model.cv_loss_[1, 0] == pytest.approx(mistake, abs=1e-3)
        survival = linear.SparseGLMCV(
            linear.datafits.Cox(), scoring=lambda m, X, y: m.score(X, y), alphas=[0.05], cv=2
        )
        survival.fit(X, np.exp(self.y))
        assert -1 <= survival.cv_loss_.max() < -0.5

    def test_scores_that_cannot_be_had_are_refused(self):
        with pytest.raises(OptionError, match="holds nothing out"):
            linear.LassoCV(scoring="r2", selection="bic").fit(X, self.y)
        with pytest.raises(OptionError, match="scoring takes no offset"):
            linear.SparseGLMCV(scoring="r2").fit(X, self.y, offset=self.y)
        with pytest.raises(ValueError, match="scoring"):
            linear.LassoCV(scoring="nonsense").fit(X, self.y)

    def test_a_list_of_shares(self):
        cv = KFold(4, shuffle=True, random_state=0)
        ratios = [0.3, 0.9]
        model = linear.ElasticNetCV(l1_ratio=ratios, cv=cv, alphas=8).fit(X, self.y)
        alone = [linear.ElasticNetCV(l1_ratio=r, cv=cv, alphas=8).fit(X, self.y) for r in ratios]
        best = min(alone, key=lambda each: each.cv_loss_.mean(axis=1).min())
        assert (model.l1_ratio_, model.alpha_) == (best.l1_ratio, best.alpha_)
        assert model.alphas_.shape == (2, 8)
        assert model.cv_loss_.shape == (2, 8, 4)
        np.testing.assert_allclose(model.coef_, best.coef_, atol=1e-4)
        np.testing.assert_allclose(
            model.path(X, self.y, n_alphas=3).coefs, best.path(X, self.y, n_alphas=3).coefs
        )
        peer = linear_model.ElasticNetCV(l1_ratio=ratios, cv=cv, alphas=8).fit(X, self.y)
        assert peer.l1_ratio_ == model.l1_ratio_
        with pytest.raises(OptionError, match="l1_ratio"):
            linear.ElasticNetCV(l1_ratio=[0.5, 2.0]).fit(X, self.y)
        with pytest.raises(OptionError, match="l1_ratio is empty"):
            linear.ElasticNetCV(l1_ratio=[]).fit(X, self.y)
        with pytest.raises(OptionError, match="l1_ratio"):
            linear.ElasticNet(l1_ratio=[0.5]).fit(X, self.y)

    def test_lists_of_shares_elsewhere(self):
        classes = np.digitize(self.y, [-1, 1])
        for model, y in (
            (linear.SparseLogisticCV(l1_ratio=[0.5, 1], alphas=3, cv=2), classes),
            (linear.GroupLassoCV(groups=GROUPS, l1_ratio=[0.1, 0.5], alphas=3, cv=2), self.y),
            (
                linear.MultiTaskElasticNetCV(l1_ratio=[0.5, 1], alphas=3, cv=2),
                np.column_stack([self.y, -self.y]),
            ),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                assert model.fit(X, y).l1_ratio_ in model.l1_ratio

    def test_a_number_of_strengths(self):
        assert len(linear.LassoCV(alphas=7).fit(X, self.y).alphas_) == 7
        for alphas in (0, -1, 2.5, True, "many", [], [0.1, np.nan], [-1.0]):
            with pytest.raises(OptionError, match="alphas"):
                linear.LassoCV(alphas=alphas).fit(X, self.y)

    def test_unsorted_and_repeated_strengths(self):
        model = linear.LassoCV(alphas=[0.1, 0.5, 0.1, 1.0], cv=2).fit(X, self.y)
        np.testing.assert_array_equal(model.alphas_, [1.0, 0.5, 0.1, 0.1])


EXACT = [case for case in CASES if isinstance(case.make(), PenalizedModel | GreedyRegressor)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.subject.__name__)
def test_select_from_model_keeps_what_is_not_zero(case):
    chosen = SelectFromModel(case.make()).fit(**case.data())
    coef = np.atleast_2d(chosen.estimator_.coef_)
    used = np.linalg.norm(coef, axis=0) > 1e-5
    np.testing.assert_array_equal(chosen.get_support(), used)
    assert len(EXACT) > 15


@pytest.mark.parametrize("seed", range(40))
def test_best_subsets_of_few_columns_are_the_best(seed):
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(15, 40)), int(rng.integers(4, 13))
    k = int(rng.integers(1, p))
    design = rng.standard_normal((n, p)) @ rng.standard_normal((p, p))
    design[:, 0] = design[:, 1] + 1e-3 * design[:, 0]
    y = design @ (rng.standard_normal(p) * (rng.random(p) < 0.5)) + rng.standard_normal(n)
    weight = rng.random(n)
    root = np.sqrt(weight)

    def loss(support):
        part = root[:, None] * np.column_stack([np.ones(n), design[:, list(support)]])
        residual = root * y - part @ np.linalg.lstsq(part, root * y, rcond=None)[0]
        return residual @ residual

    model = linear.BestSubset(k).fit(design, y, sample_weight=weight)
    found = weight @ (y - model.predict(design)) ** 2
    least = min(map(loss, combinations(range(p), k)))
    assert found <= least * (1 + 1e-7)
    assert len(model.support_) == k


class TestBetweenStrengths:
    def test_the_lasso_is_linear_between_its_knots(self):
        path = linear.lars_path(X, Y)
        for alpha in np.linspace(path.alphas[1], path.alphas[-2], 7):
            coef, intercept = path.at(alpha)
            model = linear.Lasso(alpha, tol=1e-14).fit(X, Y)
            np.testing.assert_allclose(coef, model.coef_, atol=1e-6)
            np.testing.assert_allclose(intercept, model.intercept_, atol=1e-6)

    def test_strengths_of_the_path_give_what_was_fitted(self):
        path = linear.Lasso().path(X, Y, n_alphas=5)
        for k, alpha in enumerate(path.alphas):
            np.testing.assert_array_equal(path.at(alpha)[0], path.coefs[k])
        for alpha in (1.1 * path.alphas[0], 0.9 * path.alphas[-1], np.nan):
            with pytest.raises(OptionError, match="alpha must lie from"):
                path.at(alpha)
