"""What else users hand over: offsets, several targets, class weights, labelled groups, units."""

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.model_selection import cross_val_predict

from thresher import linear
from thresher.core.errors import DataError, OptionError
from thresher.linear import datafits, penalties
from thresher.solve.datafits import Offset

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 4))
TIME = RNG.uniform(0.5, 20, 200)
COUNTS = RNG.poisson(TIME * np.exp(0.5 * X[:, 0] - 1)).astype(float)
REAL = X[:, 0] + RNG.standard_normal(200)


class TestOffsets:
    def test_counts_per_exposure_agree_with_statsmodels(self):
        sm = pytest.importorskip("statsmodels.api")
        poisson = sm.families.Poisson()
        peer = sm.GLM(COUNTS, sm.add_constant(X), family=poisson, exposure=TIME).fit().params
        model = linear.SparseGLM(datafits.Poisson(), alpha=0.0, tol=1e-12)
        model.fit(X, COUNTS, offset=np.log(TIME))
        np.testing.assert_allclose(np.r_[model.intercept_, model.coef_], peer, atol=1e-5)
        np.testing.assert_allclose(
            model.predict(X, offset=np.log(TIME)), TIME * model.predict(X), rtol=1e-12
        )
        assert model.score(X, COUNTS, offset=np.log(TIME)) > model.score(X, COUNTS)

    @pytest.mark.parametrize(
        ("loss", "y"),
        [
            (datafits.Logistic(), np.where(REAL > 0, 1.0, -1.0)),
            (datafits.Poisson(), COUNTS),
            (datafits.Cox(), np.where(REAL > -1, TIME, -TIME)),
            (datafits.Multinomial(), np.eye(3)[np.digitize(REAL, [-0.5, 0.5])]),
            (datafits.Squares(), REAL),
            (datafits.Huber(), REAL),
        ],
    )
    def test_an_offset_is_a_feature_of_known_coefficient(self, loss, y):
        # The gradient at the end is that of the loss at predictions that the offset is part of.
        offset = 0.7 * X[:, 1] if y.ndim == 1 else np.outer(0.7 * X[:, 1], [1.0, 0, -1])
        model = linear.SparseGLM(loss, alpha=0.02, tol=1e-10).fit(X, y, offset=offset)
        z = X @ model.coef_.T + model.intercept_ + offset
        slope = loss.gradient(y, z, np.full(200, 1 / 200))
        penalty = penalties.L1(0.02)
        missed = penalty.subdifferential_distance(model.coef_.T, X.T @ slope)
        assert np.max(missed) < 1e-5
        assert np.max(np.abs(slope.sum(axis=0))) < 1e-5
        without = linear.SparseGLM(loss, alpha=0.02, tol=1e-10).fit(X, y)
        assert np.max(np.abs(without.coef_ - model.coef_)) > 0.1
        nothing = linear.SparseGLM(loss, alpha=0.02, tol=1e-10).fit(X, y, offset=0 * offset)
        np.testing.assert_allclose(nothing.coef_, without.coef_, atol=1e-4)

    def test_folds_take_their_offsets_along(self):
        offset, order = np.log(TIME), np.argsort(TIME)
        model = linear.SparseGLMCV(datafits.Poisson(), cv=4, alphas=[0.05, 0.01])
        model.fit(X[order], COUNTS[order], offset=offset[order])
        for k, test in enumerate(np.array_split(np.arange(200), 4)):
            train = np.setdiff1d(np.arange(200), test)
            for i, alpha in enumerate(model.alphas_):
                own = linear.SparseGLM(datafits.Poisson(), alpha=alpha, tol=1e-10)
                own.fit(X[order][train], COUNTS[order][train], offset=offset[order][train])
                mean = own.predict(X[order][test], offset=offset[order][test])
                loss = np.mean(mean - COUNTS[order][test] * np.log(mean))
                assert model.cv_loss_[i, k] == pytest.approx(loss, rel=1e-3)

    def test_bad_offsets_are_refused(self):
        model = linear.SparseGLM(datafits.Poisson())
        with np.errstate(divide="ignore"):
            endless = np.log(0 * TIME)
        for offset in (TIME[:-1], TIME[:, None], 1.0):
            with pytest.raises(DataError, match="offset has shape"):
                model.fit(X, COUNTS, offset=offset)
        with pytest.raises(DataError, match="exposures above zero"):
            model.fit(X, COUNTS, offset=endless)
        with pytest.raises(OptionError, match="PoissonIdentity takes no offset"):
            linear.SparseGLM(datafits.PoissonIdentity()).fit(X, COUNTS, offset=TIME)
        with pytest.raises(DataError, match="offset has shape"):
            model.fit(X, COUNTS, offset=TIME).predict(X[:3], offset=TIME)

    @pytest.mark.parametrize("loss", [datafits.Poisson(), datafits.Gamma(), datafits.Tweedie()])
    def test_an_exposure_is_an_offset_of_its_logarithm(self, loss):
        y, more = COUNTS + 1, 0.3 * X[:, 2]
        options = {"datafit": loss, "tol": 1e-10}
        one, other = (linear.SparseGLM(alpha=0.02, **options) for _ in range(2))
        one.fit(X, y, exposure=TIME, offset=more)
        other.fit(X, y, offset=np.log(TIME) + more)
        np.testing.assert_allclose(one.coef_, other.coef_)
        for call in (one.predict, lambda X, **known: one.score(X, y, **known)):
            np.testing.assert_allclose(
                call(X, exposure=TIME), call(X, offset=np.log(TIME)), rtol=1e-12
            )
        np.testing.assert_allclose(one.predict(X, exposure=TIME), TIME * one.predict(X))
        chosen = linear.SparseGLMCV(alphas=[0.1, 0.02], cv=3, **options).fit(X, y, exposure=TIME)
        same = linear.SparseGLMCV(alphas=[0.1, 0.02], cv=3, **options)
        same.fit(X, y, offset=np.log(TIME))
        np.testing.assert_allclose(chosen.cv_loss_, same.cv_loss_)
        paths = [
            model.path(X, y, n_alphas=3, **known)
            for model, known in ((one, {"exposure": TIME}), (other, {"offset": np.log(TIME)}))
        ]
        np.testing.assert_allclose(paths[0].coefs, paths[1].coefs)
        assert np.max(np.abs(paths[0].coefs - one.path(X, y, n_alphas=3).coefs)) > 1e-3

    @pytest.mark.parametrize(
        ("exposure", "said"),
        [
            (TIME[:-1], r"exposure has shape \(199,\), for 200 samples"),
            (np.where(np.arange(200) == 7, 0.0, TIME), r"above zero, got 0.0 at row 7"),
            (np.where(np.arange(200) == 3, -1.0, TIME), r"above zero, got -1.0 at row 3"),
            (np.where(np.arange(200) == 4, np.inf, TIME), r"finite .* got inf at row 4"),
            (np.where(np.arange(200) == 5, np.nan, TIME), r"finite .* got nan at row 5"),
        ],
    )
    def test_bad_exposures_are_refused(self, exposure, said):
        for model in (linear.SparseGLM, linear.SparseGLMCV):
            with pytest.raises(DataError, match=said):
                model(datafits.Poisson()).fit(X, COUNTS, exposure=exposure)

    def test_losses_without_a_log_link_take_no_exposure(self):
        for loss in (None, datafits.PoissonIdentity(), datafits.Logistic()):
            with pytest.raises(OptionError, match="takes no exposure, as its mean is not"):
                linear.SparseGLM(loss).fit(X, np.sign(REAL) + 2, exposure=TIME)

    def test_the_conjugate_is_that_of_the_shifted_loss(self):
        rng = np.random.default_rng(1)
        y, z, offset = rng.poisson(2.0, 9).astype(float), rng.standard_normal(9), rng.random(9)
        weight, loss = np.full(9, 1 / 9), Offset(datafits.Poisson(), offset)
        dual = loss.gradient(y, z, weight)
        # Fenchel's equality holds at the gradient alone.
        reached = loss.value(y, z, weight) + loss.conjugate(y, dual, weight)
        assert reached == pytest.approx(dual @ z)


GREEDY = [
    linear.OrthogonalMatchingPursuit(2),
    linear.LARS(2),
    linear.BestSubset(2),
    linear.LossOMP(2),
    linear.ThresholdingWithFeedback(2),
]


class TestSeveralTargets:
    Y = X[:, :2] + 0.1 * np.random.default_rng(2).standard_normal((200, 2))

    @pytest.mark.parametrize("model", GREEDY, ids=lambda model: type(model).__name__)
    def test_each_is_fitted_alone(self, model):
        weight = np.random.default_rng(3).random(200)
        both = model.fit(X, self.Y, sample_weight=weight)
        coef, intercept, predicted = both.coef_, both.intercept_, both.predict(X)
        supports = both.support_
        assert coef.shape == (2, 4)
        assert intercept.shape == (2,)
        assert predicted.shape == (200, 2)
        for k in range(2):
            alone = model.fit(X, self.Y[:, k], sample_weight=weight)
            np.testing.assert_allclose(coef[k], alone.coef_)
            np.testing.assert_allclose(intercept[k], alone.intercept_)
            np.testing.assert_array_equal(supports[k], alone.support_)
        single = model.fit(X, self.Y[:, :1])
        assert single.coef_.shape == (1, 4)
        assert single.predict(X).shape == (200, 1)

    def test_paths_of_several_targets_are_a_list(self):
        model = linear.LARS(2).fit(X, self.Y)
        assert [path.alphas[-1] for path in model.path_] == model.alpha_

    @pytest.mark.parametrize(
        "model", [linear.Lasso(), linear.LassoCV(), linear.ElasticNet(), linear.SparseGLM()]
    )
    def test_estimators_of_one_target_name_those_of_several(self, model):
        with pytest.raises(DataError, match=r"y has 2 columns.*MultiTaskLasso"):
            model.fit(X, self.Y)

    def test_elastic_nets_agree_with_scikit_learn(self):
        for ratio in (0.3, 1.0):
            ours = linear.MultiTaskElasticNet(0.1, ratio, tol=1e-10).fit(X, self.Y)
            peer = linear_model.MultiTaskElasticNet(alpha=0.1, l1_ratio=ratio, tol=1e-12)
            np.testing.assert_allclose(ours.coef_, peer.fit(X, self.Y).coef_, atol=1e-5)

    def test_cross_validation_agrees_with_scikit_learn(self):
        ours = linear.MultiTaskLassoCV(cv=3, alphas=[1.0, 0.1, 0.01, 0.001], tol=1e-10)
        peer = linear_model.MultiTaskLassoCV(cv=3, alphas=[1.0, 0.1, 0.01, 0.001], tol=1e-12)
        ours.fit(X, self.Y), peer.fit(X, self.Y)
        assert ours.alpha_ == peer.alpha_
        # Half the sum of squares here, their mean over the targets there.
        np.testing.assert_allclose(ours.cv_loss_, peer.mse_path_, rtol=1e-5)

    def test_scores_of_one_model_are_one_number(self):
        scaled = self.Y * [1, 100]
        one = linear.MultiTaskLasso(0.1).fit(X, scaled)
        other = linear.SparseGLM(
            datafits.MultiTaskSquares(), penalties.Rows(penalties.L1()), alpha=0.1
        ).fit(X, scaled)
        weight = np.random.default_rng(4).random(200)
        for extra in ({}, {"sample_weight": weight}):
            assert one.score(X, scaled, **extra) == pytest.approx(other.score(X, scaled, **extra))
        scaled[:, 0] = 1.0  # constant: scikit-learn gives 0 unless it is met
        assert one.score(X, scaled) == pytest.approx(other.score(X, scaled))


class TestClasses:
    y = np.where(REAL > 1.5, "rare", "often")

    def test_logarithms_of_probabilities_have_no_end(self):
        model = linear.SparseLogistic(1e-3).fit(X, self.y)
        logs = model.predict_log_proba(X)
        np.testing.assert_allclose(logs, np.log(model.predict_proba(X)), rtol=1e-9)
        assert np.all(np.isfinite(model.predict_log_proba(1e6 * X)))
        three = linear.SparseLogistic(1e-2).fit(X, np.digitize(REAL, [-1, 1]))
        np.testing.assert_allclose(np.exp(three.predict_log_proba(X)), three.predict_proba(X))
        assert np.all(np.isfinite(three.predict_log_proba(1e6 * X)))
        cross_val_predict(linear.SparseLogistic(), X, self.y, method="predict_log_proba", cv=3)

    @pytest.mark.parametrize("given", ["balanced", {"rare": 5.0, "often": 1.0}])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_class_weights_are_sample_weights(self, given, classes):
        y = self.y if classes == 2 else np.where(REAL < -2, "low", self.y)
        if isinstance(given, dict) and classes == 3:
            given = given | {"low": 3.0}
        base = np.random.default_rng(5).random(200)
        if given == "balanced":
            factor = {label: 1 / base[y == label].sum() for label in np.unique(y)}
        else:
            factor = given
        weight = base * np.array([factor[label] for label in y])
        one = linear.SparseLogistic(0.01, class_weight=given, tol=1e-10)
        one.fit(X, y, sample_weight=base)
        other = linear.SparseLogistic(0.01, tol=1e-10).fit(X, y, sample_weight=weight)
        np.testing.assert_allclose(one.coef_, other.coef_, atol=1e-6)
        plain = linear.SparseLogistic(0.01, tol=1e-10).fit(X, y, sample_weight=base)
        assert np.max(np.abs(one.coef_ - plain.coef_)) > 0.05

    def test_balanced_classes_agree_with_scikit_learn(self):
        ours = linear.SparseLogistic(0.02, class_weight="balanced", tol=1e-12).fit(X, self.y)
        peer = linear_model.LogisticRegression(
            C=1 / (200 * 0.02), l1_ratio=1.0, solver="saga", class_weight="balanced",
            tol=1e-10, max_iter=100_000,
        ).fit(X, self.y)  # fmt: skip
        np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-4)

    def test_they_are_checked(self):
        for wrong in ("even", 3, [1, 2]):
            with pytest.raises(OptionError, match="class_weight must be"):
                linear.SparseLogistic(class_weight=wrong).fit(X, self.y)
        with pytest.raises(ValueError, match="class_weight"):
            linear.SparseLogistic(class_weight={"seldom": 2.0}).fit(X, self.y)

    @pytest.mark.parametrize("ratio", [1.0, 0.5])
    def test_multinomial_fits_are_scikit_learns(self, ratio):
        y = np.digitize(REAL, [-1, 0, 1])
        ours = linear.SparseLogistic(0.02, ratio, tol=1e-12).fit(X, y)
        peer = linear_model.LogisticRegression(
            C=1 / (200 * 0.02), l1_ratio=ratio, solver="saga", tol=1e-10, max_iter=100_000
        ).fit(X, y)
        np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-5)
        # With an even number of classes all may move together, at no cost.
        np.testing.assert_allclose(
            np.abs(ours.coef_).sum(), np.abs(peer.coef_).sum(), rtol=1e-4 if ratio == 1 else 1e-3
        )


class TestGroups:
    y = X[:, 0] - X[:, 3]

    def test_labels_may_be_anything_that_is_told_apart(self):
        expected = linear.GroupLasso([0, 0, 1, 1], 0.1).fit(X, self.y).coef_
        for groups in (
            ["a", "a", "b", "b"],
            np.array(["a", "a", "b", "b"], dtype=object),
            [10, 10, 40, 40],
            [-1, -1, 2, 2],
            [0.5, 0.5, 1.5, 1.5],
            [False, False, True, True],
        ):
            for model in (
                linear.GroupLasso(groups, 0.1),
                linear.GroupLassoCV(groups=groups, alphas=[0.1]),
            ):
                np.testing.assert_allclose(model.fit(X, self.y).coef_, expected, atol=1e-5)

    def test_missing_labels_and_lists_are_refused(self):
        for groups in ([0, 0, np.nan, 1], [[0, 1], [2]], [0, None, 1, 1]):
            with pytest.raises(OptionError, match="groups must"):
                linear.GroupLasso(groups).fit(X, self.y)
        with pytest.raises(OptionError, match="groups has shape"):
            linear.GroupLasso([0, 1]).fit(X, self.y)

    def test_weights_of_groups(self):
        penalty = penalties.group_lasso([0, 0, 1, 1], weights=[0.0, 2.0])
        expected = linear.SparseGLM(penalty=penalty, alpha=0.3, tol=1e-10).fit(X, self.y).coef_
        for weights in ([0.0, 2.0], {"a": 0.0, "b": 2.0}):
            model = linear.GroupLasso(["a", "a", "b", "b"], 0.3, group_weights=weights, tol=1e-10)
            np.testing.assert_allclose(model.fit(X, self.y).coef_, expected, atol=1e-6)
        for wrong in ([1.0], {"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}):
            with pytest.raises(OptionError, match="group_weights"):
                linear.GroupLasso(["a", "a", "b", "b"], group_weights=wrong).fit(X, self.y)
        with pytest.raises(OptionError, match="negative"):
            linear.GroupLasso([0, 0, 1, 1], group_weights=[1.0, -1.0]).fit(X, self.y)

    def test_default_weights_are_the_roots_of_the_sizes(self):
        penalty = penalties.group_lasso([0, 1, 1, 1])
        np.testing.assert_allclose(penalty.radial.weights, [1, np.sqrt(3)])
        np.testing.assert_allclose(
            penalties.sparse_group_lasso([0, 1, 1, 1], 2.0, 0.25).radial.strength,
            [1.5, 1.5 * np.sqrt(3)],
        )


class TestUnitsOfQuantiles:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 2))

    @pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 1e5])
    @pytest.mark.parametrize("signal", [1.0, 1000.0])
    @pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
    def test_the_share_below_is_the_quantile_in_every_unit(self, unit, signal, quantile):
        rng = np.random.default_rng(1)
        y = (signal * self.X[:, 0] + rng.exponential(1, 500)) * unit
        loss = datafits.SmoothQuantile(quantile)
        model = linear.SparseGLM(loss, alpha=0.0).fit(self.X, y)
        assert np.mean(y <= model.predict(self.X)) == pytest.approx(quantile, abs=0.05)
        path = linear.SparseGLM(loss).path(self.X, y, alphas=[unit, 1e-9 * unit])
        below = y <= self.X @ path.coefs[-1] + path.intercepts[-1]
        assert np.mean(below) == pytest.approx(quantile, abs=0.05)

    def test_folds_are_judged_by_the_pinball_loss(self):
        y = (self.X[:, 0] + np.random.default_rng(1).exponential(1, 500)) * 1e-3
        loss = datafits.SmoothQuantile(0.9)
        model = linear.SparseGLMCV(loss, cv=2, alphas=[1e-5]).fit(self.X, y)
        own = linear.SparseGLM(loss, alpha=1e-5).fit(self.X[250:], y[250:])
        residual = y[:250] - own.predict(self.X[:250])
        pinball = np.mean(np.maximum(0.9 * residual, -0.1 * residual))
        assert model.cv_loss_[0, 0] == pytest.approx(pinball, rel=1e-2)

    def test_a_width_that_was_given_is_kept(self):
        loss = datafits.SmoothQuantile(0.5, 0.3)
        weight = np.full(4, 0.25)
        assert loss.in_units(np.arange(4.0), weight) is loss
        assert loss.sharpened(np.arange(4.0), np.zeros(4), weight) is None

    def test_a_target_with_many_ties_has_a_width(self):
        y = np.r_[np.zeros(90), np.ones(10)]
        loss = datafits.SmoothQuantile(0.5).in_units(y, np.full(100, 0.01))
        assert 0 < loss.width < 0.1
        assert datafits.SmoothQuantile().in_units(np.ones(5), np.full(5, 0.2)).width > 0


def test_penalties_tell_their_weights_apart():
    short = [penalties.L1(weights=np.array(w, dtype=float)) for w in ([1, 0, 5], [1, 0, 6])]
    assert repr(short[0]) == "L1(alpha=1.0, weights=[1., 0., 5.], positive=False)"
    assert repr(short[0]) != repr(short[1])
    long = [np.ones(1000) for _ in range(2)]
    long[1][500] = 2
    one, other = (repr(penalties.MCP(weights=w)) for w in long)
    assert one != other
    assert len(one) < 200
    groups = [penalties.group_lasso([0, 0, 1], weights=[1.0, w]) for w in (1.0, 2.0)]
    assert repr(groups[0]) != repr(groups[1])


def test_means_are_those_of_the_link():
    z = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(datafits.Poisson().mean(z), np.exp(z))
    np.testing.assert_allclose(datafits.PoissonIdentity(0.5).mean(z), z + 0.5)
    np.testing.assert_allclose(Offset(datafits.Poisson(), z).mean(z), np.exp(2 * z))
    np.testing.assert_allclose(datafits.Squares().mean(z), z)
