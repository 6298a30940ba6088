"""Cox's loss: forms of the target, ties, and what censored data cannot tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.core.errors import DataError, OptionError
from thresher.linear import SparseGLM, SparseGLMCV
from thresher.solve.datafits import Cox
from thresher.solve.datafits.survival import concordance

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 3))
TIMES = np.ceil(2 * RNG.exponential(np.exp(-X @ [1, -0.5, 0])))
EVENTS = RNG.random(80) < 0.8
SIGNED = np.where(EVENTS, TIMES, -TIMES)


def likelihood(y, z, weight, efron):
    """Return the negative log partial likelihood, written out event by event."""
    time, seen, total = np.abs(y), ~np.signbit(y), 0.0
    risk = weight * np.exp(z)
    for at in np.unique(time[seen]):
        dead = seen & (time == at) & (weight > 0)
        mean = weight[dead].sum() / max(dead.sum(), 1)
        for place in range(dead.sum()):
            left_out = place / dead.sum() if efron else 0.0
            total += mean * np.log(risk[time >= at].sum() - left_out * risk[dead].sum())
        total -= weight[dead] @ z[dead]
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_the_loss_and_its_derivatives_are_those_of_the_likelihood(seed, efron):
    rng = np.random.default_rng(seed)
    time = rng.integers(0, 6, 15).astype(float)
    y = np.where(rng.random(15) < 0.7, time, -time)
    y[0] = abs(y[0])
    z, weight = rng.standard_normal(15), rng.integers(0, 3, 15) / 7
    weight[0] = 0.2
    loss = Cox("efron" if efron else "breslow")
    assert loss.value(y, z, weight) == pytest.approx(likelihood(y, z, weight, efron))
    for i in range(15):
        step = 1e-5 * np.eye(15)[i]
        slope = likelihood(y, z + step, weight, efron) - likelihood(y, z - step, weight, efron)
        assert loss.gradient(y, z, weight)[i] == pytest.approx(slope / 2e-5, abs=1e-8)
    hessian = np.array(
        [
            (loss.gradient(y, z + s, weight) - loss.gradient(y, z - s, weight)) / 2e-5
            for s in 1e-5 * np.eye(15)
        ]
    )
    gap = np.diag(loss.curvature(y, z, weight)) - hessian
    assert np.linalg.eigvalsh((gap + gap.T) / 2).min() > -1e-6


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_fits_agree_with_statsmodels(ties):
    sm = pytest.importorskip("statsmodels.api")
    peer = sm.PHReg(TIMES, X, status=EVENTS.astype(int), ties=ties).fit(disp=0).params
    model = SparseGLM(Cox(ties), alpha=0.0, tol=1e-9).fit(X, SIGNED)
    np.testing.assert_allclose(model.coef_, peer, atol=1e-4)


def test_targets_in_every_form_are_the_same():
    pair = np.column_stack([TIMES, EVENTS])
    fields = np.empty(80, dtype=[("death", bool), ("days", float)])
    fields["death"], fields["days"] = EVENTS, TIMES
    other = fields[["days", "death"]]
    expected = SparseGLM(Cox(), alpha=0.01).fit(X, SIGNED)
    for y in (pair, fields, other, SIGNED.astype(int), list(SIGNED)):
        model = SparseGLM(Cox(), alpha=0.01).fit(X, y)
        np.testing.assert_array_equal(model.coef_, expected.coef_)
        assert model.score(X, y) == expected.score(X, SIGNED)
    chosen = SparseGLMCV(Cox(), cv=3, n_alphas=5)
    assert (
        chosen.fit(X, fields).alpha_ == SparseGLMCV(Cox(), cv=3, n_alphas=5).fit(X, SIGNED).alpha_
    )


def test_a_time_of_zero_keeps_its_event():
    times = TIMES - 1
    pair = np.column_stack([times, EVENTS])
    signed = np.where(EVENTS, times, -times)
    one, other = (SparseGLM(Cox(), alpha=0.01).fit(X, y) for y in (pair, signed))
    np.testing.assert_array_equal(one.coef_, other.coef_)
    assert concordance(np.array([0.0, -0.0]), np.array([1.0, 0.0])) == 1
    with pytest.raises(DataError, match="zero has no sign in whole numbers"):
        SparseGLM(Cox()).fit(X, signed.astype(int))


def test_targets_that_do_not_tell_the_event_are_refused():
    for y, message in (
        (np.column_stack([TIMES, TIMES]), "must be 0 or 1"),
        (np.column_stack([-TIMES, EVENTS]), "must not be negative"),
        (np.array(list(zip(TIMES, TIMES, strict=True)), dtype="f8,f8"), "one boolean field"),
        (np.column_stack([TIMES, 0 * TIMES]), "no event was seen"),
        (-TIMES, "no event was seen"),
    ):
        with pytest.raises(DataError, match=message):
            SparseGLM(Cox()).fit(X, y)
    with pytest.raises(OptionError, match="ties='exact' is not known"):
        Cox("exact")
