"""Cox's loss: forms of the target, ties, and what censored data cannot tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.core.errors import DataError, OptionError
from thresher.linear import SparseGLM, SparseGLMCV, SurvivalCurves
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


def steps(y, z, weight, efron):
    """Return the jumps of the cumulative hazard, written out event by event."""
    time, seen, found = np.abs(y), ~np.signbit(y), {}
    risk = weight * np.exp(z)
    for at in np.unique(time):
        dead = seen & (time == at) & (weight > 0)
        mean = weight[dead].sum() / max(dead.sum(), 1)
        left_out = [place / dead.sum() if efron else 0.0 for place in range(dead.sum())]
        met = [risk[time >= at].sum() - share * risk[dead].sum() for share in left_out]
        found[at] = sum(mean / each for each in met)
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_the_hazard_is_what_every_event_adds(seed, efron):
    rng = np.random.default_rng(seed)
    time = rng.integers(0, 6, 15).astype(float)
    y = np.where(rng.random(15) < 0.7, time, -time)
    y[0] = abs(y[0])
    z, weight = rng.standard_normal(15), rng.integers(1, 3, 15) / 7
    times, hazard = Cox("efron" if efron else "breslow").cumulative_hazard(y, z, weight)
    expected = steps(y, z, weight, efron)
    np.testing.assert_array_equal(times, list(expected))
    np.testing.assert_allclose(hazard, np.cumsum(list(expected.values())))


def test_curves_without_features_are_those_of_all_samples():
    curves = SurvivalCurves(SparseGLM(Cox(), alpha=1e3)).fit(X, SIGNED)
    at = np.unique(TIMES)
    dying = [np.sum((t == TIMES) & EVENTS) / np.sum(t <= TIMES) for t in at]
    found = curves.survival(X[:2], at)
    np.testing.assert_allclose(found, np.exp(-np.cumsum([dying, dying], axis=1)))
    # Between times and before the first, it stays.
    early, same = curves.survival(X[:1], [at[0] / 2, at[0] + (at[1] - at[0]) / 2])[0]
    assert (early, same) == (1.0, found[0, 0])
    assert curves.predict(X[:1]) == at[np.argmax(found[0] <= 0.5)]


def test_risk_shifts_curves_and_medians():
    model = SparseGLM(Cox("efron"), alpha=0.01)
    curves = SurvivalCurves(model).fit(X, np.column_stack([TIMES, EVENTS]))
    plain = model.fit(X, SIGNED)
    risk = plain.predict(X)
    found = curves.survival(X, [2.0, 5.0])
    ratio = np.log(found[:, 1]) / np.log(found[0, 1])
    np.testing.assert_allclose(ratio, np.exp(risk - risk[0]))
    medians = curves.predict(X)
    for each, median in zip(X[:10], medians, strict=False):
        if np.isfinite(median):
            assert curves.survival(each[None], [median])[0, 0] <= 0.5
    assert curves.score(X, SIGNED) == plain.score(X, SIGNED)
    # Where nobody's curve falls to one half, there is no median.
    late = SurvivalCurves(model).fit(X, np.where(np.arange(80) < 5, TIMES, -TIMES - 100))
    assert np.isinf(late.predict(X)).any()


def test_curves_refuse_what_nobody_knows():
    curves = SurvivalCurves(SparseGLM(Cox(), alpha=0.1)).fit(X, SIGNED)
    with pytest.raises(DataError, match=r"followed until 1000; ask for times up to"):
        curves.survival(X, [1.0, 1000])
    with pytest.raises(DataError, match="nan"):
        curves.survival(X, [np.nan])
    with pytest.raises(OptionError, match="must predict log hazard ratios"):
        SurvivalCurves("cox").fit(X, SIGNED)
    with pytest.raises(DataError, match="no event was seen"):
        SurvivalCurves(SparseGLM(alpha=0.1)).fit(X, -TIMES)


def counted(y, z, weight, efron, entry, strata):
    """Return the negative log partial likelihood of who is at risk, event by event."""
    time, seen, total = np.abs(y), ~np.signbit(y), 0.0
    risk = weight * np.exp(z)
    for label in np.unique(strata):
        for at in np.unique(time[seen & (strata == label)]):
            inside = (strata == label) & (entry < at)
            dead = seen & (time == at) & (weight > 0) & inside
            mean = weight[dead].sum() / max(dead.sum(), 1)
            for place in range(dead.sum()):
                left_out = place / dead.sum() if efron else 0.0
                met = risk[inside & (time >= at)].sum() - left_out * risk[dead].sum()
                total += mean * np.log(met)
            total -= weight[dead] @ z[dead]
    return total


class TestEntriesAndStrata:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["entry", "strata", "both"]))
    def test_the_loss_and_its_slope_are_those_of_the_likelihood(self, seed, efron, what):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 20))
        time = rng.integers(1, 7, count).astype(float)
        entry = np.maximum(time - rng.integers(1, 5, count), -1.0)
        strata = rng.integers(0, 3, count)
        y = np.where(rng.random(count) < 0.7, time, -time)
        y[0] = abs(y[0])
        z, weight = 3 * rng.standard_normal(count), rng.integers(0, 3, count) / 7
        weight[0] = 0.2
        loss = Cox(
            "efron" if efron else "breslow",
            entry=None if what == "strata" else entry,
            strata=None if what == "entry" else strata,
        )
        entry = np.full(count, -np.inf) if what == "strata" else entry
        strata = np.zeros(count) if what == "entry" else strata
        expected = counted(y, z, weight, efron, entry, strata)
        assert loss.value(y, z, weight) == pytest.approx(expected, abs=1e-12)
        for i, step in enumerate(1e-5 * np.eye(count)):
            up, down = (counted(y, z + s * step, weight, efron, entry, strata) for s in (1, -1))
            assert loss.gradient(y, z, weight)[i] == pytest.approx((up - down) / 2e-5, abs=1e-7)

    def test_without_them_nothing_changes(self):
        z, weight = X[:, 0], np.full(80, 1 / 80)
        plain = Cox("efron")
        for same in (Cox("efron", entry=np.full(80, -1.0)), Cox("efron", strata=np.zeros(80))):
            assert same.value(SIGNED, z, weight) == pytest.approx(plain.value(SIGNED, z, weight))
            np.testing.assert_allclose(
                same.gradient(SIGNED, z, weight), plain.gradient(SIGNED, z, weight), atol=1e-14
            )

    def test_what_is_nothing_beside_a_risk_that_has_left_still_counts(self):
        y, z = np.array([1.0, 2.0, 3.0]), np.array([60.0, 0.0, 0.0])
        weight, entry = np.full(3, 1 / 3), np.array([0.0, 0.0, 0.0])
        late = Cox(entry=entry).value(y, z, weight) * 3
        # Of the second event the risk is 2; of the last, 1; the first is all but certain.
        assert late == pytest.approx(np.log(2) + np.log(1 / 3) * 3, abs=1e-12)

    @pytest.mark.parametrize("ties", ["breslow", "efron"])
    def test_fits_agree_with_statsmodels(self, ties):
        sm = pytest.importorskip("statsmodels.api")
        # Between the times: whether one who enters at a time is at risk then is a convention.
        entry = np.where(np.arange(80) % 2, 0.0, np.maximum(TIMES - 1.5, 0.0))
        strata = np.arange(80) % 3
        peer = sm.PHReg(TIMES, X, status=EVENTS, entry=entry, strata=strata, ties=ties).fit()
        model = SparseGLM(Cox(ties, entry=entry, strata=strata), alpha=0.0, tol=1e-12)
        np.testing.assert_allclose(model.fit(X, SIGNED).coef_, peer.params, atol=1e-4)

    def test_folds_take_theirs_along(self):
        strata, order = np.arange(80) // 40, np.argsort(TIMES)
        model = SparseGLMCV(Cox(strata=strata[order]), cv=4, alphas=[0.02])
        model.fit(X[order], SIGNED[order])
        test = np.arange(20)
        own = SparseGLM(Cox(strata=strata[order][20:]), alpha=0.02, tol=1e-10)
        own.fit(X[order][20:], SIGNED[order][20:])
        held_out = Cox(strata=strata[order][test])
        loss = held_out.value(
            SIGNED[order][test], X[order][test] @ own.coef_ + own.intercept_, np.full(20, 1 / 20)
        )
        assert model.cv_loss_[0, 0] == pytest.approx(loss, rel=1e-3)

    def test_concordance_compares_who_is_at_risk(self):
        y, risk = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0])
        assert concordance(y, risk) == 0
        assert concordance(y, risk, strata=np.array([0, 1, 0])) == 0
        # Only the second and the third overlap, and these are in the wrong order.
        assert np.isnan(concordance(y, risk, entry=np.array([0.0, 1.0, 2.0])))
        entry = np.array([0.0, 1.0, 1.5])
        assert concordance(y, np.array([0.0, 2.0, 1.0]), entry=entry) == 1

    @pytest.mark.parametrize(
        ("options", "error", "said"),
        [
            ({"entry": [0.0, 1.0]}, DataError, "entry of Cox has 2 entries for 80 samples"),
            ({"strata": np.zeros(79)}, DataError, "strata of Cox has 79 entries"),
            ({"entry": TIMES}, DataError, "entry must be below the time of each sample"),
            ({"entry": np.full(80, np.nan)}, DataError, "got nan"),
            ({"strata": np.zeros((80, 2))}, OptionError, "strata must be a vector"),
        ],
    )
    def test_wrong_ones_are_named(self, options, error, said):
        with pytest.raises(error, match=said):
            SparseGLM(Cox(**options)).fit(X, SIGNED)

    def test_curves_of_strata_are_refused(self):
        with pytest.raises(OptionError, match="strata have hazards of their own"):
            SurvivalCurves(SparseGLM(Cox(strata=np.zeros(80)))).fit(X, SIGNED)
