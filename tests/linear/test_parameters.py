"""Parameters of the wrong kind, parts that are searched, paths without a start, and scores."""

import warnings

import numpy as np
import pytest
from sklearn import config_context, linear_model
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline

from thresher import linear
from thresher.core.errors import DataError, OptionError
from thresher.linear import datafits, penalties, solvers
from thresher.solve import design
from thresher.solve.datafits.survival import concordance


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 20))
    return X, X[:, :3].sum(axis=1) + 0.3 * rng.standard_normal(60)


WRONG = {
    "datafit must be a Datafit, such as datafits.Huber": lambda: linear.SparseGLM("huber"),
    "penalty must be a Penalty, such as": lambda: linear.SparseGLM(datafits.Huber(), "l2"),
    "solver must be a Solver, such as": lambda: linear.SparseGLM(solver="cd"),
    r"datafit is the class Huber; write Huber\(\)": lambda: linear.SparseGLM(datafits.Huber),
    "groups must have a label for every column, got NaN": lambda: linear.GroupLasso(
        np.full(20, np.nan)
    ),
    "groups must be one label per column, such as": lambda: linear.GroupLasso(
        np.arange(20).reshape(4, 5)
    ),
    r"groups must be one label per column, .* could overlap": lambda: linear.GroupLassoCV(
        groups=[[0, 1, 2], [2, 3]]
    ),
    "alpha must be a finite number of at least 0, got 'x'": lambda: linear.Lasso(alpha="x"),
    "alpha must be a finite number of at least 0, got nan": lambda: linear.Lasso(alpha=np.nan),
    "alpha must be a finite number of at least 0, got 1000000": lambda: linear.Lasso(10**400),
    r"l1_ratio must be a number from 0 to 1, got \[": lambda: linear.ElasticNet(l1_ratio=[0.5]),
    "l1_ratio must be a number from 0 to 1, got 2": lambda: linear.SparseLogisticCV(l1_ratio=2),
    "max_iter must be a whole number of at least 1, got 1.5": lambda: linear.Lasso(max_iter=1.5),
    "max_iter must be a whole number of at least 1, got -5": lambda: linear.Lasso(max_iter=-5),
    "tol must be a finite number of at least 0, got -1": lambda: linear.Lasso(tol=-1),
    "n_alphas must be a whole number of at least 1": lambda: linear.LassoCV(n_alphas=0),
    "alphas must be a vector": lambda: linear.LassoCV(alphas=[]),
    "k must be a whole number of at least 1, got 2.5": lambda: linear.BestSubset(2.5),
    "n_nonzero_coefs must be a whole": lambda: linear.OrthogonalMatchingPursuit(2.5),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_parameters_are_named_in_fit(message, regression):
    X, y = regression
    labels = y > 0 if "got 2" in message and "l1_ratio" in message else y
    with pytest.raises(OptionError, match=message):
        WRONG[message]().fit(X, labels)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        *((model, "fit_intercept") for model in (
            linear.Lasso(), linear.SparseLogistic(), linear.LassoCV(), linear.LARS(),
            linear.OrthogonalMatchingPursuit(), linear.BestSubset(2), linear.SparseBayes(),
            linear.LossOMP(2), linear.ThresholdingWithFeedback(2),
        )),
        (linear.Lasso(), "positive"), (linear.ElasticNetCV(), "positive"),
        (linear.GroupLasso(), "warm_start"), (linear.SparseLogistic(), "share_features"),
    ],
    ids=repr,
)  # fmt: skip
def test_switches_are_true_or_false(model, name, regression):
    X, y = regression
    y = y > 0 if isinstance(model, linear.SparseLogistic) else y
    for value in ("no", None, 1):
        with pytest.raises(OptionError, match=f"{name} must be True or False, got {value!r}"):
            clone(model).set_params(**{name: value}).fit(X, y)
    clone(model).set_params(**{name: np.False_}).fit(X, y)


@pytest.mark.parametrize("alphas", [[], "x", [[1.0]], [-1.0], [np.nan]])
def test_wrong_strengths_of_a_path_are_named(alphas, regression):
    with pytest.raises(OptionError, match="alphas must be a vector of finite numbers"):
        linear.Lasso().path(*regression, alphas=alphas)


class TestParametersOfParts:
    def test_they_are_searched(self, regression):
        model = linear.SparseGLM(penalty=penalties.MCP(0.1))
        search = GridSearchCV(model, {"penalty__gamma": [1.5, 3.0, 9.0]}, cv=3).fit(*regression)
        tried = [p["penalty__gamma"] for p in search.cv_results_["params"]]
        assert tried == [1.5, 3.0, 9.0]
        assert search.best_estimator_.penalty.gamma == search.best_params_["penalty__gamma"]
        assert len(np.unique(search.cv_results_["mean_test_score"])) == 3
        assert model.penalty == penalties.MCP(0.1)

    def test_they_are_listed_and_set_at_any_depth(self):
        groups = np.arange(6) // 2
        model = linear.SparseGLM(penalty=penalties.Grouped(penalties.MCP(), groups))
        assert model.get_params()["penalty__radial__gamma"] == 3.0
        assert "penalty__radial__gamma" not in model.get_params(deep=False)
        model.set_params(penalty__radial__gamma=5.0, alpha=0.5)
        assert model.penalty == penalties.Grouped(penalties.MCP(gamma=5.0), groups)
        assert model.alpha == 0.5

    def test_unknown_names_are_refused(self):
        model = linear.SparseGLM(penalty=penalties.MCP())
        with pytest.raises(OptionError, match="MCP has no parameter 'gama'; did you mean 'gamma'"):
            model.set_params(penalty__gama=2.0)
        with pytest.raises(OptionError, match="datafit is None, which has no parameter"):
            model.set_params(datafit__width=2.0)
        with pytest.raises(ValueError, match="Invalid parameter 'nothing'"):
            model.set_params(nothing__gamma=2.0)


@pytest.mark.parametrize("eps", [2, 1, 0, -0.1, np.nan, None, "x"])
def test_ratios_of_paths_are_refused_in_the_same_words(eps, regression):
    message = f"eps must be a number above 0 and below 1, got {eps!r}"
    with pytest.raises(OptionError, match=message):
        linear.Lasso().path(*regression, eps=eps)
    with pytest.raises(OptionError, match=message):
        linear.LassoCV(eps=eps).fit(*regression)


def test_penalties_of_groups_refuse_the_same_labels():
    for kind in (penalties.group_lasso, lambda g: penalties.Grouped(penalties.L1(), g)):
        with pytest.raises(OptionError, match="group numbers must run from 0"):
            kind([-1, 0, 0])
        with pytest.raises(OptionError, match="groups must be one label per column"):
            kind([[0, 1], [1, 2]])
        with pytest.raises(OptionError, match="groups must be a non-empty vector of whole"):
            kind([0.0, 1.0])


def test_penalties_with_arrays_are_compared_by_value():
    weights = np.arange(3.0)
    assert penalties.L1(weights=weights) == penalties.L1(weights=weights.copy())
    assert penalties.L1(weights=weights) != penalties.L1(weights=weights + 1)
    assert penalties.L1() != penalties.L1(weights=weights)
    assert penalties.L1() != penalties.NonNegative()
    assert len({penalties.L1(weights=weights), penalties.L1(weights=weights.copy())}) == 1
    assert penalties.group_lasso([0, 0, 1]) == penalties.group_lasso([0, 0, 1])


class TestPaths:
    @pytest.mark.parametrize(
        "penalty",
        [penalties.NonNegative(), penalties.KSupport(k=3), penalties.L0(), penalties.Lq()],
        ids=repr,
    )
    def test_without_a_start_they_ask_for_strengths(self, penalty, regression):
        model = linear.SparseGLM(penalty=penalty)
        with pytest.raises(OptionError, match=r"slope at zero.*; give alphas"):
            model.path(*regression)
        assert len(model.path(*regression, alphas=[0.1, 0.01]).alphas) == 2

    def test_a_ridge_asks_for_strengths(self, regression):
        for model in (linear.ElasticNetCV(l1_ratio=0), linear.SparseLogisticCV(l1_ratio=0)):
            with pytest.raises(OptionError, match=r"no slope at zero .l1_ratio 0"):
                model.fit(regression[0], regression[1] > 0)

    @pytest.mark.parametrize("scale", [1e-150, 1e-100, 1e100, 1e120, 1e150])
    @pytest.mark.parametrize(
        "model",
        [
            linear.GroupLasso(np.arange(20) // 4),
            linear.GroupLasso(np.arange(20) // 4, l1_ratio=0.3),
            linear.SparseGLM(penalty=penalties.Slope()),
            linear.SparseGLM(penalty=penalties.LInf()),
        ],
        ids=repr,
    )
    def test_they_start_where_the_units_are(self, model, scale, regression):
        X, y = regression
        alphas = [model.path(X, y * s, n_alphas=2, eps=0.9).alphas for s in (1.0, scale)]
        np.testing.assert_allclose(alphas[1] / scale, alphas[0], rtol=1e-8)

    @pytest.mark.parametrize("units", [(1e150, 1.0), (1.0, 1e150), (1e-150, 1.0)])
    def test_cross_validation_of_groups_in_any_units(self, units, regression):
        X, y = regression
        groups = np.arange(20) // 4
        one, other = (
            linear.GroupLassoCV(groups=groups, cv=3, n_alphas=5).fit(X * a, y * b)
            for a, b in ((1.0, 1.0), units)
        )
        assert other.alpha_ / (units[0] * units[1]) == pytest.approx(one.alpha_)

    def test_unmet_tolerances_are_announced_once(self, regression):
        model = linear.Lasso(max_iter=1, tol=1e-12)
        message = r"\d of 3 fits of the path missed the tolerance 1.00e-12; the worst reached"
        with pytest.warns(ConvergenceWarning, match=message) as caught:
            path = model.path(*regression, eps=1e-4, n_alphas=3)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert f"{np.count_nonzero(~path.converged)} of 3" in str(caught[0].message)
        assert f"{path.criteria[~path.converged].max():.2e}" in str(caught[0].message)

    def test_unmet_tolerances_inside_folds_are_announced_once(self, regression):
        model = linear.LassoCV(max_iter=1, tol=1e-12, eps=1e-4, n_alphas=3, cv=4)
        with pytest.warns(ConvergenceWarning) as caught:
            model.fit(*regression)
        inside = [w for w in caught if "of 12 fits inside folds missed" in str(w.message)]
        assert len(inside) == 1
        assert inside[0].filename == __file__


class TestFolds:
    def test_one_without_weight_is_refused(self, regression):
        weight = np.ones(60)
        weight[:20] = 0
        with pytest.raises(DataError, match="the samples of fold 0 weigh nothing together"):
            linear.LassoCV(cv=3).fit(*regression, sample_weight=weight)
        with pytest.raises(DataError, match="the samples outside fold 1 weigh nothing"):
            linear.LassoCV(cv=[([30, 31], [32]), ([0, 1], [30])]).fit(
                *regression, sample_weight=weight
            )

    def test_one_without_events_outside_is_named(self):
        rng = np.random.default_rng(0)
        X, time = rng.standard_normal((60, 4)), rng.exponential(size=60) + 0.1
        seen = np.arange(60) // 12 == 1  # in the second of five folds alone
        model = linear.SparseGLMCV(datafits.Cox(), n_alphas=3)
        with pytest.raises(DataError, match=r"outside fold 1 .* no event was seen.* shuffle=True"):
            model.fit(X, np.where(seen, time, -time))
        model.set_params(cv=KFold(5, shuffle=True, random_state=0))
        assert model.fit(X, np.where(seen, time, -time)).alpha_ > 0

    def test_groups_of_samples_stay_together(self, regression):
        X, y = regression
        groups = np.arange(60) % 5
        model = linear.LassoCV(cv=GroupKFold(3), n_alphas=5)
        splits = list(GroupKFold(3).split(X, y, groups))
        listed = linear.LassoCV(cv=splits, n_alphas=5).fit(X, y)
        np.testing.assert_array_equal(model.fit(X, y, groups=groups).cv_loss_, listed.cv_loss_)

    def test_groups_are_routed_to_the_splitter(self, regression):
        X, y = regression
        groups = np.arange(60) % 5
        plain = linear.LassoCV(cv=GroupKFold(3), n_alphas=5).fit(X, y, groups=groups)
        with config_context(enable_metadata_routing=True):
            model = linear.LassoCV(cv=GroupKFold(3), n_alphas=5)
            routed = make_pipeline(model).fit(X, y, groups=groups)[-1]
            np.testing.assert_array_equal(routed.cv_loss_, plain.cv_loss_)
            np.testing.assert_array_equal(model.fit(X, y, groups=groups).cv_loss_, plain.cv_loss_)
            weighted = clone(model).set_fit_request(sample_weight=True)
            make_pipeline(weighted).fit(X, y, groups=groups, sample_weight=np.ones(60))

    def test_folds_at_a_time_share_the_cores(self, regression, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        seen = []

        class Spy(solvers.CoordinateDescent):
            def run(self, *arguments):
                seen.append(design.thread_count())
                return super().run(*arguments)

        for jobs, threads in ((1, 4), (2, 2), (8, 1)):
            seen.clear()
            model = linear.SparseGLMCV(solver=Spy(), n_alphas=3, cv=4, n_jobs=jobs)
            model.fit(*regression)
            assert set(seen[:-1]) == {threads}
            assert seen[-1] == 4  # the refit alone
        assert design.thread_count() == 4


def test_every_solver_is_asked_whether_it_takes_the_pair(regression):
    X, y = regression
    penalty = penalties.Grouped(penalties.L0(0.05), np.arange(20) // 4)
    model = linear.SparseGLM(datafits.Huber(), penalty).fit(X, y)
    assert np.any(model.coef_)
    for datafit, penalty, kind in (
        (None, penalties.L0(), solvers.LocalSearch),
        (None, penalties.L1(), solvers.CoordinateDescent),
        (None, penalties.Grouped(penalties.L0(), np.arange(20)), solvers.GroupDescent),
        (None, penalties.Slope(), solvers.ProximalGradient),
        (datafits.Huber(), penalties.Grouped(penalties.L0(), np.arange(20)),
         solvers.ProximalGradient),
    ):  # fmt: skip
        model = linear.SparseGLM(datafit, penalty)
        assert isinstance(model._solver(model._problem(X, y, None, 1.0)), kind)


class TestChosenStrengths:
    def test_of_any_penalty(self, regression):
        X, y = regression
        model = linear.SparseGLMCV(datafits.Huber(), penalties.SCAD(), n_alphas=10).fit(X, y)
        assert set(np.flatnonzero(model.coef_)) >= {0, 1, 2}
        plain = linear.SparseGLM(datafits.Huber(), penalties.SCAD(), alpha=model.alpha_).fit(X, y)
        np.testing.assert_allclose(model.coef_, plain.coef_, atol=1e-6)
        lasso = linear.SparseGLMCV(n_alphas=10).fit(X, y)
        np.testing.assert_allclose(
            lasso.cv_loss_, linear.LassoCV(n_alphas=10).fit(X, y).cv_loss_, rtol=1e-4
        )

    def test_with_weights_of_coefficients(self, regression):
        X, y = regression
        weights = np.linspace(0.5, 2, 20)
        for kind in (linear.LassoCV, linear.ElasticNetCV):
            model = kind(weights=weights, n_alphas=5, tol=1e-10).fit(X, y)
            plain = (linear.Lasso if kind is linear.LassoCV else linear.ElasticNet)(
                model.alpha_, weights=weights, tol=1e-10
            ).fit(X, y)
            np.testing.assert_allclose(model.coef_, plain.coef_, atol=1e-6)

    def test_of_classes_with_another_penalty(self, regression):
        X, y = regression
        model = linear.SparseLogisticCV(penalty=penalties.MCP(), n_alphas=5, eps=0.1).fit(X, y > 0)
        # Of the stationary points, the one at the end of the path that the folds judged.
        strengths = model.alphas_[model.alphas_ >= model.alpha_]
        path = linear.SparseLogistic(penalty=penalties.MCP()).path(X, y > 0, alphas=strengths)
        np.testing.assert_allclose(model.coef_[0], path.coefs[-1], atol=1e-4)


def test_tasks_start_warm(regression):
    X, y = regression
    Y = np.column_stack([y, -2 * y])
    model = linear.MultiTaskLasso(0.1, warm_start=True, tol=1e-10)
    first = model.fit(X, Y).n_iter_
    assert model.fit(X, Y).n_iter_ <= min(first, 1)


@pytest.mark.parametrize(("features", "classes"), [((3, 1), (2, 3)), ((1, 3), (3, 2))])
def test_classes_start_warm_only_from_coefficients_of_their_shape(features, classes):
    rng = np.random.default_rng(0)
    X, model = rng.standard_normal((60, 3)), linear.SparseLogistic(warm_start=True)
    for p, c in zip(features, classes, strict=True):
        y = np.argmax(X[:, :c] + rng.standard_normal((60, c)), axis=1)
        model.fit(X[:, :p], y)
        fresh = linear.SparseLogistic().fit(X[:, :p], y)
        np.testing.assert_allclose(model.coef_, fresh.coef_, atol=1e-3)
    assert model.fit(X[:, :p], y).n_iter_ <= fresh.n_iter_


class TestScores:
    def test_squares_and_counts_score_as_in_scikit_learn(self, regression):
        X, y = regression
        weight = np.random.default_rng(1).random(60)
        ours = linear.SparseGLM(alpha=0.1).fit(X, y)
        theirs = linear_model.Lasso(0.1, tol=1e-10).fit(X, y)
        assert ours.score(X, y, weight) == pytest.approx(theirs.score(X, y, weight), abs=1e-5)
        counts = np.random.default_rng(2).poisson(np.exp(y / 2))
        ours = linear.SparseGLM(datafits.Poisson(), alpha=0.0, tol=1e-10).fit(X, counts)
        theirs = linear_model.PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(X, counts)
        assert ours.score(X, counts, weight) == pytest.approx(
            theirs.score(X, counts, weight), abs=1e-5
        )

    def test_quantiles_count_from_the_bottom_of_the_rounded_kink(self):
        loss = datafits.SmoothQuantile(0.3, width=0.5)
        y, weight = np.zeros(1), np.ones(1)
        values = [loss.value(y, np.array([p]), weight) for p in np.linspace(-1, 1, 20_001)]
        assert loss.saturated(y, weight) == pytest.approx(min(values), abs=1e-8)

    def test_survival_scores_by_concordance(self):
        time = np.array([1.0, 2.0, 3.0, 4.0])
        assert concordance(time, -time) == 1
        assert concordance(time, time) == 0
        assert concordance(time, np.zeros(4)) == 0.5
        # Pairs whose first is censored tell nothing: left are (0, 1), (0, 2), (0, 3) and (2, 3).
        risk = np.array([4.0, 1.0, 2.0, 3.0])
        assert concordance(time * [1, -1, 1, 1], risk) == 0.75
        rng = np.random.default_rng(0)
        X = rng.standard_normal((80, 5))
        y = rng.exponential(np.exp(-X[:, 0])) * rng.choice([1, 1, -1], 80)
        model = linear.SparseGLM(datafits.Cox(), alpha=0.01).fit(X, y)
        assert model.score(X, y) == concordance(y, X @ model.coef_) > 0.6

    def test_a_constant_target_has_no_deviance_to_explain(self):
        X = np.random.default_rng(0).standard_normal((10, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert linear.SparseGLM().fit(X, np.ones(10)).score(X, np.ones(10)) == 1.0
