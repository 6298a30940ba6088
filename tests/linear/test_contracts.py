"""One contract for every class of the room that fits, however its fit is called.

Classes whose ``fit(X, y)`` is scikit-learn's pass scikit-learn's own checks besides, in the files
of their families.
"""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from thresher import linear
from thresher.core.card import area_of, catalogue
from thresher.linear import datafits, penalties, solvers
from thresher.linear.recovery.unrolled import CompoundGaussianNetwork, UnfoldedThresholding

# Silent here: what they say is tested where they are.
pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass(frozen=True)
class Case:
    """A class of the room, and how it is fitted.

    Parameters
    ----------
    subject : type
        The class that is tested.
    make : callable
        Returns an estimator, not fitted.
    data : callable
        Returns the arguments of its ``fit`` by name.
    predict : dict of str to str
        For each method that needs a fit, which arguments of ``fit`` it takes, in order.
    """

    subject: type
    make: Callable[[], Any]
    data: Callable[[], dict[str, Any]]
    predict: dict[str, tuple[str, ...]] = field(default_factory=dict)


def regression() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 8))
    return {"X": X, "y": X[:, :2].sum(axis=1) + 0.1 * rng.standard_normal(60)}


def positive() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.random((60, 8))
    return {"X": X, "y": rng.poisson(X[:, :2].sum(axis=1) * 3.0).astype(float)}


def classes() -> dict[str, Any]:
    data = regression()
    return {"X": data["X"], "y": (data["y"] > 0).astype(float)}


def indicators() -> dict[str, Any]:
    data = regression()
    return {"X": data["X"], "y": np.eye(3)[np.digitize(data["y"], [-0.5, 0.5])]}


def times() -> dict[str, Any]:
    data = regression()
    return {"X": data["X"], "y": np.exp(data["y"])}


def tasks() -> dict[str, Any]:
    data = regression()
    return {"X": data["X"], "y": np.column_stack([data["y"], -data["y"]])}


def simultaneous() -> dict[str, Any]:
    data = tasks()
    return {"X": data["X"], "Y": data["y"]}


def matrix() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 2)) @ rng.standard_normal((2, 12))
    X[rng.random(X.shape) < 0.2] = np.nan
    return {"X": X}


def kronecker() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    factors = [rng.standard_normal((5, 6)), rng.standard_normal((4, 5))]
    x = np.kron(np.arange(6) < 2, np.arange(5) < 2).astype(float)
    return {"factors": factors, "y": np.kron(*factors) @ x}


def calibration() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((3, 30, 10)), rng.standard_normal(10)
    return {"A": A, "Y": rng.uniform(0.5, 2, 30) * (A @ x)}


def phases() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((120, 20)), np.zeros(20)
    x[[3, 11]] = [1.5, -1.0]
    return {"A": A, "y": np.abs(A @ x)}


def selection() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((8, 2)))[0]
    heads = rng.standard_normal((2, 6))
    X = rng.standard_normal((40, 8))

    def sample(counts):
        own = np.random.default_rng(int(np.sum(counts)))  # the same sample for the same question
        drawn = [own.standard_normal((count, 8)) for count in counts]
        return [(F, F @ basis @ heads[:, i]) for i, F in enumerate(drawn)]

    return {"sample": sample, "X": X, "y": X @ basis @ heads[:, 0], "n_tasks": 6}


def paths() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    times = [np.linspace(0, 1, 15) for _ in range(12)]
    walks = [np.cumsum(rng.standard_normal((15, 2)), axis=0) / 4 for _ in range(12)]
    seen = [np.column_stack([at, walk]) for at, walk in zip(times, walks, strict=True)]
    return {"paths": seen, "times": times, "y": [walk[:, 0] ** 2 for walk in walks]}


def batches() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((160, 4))
    groups = np.repeat(np.arange(20), 8)
    return {"X": X, "y": X @ [3.0, -2, 1, 0] + rng.standard_normal(160), "groups": groups}


def sensing(*names: str) -> Callable[[], dict[str, Any]]:
    def data() -> dict[str, Any]:
        rng = np.random.default_rng(0)
        A = rng.standard_normal((12, 16))
        A /= np.linalg.norm(A, axis=0)
        X = rng.standard_normal((40, 16)) * (rng.random((40, 16)) < 0.4)
        arrays = {"A": A, "X": X, "B": X @ A.T}
        return {name: arrays[name] for name in names}

    return data


class Explained(BaseEstimator):
    """Representers, fitted: of a Lasso of the same data."""

    def fit(self, X, y):
        model = linear.Lasso(0.1, tol=1e-10).fit(X, y)
        self.representers_ = linear.Representers(model, X, y)
        self.pull_ = self.representers_.pull_
        return self


class Minimised(BaseEstimator):
    """ZerothOrderFrankWolfe on a least squares loss."""

    def fit(self, X, y):
        method = linear.ZerothOrderFrankWolfe(penalties.L1Ball(2.0), max_iter=200)
        self.point_ = method.minimise(lambda w, rng: np.mean((X @ w - y) ** 2), np.zeros(8))
        return self


def solved(solver: type, datafit: Any, penalty: Any, data=regression, **options: Any) -> Case:
    def make() -> linear.SparseGLM:
        return linear.SparseGLM(datafit, penalty, solver=solver(), **options)

    return Case(solver, make, data, {"predict": ("X",)})


def standard(estimator: Any, data=regression, method: str = "predict") -> Case:
    return Case(type(estimator), lambda: clone(estimator), data, {method: ("X",)})


L1 = penalties.L1(0.05)
CASES = [
    *(
        standard(estimator)
        for estimator in [
            linear.Lasso(0.1), linear.ElasticNet(0.1), linear.GroupLasso(alpha=0.1),
            linear.SparseGLM(alpha=0.1), linear.OrthogonalMatchingPursuit(3),
            linear.BestSubset(3), linear.SparseBayes(), linear.LossOMP(3),
            linear.LassoCV(n_alphas=5, cv=2), linear.ElasticNetCV(n_alphas=5, cv=2),
            linear.GroupLassoCV(n_alphas=5, cv=2), linear.ClusteredBayes(max_iter=2000),
            linear.CompoundGaussian(), linear.GAMPBayes(max_iter=2000),
            linear.LassoMixtureOfExperts(starts=1, random_state=0),
            linear.LocallyPrivateRegression(random_state=0), linear.ProjectedLasso(2),
            linear.SketchedRegression(random_state=0), linear.SyntheticControl(0.1),
            linear.LARS(3), linear.SparseGLMCV(n_alphas=5, cv=2), linear.DebiasedLasso(0.1),
            linear.ThresholdingWithFeedback(3), linear.ZeroImputedRegression(),
        ]
    ),
    standard(linear.StabilitySelection(n_pairs=3, n_alphas=4, random_state=0), method="transform"),
    standard(
        linear.KnockoffSelection(linear.Lasso(0.01), fdr=0.6, random_state=0), method="transform"
    ),
    standard(linear.SurvivalCurves(linear.SparseGLM(datafits.Cox(), alpha=0.1)), times),
    standard(linear.MultiTaskLasso(0.1), tasks),
    standard(linear.MultiTaskElasticNet(0.1), tasks),
    standard(linear.MultiTaskLassoCV(n_alphas=5, cv=2), tasks),
    standard(linear.MultiTaskElasticNetCV(n_alphas=5, cv=2), tasks),
    standard(linear.SparseLogistic(), classes),
    standard(linear.SparseLogisticCV(n_alphas=3, cv=2), classes),
    standard(linear.ScoringSystem(node_limit=1), classes),
    standard(linear.AlternatingCompletion(random_state=0), matrix, "transform"),
    standard(linear.OneSidedCompletion(), matrix, "transform"),
    Case(linear.SimultaneousGLM, lambda: linear.SimultaneousGLM(n_alphas=3), simultaneous),
    Case(linear.KroneckerBayes, linear.KroneckerBayes, kronecker),
    Case(linear.SelfCalibration, linear.SelfCalibration, calibration),
    Case(linear.SparsePhaseRetrieval, lambda: linear.SparsePhaseRetrieval(2), phases),
    Case(linear.TaskSelection, lambda: linear.TaskSelection(2, budget=600), selection),
    Case(
        linear.SignatureLasso, lambda: linear.SignatureLasso(2, max_folds=3), paths,
        {"predict": ("paths", "times")},
    ),
    Case(linear.ListDecodableRegression, linear.ListDecodableRegression, batches),
    Case(
        linear.HyperLISTA, lambda: linear.HyperLISTA(4, max_evaluations=10),
        sensing("A", "X", "B"), {"predict": ("B",)},
    ),
    Case(
        UnfoldedThresholding, lambda: UnfoldedThresholding(3, updates=5),
        sensing("A", "B", "X"), {"predict": ("B",)},
    ),
    Case(
        CompoundGaussianNetwork, lambda: CompoundGaussianNetwork(1, updates=3),
        sensing("A", "B", "X"), {"predict": ("B",)},
    ),
    Case(linear.Representers, Explained, regression),
    Case(linear.ZerothOrderFrankWolfe, Minimised, regression),
    solved(solvers.CoordinateDescent, datafits.Huber(), L1),
    solved(solvers.GroupDescent, None, penalties.group_lasso(np.arange(8) // 2, 0.05)),
    solved(solvers.ProximalGradient, None, penalties.Slope(0.05)),
    solved(solvers.ClassDescent, datafits.Multinomial(), L1, indicators),
    solved(solvers.AcceleratedConcave, None, penalties.MCP(0.05)),
    solved(solvers.FrankWolfe, None, penalties.L1Ball(1.0)),
    solved(solvers.GreedyBlocks, None, L1),
    solved(solvers.LocalSearch, None, penalties.L0(0.05)),
    solved(solvers.StochasticModels, datafits.AbsoluteError(), L1),
    solved(
        solvers.Spiral, datafits.PoissonIdentity(0.1), penalties.L1(0.01, positive=True),
        positive, fit_intercept=False,
    ),
]  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.subject.__name__)

# What scikit-learn sets, and what all of its users know.
_ITS_OWN = {"n_features_in_", "feature_names_in_"}


def fitted(case: Case, **changed: Any) -> Any:
    return case.make().fit(**(case.data() | changed))


def attributes(estimator: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_") and name not in _ITS_OWN
    }


def leaves(value: Any) -> list[np.ndarray]:
    """Return the numbers inside an attribute as a list of arrays."""
    if hasattr(value, "toarray"):
        return [value.toarray()]
    if hasattr(value, "detach"):
        return [value.detach().numpy()]
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    array = np.asarray(value)
    return [array] if array.dtype.kind in "biufcUS" else []


def same(one: Any, other: Any) -> None:
    first, second = leaves(one), leaves(other)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def outputs(case: Case, estimator: Any) -> list[Any]:
    data = case.data()
    return [
        getattr(estimator, method)(*(data[name] for name in names))
        for method, names in case.predict.items()
    ]


def float_arguments(data: dict[str, Any]) -> list[str]:
    return [
        name
        for name, value in data.items()
        if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype.kind == "f")
    ]


def test_every_class_of_the_room_is_in_the_contract():
    methods = {method for method in catalogue().values() if area_of(method) in ("linear", "solve")}
    public = {getattr(linear, name) for name in linear.__all__}
    estimators = {
        thing for thing in public if isinstance(thing, type) and issubclass(thing, BaseEstimator)
    }
    listed = {getattr(solvers, name) for name in solvers.__all__}
    made = {thing for thing in listed if issubclass(thing, solvers.Solver)} - {solvers.Solver}
    assert methods | estimators | made <= {case.subject for case in CASES}


@every_case
def test_the_same_fit_twice_is_the_same(case):
    one, other = attributes(fitted(case)), attributes(fitted(case))
    assert one.keys() == other.keys()
    assert one
    for name in one:
        same(one[name], other[name])


@every_case
def test_arguments_are_left_as_they_were(case):
    data = case.data()
    kept = copy.deepcopy({name: data[name] for name in float_arguments(data)})
    estimator = case.make()
    options = copy.deepcopy(estimator.get_params())
    estimator.fit(**data)
    for name, value in kept.items():
        same(data[name], value)
    assert repr(estimator.get_params()) == repr(options)


@every_case
def test_clones_are_equal_and_pickles_predict_the_same(case):
    estimator = case.make()
    assert repr(clone(estimator).get_params()) == repr(estimator.get_params())
    model = fitted(case)
    again = pickle.loads(pickle.dumps(model))
    for name, value in attributes(model).items():
        same(getattr(again, name), value)
    for one, other in zip(outputs(case, model), outputs(case, again), strict=True):
        same(one, other)


def spoilt(value: Any, number: float) -> Any:
    if isinstance(value, list):
        return [spoilt(value[0], number), *value[1:]]
    value = np.array(value)
    value.flat[1] = number
    return value


@every_case
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_a_number_is_refused(case, number):
    data = case.data()
    missing = case.make().__sklearn_tags__().input_tags.allow_nan and np.isnan(number)
    for name in float_arguments(data):
        if not (missing and name == "X"):
            with pytest.raises(ValueError, match=r"(?i)nan|inf|finite"):
                fitted(case, **{name: spoilt(data[name], number)})


@every_case
def test_lengths_that_differ_are_refused(case):
    data = case.data()
    for name in float_arguments(data):
        if name in ("y", "Y", "B", "times"):
            # Of several targets in columns the samples are rows, of several signals they are last.
            rows = name != "Y" or case.data is simultaneous
            shorter = data[name][:-1] if rows else data[name][..., :-1]
            with pytest.raises(ValueError, match=r"\d"):  # the sizes are named
                fitted(case, **{name: shorter})


@every_case
def test_single_precision_is_taken(case):
    data = case.data()

    def single(value: Any) -> Any:
        return [single(v) for v in value] if isinstance(value, list) else value.astype(np.float32)

    model = fitted(case, **{name: single(data[name]) for name in float_arguments(data)})
    for value in attributes(model).values():
        for leaf in leaves(value):
            if leaf.dtype.kind == "f":
                assert np.all(np.isfinite(leaf))


@every_case
def test_fitted_attributes_are_documented(case):
    # What a base class documents, its subclasses refer to.
    text = "".join(base.__doc__ or "" for base in case.subject.__mro__)
    if issubclass(case.subject, solvers.Solver) or case.make in (Explained, Minimised):
        return  # a solver returns what it found; its class holds options alone
    missing = [name for name in attributes(fitted(case)) if name not in text]
    assert not missing


@every_case
def test_predicting_before_fitting_says_so(case):
    data = case.data()
    for method, names in case.predict.items():
        with pytest.raises(NotFittedError):
            getattr(case.make(), method)(*(data[name] for name in names))
