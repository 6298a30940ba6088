"""scikit-learn's checks, and agreement with scikit-learn where the two overlap."""

import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher import linear
from thresher.core.errors import DataError, OptionError

ESTIMATORS = [
    linear.Lasso(alpha=0.1),
    linear.ElasticNet(alpha=0.1),
    linear.GroupLasso(alpha=0.1),
    linear.MultiTaskLasso(alpha=0.1),
    linear.MultiTaskElasticNet(alpha=0.1),
    linear.MultiTaskLassoCV(n_alphas=5, cv=2, tol=1e-12),
    linear.MultiTaskElasticNetCV(n_alphas=5, cv=2, tol=1e-12),
    linear.SparseGLM(alpha=0.1),
    linear.SparseLogistic(),
    linear.OrthogonalMatchingPursuit(),
    linear.BestSubset(),
    linear.LARS(),
    linear.LARS(method="lasso"),
    linear.SparseBayes(),
    # Weighted and repeated samples agree to the tolerance of the check only at convergence.
    linear.LassoCV(n_alphas=5, cv=2, tol=1e-12),
    linear.ElasticNetCV(n_alphas=5, cv=2, tol=1e-12),
    linear.GroupLassoCV(n_alphas=5, cv=2, tol=1e-12),
    linear.SparseGLMCV(penalty=linear.penalties.MCP(), n_alphas=5, cv=2),
    linear.SparseLogisticCV(n_alphas=3, eps=0.1, cv=2, tol=1e-10),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 200)) + rng.random(200)
    return X, X[:, :5] @ np.array([2.0, -1, 1, 3, -2]) + rng.standard_normal(80)


@pytest.mark.parametrize("layout", [np.asarray, sparse.csc_array, sparse.csr_matrix])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_lasso_and_elastic_net_agree_with_scikit_learn(regression, layout, weighted, positive):
    X, y = regression
    weight = np.random.default_rng(1).random(len(y)) if weighted else None
    options = {"alpha": 0.2, "positive": positive}
    peer_options = options | {"tol": 1e-12, "max_iter": 100_000}
    for ours, peer in [
        (linear.Lasso(**options, tol=1e-14), linear_model.Lasso(**peer_options)),
        (linear.ElasticNet(**options, tol=1e-14), linear_model.ElasticNet(**peer_options)),
    ]:
        ours.fit(layout(X), y, sample_weight=weight)
        peer.fit(X, y, sample_weight=weight)
        np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-6)
        assert ours.intercept_ == pytest.approx(peer.intercept_, abs=1e-6)
        np.testing.assert_allclose(ours.predict(layout(X)), peer.predict(X), atol=1e-5)


def test_multi_task_lasso_agrees_with_scikit_learn(regression):
    X, _ = regression
    rng = np.random.default_rng(2)
    Y = X[:, :4] @ rng.standard_normal((4, 3)) + rng.standard_normal((80, 3))
    ours = linear.MultiTaskLasso(alpha=0.3, tol=1e-13).fit(X, Y)
    peer = linear_model.MultiTaskLasso(alpha=0.3, tol=1e-12, max_iter=100_000).fit(X, Y)
    np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.intercept_, peer.intercept_, atol=1e-6)


def test_group_lasso_of_single_features_is_the_lasso(regression):
    X, y = regression
    group = linear.GroupLasso(alpha=0.2, tol=1e-13).fit(X, y)
    np.testing.assert_allclose(group.coef_, linear.Lasso(0.2, tol=1e-13).fit(X, y).coef_, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_agrees_with_scikit_learn(classes):
    X, y = make_classification(120, 20, n_informative=6, n_classes=classes, random_state=0)
    ours = linear.SparseLogistic(alpha=0.02, tol=1e-12).fit(X, y)
    peer = linear_model.LogisticRegression(
        l1_ratio=1.0, C=1 / (0.02 * len(y)), solver="saga", tol=1e-10, max_iter=200_000
    ).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(ours.coef_ != 0, np.abs(peer.coef_) > 1e-7)


def test_poisson_without_penalty_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4))
    y = rng.poisson(np.exp(X @ [0.5, -0.3, 0.0, 0.2] + 0.3))
    ours = linear.SparseGLM(linear.datafits.Poisson(), linear.penalties.L1(0.0), tol=1e-10).fit(
        X, y
    )
    peer = linear_model.PoissonRegressor(alpha=0.0, tol=1e-12, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.predict(X), peer.predict(X), atol=1e-5)


def test_path_ends_where_single_fits_do(regression):
    X, y = regression
    path = linear.Lasso(tol=1e-10).path(X, y, n_alphas=8)
    assert np.count_nonzero(path.coefs[0]) == 0
    for k in (3, 7):
        single = linear.Lasso(path.alphas[k], tol=1e-10).fit(X, y)
        np.testing.assert_allclose(path.coefs[k], single.coef_, atol=1e-6)
        assert path.intercepts[k] == pytest.approx(single.intercept_, abs=1e-6)


def test_cross_validation_agrees_with_scikit_learn(regression):
    X, y = regression
    alphas = np.geomspace(1.0, 0.05, 10)
    ours = linear.LassoCV(alphas=alphas, cv=4, tol=1e-10).fit(X, y)
    peer = linear_model.LassoCV(alphas=alphas, cv=4, tol=1e-10, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(2 * ours.cv_loss_, peer.mse_path_, rtol=1e-5)
    assert ours.alpha_ == pytest.approx(peer.alpha_)
    np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-6)


def test_data_frames_pipelines_and_grid_search(regression):
    pandas = pytest.importorskip("pandas")
    X, y = regression
    frame = pandas.DataFrame(X[:, :20], columns=[f"gene {j}" for j in range(20)])
    search = GridSearchCV(
        make_pipeline(StandardScaler().set_output(transform="pandas"), linear.Lasso()),
        {"lasso__alpha": [0.1, 1.0]},
        cv=3,
    ).fit(frame, y)
    assert list(search.best_estimator_[-1].feature_names_in_) == list(frame.columns)
    assert search.best_score_ > 0.3


def test_displays_draw(regression):
    pytest.importorskip("matplotlib").use("agg")
    X, y = regression
    drawn = linear.PathDisplay.from_estimator(linear.Lasso(), X, y, n_alphas=5)
    assert len(drawn.ax_.lines) > 0
    assert drawn.ax_.xaxis_inverted()
    curve = linear.CVDisplay.from_estimator(linear.LassoCV(n_alphas=5, cv=2).fit(X, y))
    assert len(curve.ax_.lines) == 2


def test_a_path_names_the_features_that_peak_highest():
    pytest.importorskip("matplotlib").use("agg")
    coefs = np.array([[0.0, 0.0, 0.0], [0.9, 0.2, 0.0], [0.1, 0.3, 0.5]])
    path = linear.Path(np.array([1.0, 0.5, 0.1]), coefs, *np.zeros((3, 3)))
    legend = linear.PathDisplay(path).plot(labels=2).ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["x0", "x2"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alphas", [[1.0, 0.1, 0.0], [0.0]])
def test_strength_zero_is_drawn(alphas, regression):
    pytest.importorskip("matplotlib").use("agg")
    path = linear.Path(np.array(alphas), np.ones((len(alphas), 2)), *np.zeros((3, len(alphas))))
    curve = linear.CVDisplay(np.array(alphas), np.ones((len(alphas), 3)), 0.0)
    for display in (linear.PathDisplay(path).plot(), curve.plot()):
        display.figure_.canvas.draw()
        left, right = display.ax_.get_xlim()
        assert right <= 0.0 < left or right < 0.0 <= left
        if len(alphas) > 1:
            assert right >= -0.1  # the least strength that the logarithm has a place for
        points = display.ax_.transData.transform([(alpha, 1.0) for alpha in alphas])
        assert np.all(np.isfinite(points))


def test_a_path_of_least_angles_is_drawn_and_none_is_refused(regression):
    pytest.importorskip("matplotlib").use("agg")
    X, y = regression
    drawn = linear.PathDisplay.from_estimator(linear.LARS(4), X, y)
    assert len(drawn.ax_.lines) == 4
    np.testing.assert_array_equal(drawn.path.coefs, linear.LARS(4).fit(X, y).path_.coefs)
    with pytest.raises(OptionError, match="OrthogonalMatchingPursuit has no path to draw"):
        linear.PathDisplay.from_estimator(linear.OrthogonalMatchingPursuit(), X, y)


def test_wrong_names_and_labels_are_refused():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("agg")
    path = linear.Path(np.array([1.0, 0.5]), np.array([[0.0, 0.0], [1.0, 2.0]]), *np.zeros((3, 2)))
    named = linear.PathDisplay(path, pandas.Series(["a", "b"], index=[7, 5])).plot()
    assert [text.get_text() for text in named.ax_.get_legend().get_texts()] == ["a", "b"]
    with pytest.raises(OptionError, match="feature_names holds 1 names for 2 features"):
        linear.PathDisplay(path, ["a"]).plot()
    with pytest.raises(OptionError, match="labels must be a whole number of at least 0, got 'x'"):
        linear.PathDisplay(path).plot(labels="x")


def test_several_outputs_are_drawn_as_norms_or_one_at_a_time():
    pytest.importorskip("matplotlib").use("agg")
    coefs = np.zeros((2, 3, 2))
    coefs[1, 2] = [3.0, -4.0]
    display = linear.PathDisplay(linear.Path(np.array([1.0, 0.5]), coefs, *np.zeros((3, 2))))
    for output, height, said in (
        (None, 5.0, "norm of the coefficients of 2 outputs"),
        (1, -4.0, "coefficient of output 1"),
    ):
        ax = display.plot(output=output).ax_
        assert ax.lines[0].get_ydata()[1] == height
        assert ax.get_ylabel() == said
    with pytest.raises(OptionError, match="there is no output 2; the path has 2"):
        display.plot(output=2)


def test_unmet_tolerance_is_announced_with_the_gap(regression):
    X, y = regression
    with pytest.warns(ConvergenceWarning, match=r"the duality gap is .* of its scale after 1 "):
        linear.Lasso(alpha=1e-4, tol=1e-12, max_iter=1).fit(X, y)


def test_single_precision_is_kept(regression):
    X, y = regression
    model = linear.Lasso(0.2).fit(X.astype(np.float32), y)
    assert model.coef_.dtype == np.float32
    np.testing.assert_allclose(model.coef_, linear.Lasso(0.2).fit(X, y).coef_, atol=1e-3)


class TestDegenerateInputs:
    @pytest.mark.parametrize("layout", [np.asarray, sparse.csc_array])
    def test_constant_duplicate_and_zero_columns(self, layout):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((30, 6))
        X[:, 1] = 0.1
        X[:, 2] = X[:, 0]
        X[:, 3] = 0.0
        y = X[:, 0] + 5.0
        model = linear.Lasso(0.01, tol=1e-10).fit(layout(X), y)
        assert model.coef_[1] == model.coef_[3] == 0
        assert np.all(np.isfinite(model.coef_))
        assert model.coef_[0] + model.coef_[2] == pytest.approx(0.99, abs=0.02)

    @pytest.mark.parametrize("shape", [(1, 3), (10, 1), (1, 1)])
    def test_single_rows_and_columns(self, shape):
        X = np.random.default_rng(0).standard_normal(shape)
        model = linear.Lasso(0.01).fit(X, np.arange(shape[0], dtype=float))
        assert model.coef_.shape == (shape[1],)
        assert np.all(np.isfinite(model.predict(X)))

    def test_zero_rows_and_constant_target(self):
        X = np.zeros((10, 4))
        X[:3] = np.random.default_rng(0).standard_normal((3, 4))
        model = linear.Lasso(0.01).fit(X, np.full(10, 7.0))
        assert np.all(model.coef_ == 0)
        assert model.intercept_ == pytest.approx(7.0)

    @pytest.mark.parametrize("scale_x", [1e-150, 1.0, 1e150])
    @pytest.mark.parametrize("scale_y", [1e-150, 1.0, 1e150])
    def test_huge_and_tiny_units(self, regression, scale_x, scale_y):
        X, y = regression
        plain = linear.Lasso(0.2, tol=1e-8).fit(X, y)
        model = linear.Lasso(0.2 * scale_x * scale_y, tol=1e-8).fit(X * scale_x, y * scale_y)
        np.testing.assert_allclose(model.coef_ * (scale_x / scale_y), plain.coef_, atol=1e-5)

    def test_not_a_number_gets_scikit_learns_message(self, regression):
        X, y = regression
        broken = X.copy()
        broken[3, 4] = np.nan
        with pytest.raises(ValueError, match="Input X contains NaN"):
            linear.Lasso().fit(broken, y)

    def test_wrong_shapes_and_values_are_named(self, regression):
        X, y = regression
        with pytest.raises(OptionError, match="weights has shape"):
            linear.Lasso(weights=np.ones(3)).fit(X, y)
        with pytest.raises(OptionError, match="groups has shape"):
            linear.GroupLasso(groups=[0, 1]).fit(X, y)
        with pytest.raises(DataError, match="negative target"):
            linear.SparseGLM(linear.datafits.Poisson()).fit(X, y)
        with pytest.raises(DataError, match="one class"):
            linear.SparseLogistic().fit(X, np.ones(len(y)))


def test_threads_do_not_change_the_solution(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 3000))  # large enough that loops are split
    y = X[:, :5].sum(axis=1) + rng.standard_normal(500)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(linear.Lasso().path(X, y, n_alphas=5, eps=0.1).coefs)
    np.testing.assert_array_equal(*found)
