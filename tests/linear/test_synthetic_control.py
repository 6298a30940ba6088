"""L-infinity synthetic control: its penalty, its optimum and its effect."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import OptionError
from thresher.linear import SyntheticControl
from thresher.solve.penalties import L1LInf


@parametrize_with_checks([SyntheticControl(0.1), SyntheticControl(0.1, 0.5)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_prox_is_the_minimiser(l1_ratio, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(5)
    penalty = L1LInf(0.8, l1_ratio)
    found = penalty.prox(x, 0.7)

    def objective(z):
        return 0.5 * np.sum((z - x) ** 2) + 0.7 * penalty.value(z)

    others = found + 10.0 ** -rng.integers(1, 6, (2000, 1)) * rng.standard_normal((2000, 5))
    assert objective(found) <= min(objective(z) for z in others) + 1e-12
    direct = minimize(objective, x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    assert objective(found) <= direct.fun + 1e-9


def test_spreads_weights_where_units_are_alike():
    rng = np.random.default_rng(0)
    common = rng.standard_normal(40)
    X = common[:, None] + 0.5 * rng.standard_normal((40, 10))
    model = SyntheticControl(0.05).fit(X, common + 3.0)
    assert np.abs(model.coef_).max() < 2.5 * np.abs(model.coef_).mean()
    effect = model.effect(X[:5], common[:5] + 3.0 + 7.0)
    np.testing.assert_allclose(effect, 7.0, atol=1.5)


def test_options_out_of_range():
    with pytest.raises(OptionError, match="l1_ratio must be a number from 0 to 1"):
        SyntheticControl(1.0, 2.0).fit(np.eye(3), np.ones(3))
