"""Local differential privacy: calibrated noise, both protocols, and what more people buy."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import OptionError
from thresher.core.prox import soft
from thresher.linear import LocallyPrivateRegression
from thresher.linear.regimes.private import _least_risk, gaussian_deviation


@parametrize_with_checks(
    [
        LocallyPrivateRegression(1e4, random_state=0),
        LocallyPrivateRegression(1e4, protocol="interactive", random_state=0),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("delta", [1e-6, 1e-2])
def test_noise_meets_the_definition_exactly(epsilon, delta):
    deviation = gaussian_deviation(epsilon, delta, 2.0)
    # The likelihood ratio of two Gaussians 2 apart exceeds exp(epsilon) beyond `at`.
    at = epsilon * deviation**2 / 2.0 + 1.0
    excess = norm.sf(at, 2.0, deviation) - np.exp(epsilon) * norm.sf(at, 0.0, deviation)
    assert excess == pytest.approx(delta, rel=1e-6)


def test_noise_at_small_epsilon_is_below_the_classical_formula():
    assert gaussian_deviation(0.5, 1e-5, 1.0) < np.sqrt(2 * np.log(1.25e5)) / 0.5


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200_000, 12))
    truth = np.zeros(12)
    truth[[1, 5]] = [0.7, -0.7]
    return X, X @ truth + 0.2 * rng.standard_normal(len(X)), truth


@pytest.mark.parametrize(
    ("options", "limit"),
    [({}, 0.5), ({"X_public": True}, 0.25), ({"protocol": "interactive", "k": 2}, 0.25)],
)
def test_recovers_support(options, limit, people):
    X, y, truth = people
    public = options.pop("X_public", None) and X[:2000]
    model = LocallyPrivateRegression(4.0, random_state=0, **options).fit(X, y, public)
    assert np.linalg.norm(model.coef_ - truth) < limit
    assert {1, 5} <= set(np.flatnonzero(model.coef_))


def test_reports_stay_within_their_norm(people):
    X, y, _ = people
    model = LocallyPrivateRegression(2.0, bound_x=0.5, bound_y=0.1, random_state=0).fit(100 * X, y)
    # One report is (x x^T, x y) with |x| at most 0.5 and |y| at most 0.1; two differ by twice.
    size = np.hypot(0.5**2, 0.5 * 0.1)
    assert model.noise_deviation_ == pytest.approx(gaussian_deviation(2.0, 1e-5, 2 * size))


def test_bad_options(people):
    X, y, _ = people
    with pytest.raises(OptionError, match="epsilon must be a finite number above 0, got -1"):
        LocallyPrivateRegression(-1).fit(X, y)
    with pytest.raises(OptionError, match="protocol must be"):
        LocallyPrivateRegression(protocol="central").fit(X, y)
    with pytest.raises(OptionError, match="cannot choose 13 of 12 features"):
        LocallyPrivateRegression(protocol="interactive", k=13).fit(X, y)
    with pytest.raises(OptionError, match=r"k must be a whole number of at least 1, got 2\.5"):
        LocallyPrivateRegression(protocol="interactive", k=2.5).fit(X, y)
    with pytest.raises(OptionError, match="rounds must be a whole number"):
        LocallyPrivateRegression(protocol="interactive", rounds=0).fit(X, y)
    with pytest.raises(
        OptionError, match="threshold must be a finite number of at least 0, got -1"
    ):
        LocallyPrivateRegression(threshold=-1).fit(X, y)
    with pytest.raises(OptionError, match="step must be a finite number above 0, got 0"):
        LocallyPrivateRegression(protocol="interactive", step=0).fit(X, y)


def test_the_interactive_protocol_refuses_public_rows(people):
    X, y, _ = people
    with pytest.raises(OptionError, match="no use for X_public"):
        LocallyPrivateRegression(protocol="interactive").fit(X, y, X[:100])


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize("features", [10, 40])
def test_the_default_threshold_beats_none(features, public):
    errors = []
    for seed in range(3):
        rng = np.random.default_rng((seed, features))
        X, truth = rng.standard_normal((160_000, features)), np.zeros(features)
        truth[:3] = rng.choice([-1, 1], 3) / np.sqrt(3)
        y = X @ truth + 0.2 * rng.standard_normal(len(X))
        rows = rng.standard_normal((5000, features)) if public else None
        models = [LocallyPrivateRegression(8.0, threshold=t, random_state=seed) for t in (None, 0)]
        errors.append([np.linalg.norm(m.fit(X, y, rows).coef_ - truth) for m in models])
    default, none = np.mean(errors, axis=0)
    assert default < none


def test_least_risk_is_steins_estimate():
    rng = np.random.default_rng(0)
    deviation = rng.uniform(0.5, 2, 50)
    truth = np.where(np.arange(50) < 5, 8.0, 0.0)
    estimate = truth + deviation * rng.standard_normal(50)

    def risk(multiple):
        """Return n's variance plus squared change plus twice the covariance with the noise."""
        changed = soft(estimate, multiple * deviation)
        slope = np.abs(estimate) > multiple * deviation
        change = np.sum((changed - estimate) ** 2)
        return change + np.sum((2 * slope - 1) * deviation**2)

    found = _least_risk(estimate, deviation)
    assert 0 < found <= np.sqrt(2 * np.log(50))
    assert risk(found) <= min(map(risk, np.linspace(0, np.sqrt(2 * np.log(50)), 400))) + 1e-9


def test_entries_far_above_the_noise_are_not_shrunk():
    assert _least_risk(np.full(20, 100.0), np.ones(20)) == 0


PROTOCOLS = {
    "non-interactive": {},
    "public": {},
    "interactive": {"protocol": "interactive", "k": 3, "rounds": 4, "step": 5.0},
}
protocols = pytest.mark.parametrize("name", PROTOCOLS)


class Listener(LocallyPrivateRegression):
    """Notes every mean before its noise, the norm it is randomised for, and how many sent."""

    def _randomised(self, mean, size, rng, people):
        sent = super()._randomised(mean, size, rng, people)
        self.heard.append((mean, size, people, sent))
        return sent


def heard(name, X, y, **options):
    options = PROTOCOLS[name] | {"bound_x": 2.0, "bound_y": 3.0, "random_state": 0} | options
    model = Listener(4.0, **options)
    model.heard = []
    public = np.eye(X.shape[1]) if name == "public" else None
    model.fit(X, y, public)
    return model, model.heard


def crowd():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((24, 3))
    return X, X @ [2.0, -1.0, 0.0]


@protocols
@pytest.mark.parametrize(("rows", "targets"), [(1.0, 1.0), (1e6, 1e6), (1.0, 1e6), (1e6, 1.0)])
def test_no_person_moves_a_mean_further_than_the_noise_hides(name, rows, targets):
    X, y = crowd()
    directions = [*np.eye(3), *-np.eye(3), np.ones(3)]
    found = 0.0
    for person in range(len(X)):
        # The same noise, one person other: at the first mean that differs, all before agree.
        means = []
        for direction in directions:
            for target in (3.0 * targets, -3.0 * targets):
                own, other = X.copy(), y.copy()
                own[person], other[person] = 2.0 * rows * direction, target
                means.append(heard(name, own, other)[1])
        for step in range(len(means[0])):
            reports = np.array([calls[step][0] for calls in means])
            _, size, people, _ = means[0][step]
            gaps = np.linalg.norm(reports[:, None] - reports, axis=-1)
            assert gaps.max() * people <= 2 * size * (1 + 1e-9)
            found = max(found, gaps.max() * people / (2 * size))
            if gaps.max() > 0:
                break
    # The bound is no larger than it must be: two people attain it, or nearly.
    assert found > 0.8 or rows > targets


@protocols
def test_everybody_answers_once(name):
    X, y = crowd()
    _, before = heard(name, X, y, step=0.1)  # short, so that no two gradients are clipped alike
    assert sum(people for _, _, people, _ in before) == len(X)
    moved = np.zeros(len(before), dtype=int)
    for person in range(len(X)):
        other = y.copy()
        other[person] = 3.0 if y[person] < 0 else -3.0
        _, after = heard(name, X, other, step=0.1)
        same = [np.array_equal(a[0], b[0]) for a, b in zip(before, after, strict=True)]
        moved[same.index(False)] += 1
    np.testing.assert_array_equal(moved, [people for _, _, people, _ in before])


@protocols
def test_the_noise_is_that_of_the_bound_over_those_who_answer(name):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 60))
    model, calls = heard(name, X, X[:, 0])
    for mean, size, people, sent in calls:
        deviation = gaussian_deviation(4.0, 1e-5, 2 * size)
        assert model.noise_deviation_ == pytest.approx(deviation)
        spread = np.sqrt(np.mean((sent - mean) ** 2) * people)
        assert spread == pytest.approx(deviation, rel=0.3)
    noises = np.array([sent - mean for mean, _, _, sent in calls])
    assert np.all(np.abs(np.corrcoef(noises) - np.eye(len(noises))) < 0.5) or len(noises) == 1
