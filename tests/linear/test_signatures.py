"""Signatures of paths, and the Lasso on them."""

import numpy as np
import pytest

from thresher.core.errors import DataError, OptionError
from thresher.linear import SignatureLasso
from thresher.linear.regimes.signatures import signature


def levels(flat, channels, depth):
    ends = np.cumsum([channels**k for k in range(1, depth + 1)])[:-1]
    parts = np.split(flat, ends)
    return [part.reshape((channels,) * k) for k, part in enumerate(parts, 1)]


class TestSignature:
    def test_a_straight_line_is_the_exponential_of_its_increment(self):
        step = np.array([2.0, -1.0, 0.5])
        first, second, third = levels(signature(step[None], 3), 3, 3)
        np.testing.assert_allclose(first, step)
        np.testing.assert_allclose(second, np.multiply.outer(step, step) / 2)
        cube = np.multiply.outer(np.multiply.outer(step, step), step)
        np.testing.assert_allclose(third, cube / 6)

    def test_iterated_integrals_of_a_right_angle_by_hand(self):
        # Along x by 1, then along y by 2: x runs before y, so that only (x, y) has an integral.
        first, second, third = levels(signature(np.array([[1.0, 0.0], [0.0, 2.0]]), 3), 2, 3)
        np.testing.assert_allclose(first, [1, 2])
        np.testing.assert_allclose(second, [[0.5, 2], [0, 2]])
        np.testing.assert_allclose(third[0], [[1 / 6, 1], [0, 2]])  # (x,x,y) 1/2 * 2; (x,y,y) 2
        np.testing.assert_allclose(third[1], [[0, 0], [0, 8 / 6]])

    def test_agrees_with_numerical_integration(self):
        rng = np.random.default_rng(0)
        steps = rng.standard_normal((6, 2))
        fine = np.repeat(steps / 2000, 2000, axis=0)
        path = np.vstack([np.zeros(2), np.cumsum(fine, axis=0)])
        middle = (path[1:] + path[:-1]) / 2  # the order-one integral, exact on lines
        second = middle.T @ fine
        inner = np.vstack([np.zeros((1, 2, 2)), np.cumsum(middle[:, :, None] * fine[:, None], 0)])
        third = np.einsum("tij,tk->ijk", (inner[1:] + inner[:-1]) / 2, fine)
        _, found_second, found_third = levels(signature(steps, 3), 2, 3)
        np.testing.assert_allclose(found_second, second, atol=1e-10)
        np.testing.assert_allclose(found_third, third, atol=1e-5)

    def test_padding_and_subdivision_change_nothing(self):
        steps = np.random.default_rng(1).standard_normal((3, 4, 2))
        padded = np.concatenate([steps, np.zeros((3, 2, 2))], axis=1)
        halved = np.repeat(steps / 2, 2, axis=1)
        for same in (padded, halved):
            np.testing.assert_allclose(signature(same, 4), signature(steps, 4), atol=1e-12)

    def test_products_of_integrals_are_shuffles(self):
        first, second, third = levels(
            signature(np.random.default_rng(2).standard_normal((7, 2)), 3), 2, 3
        )
        np.testing.assert_allclose(np.multiply.outer(first, first), second + second.T)
        shuffled = third[0, 1, 0] + 2 * third[0, 0, 1]
        assert first[0] * second[0, 1] == pytest.approx(shuffled)

    def test_depth_below_one_is_named(self):
        with pytest.raises(OptionError, match="depth must be a whole number of at least 1, got 0"):
            signature(np.zeros((2, 2)), 0)


def planted(rng, individuals=60):
    """Return irregular paths, times and a target that is linear in few iterated integrals."""
    paths, times, y = [], [], []
    for _ in range(individuals):
        at = np.sort(rng.uniform(0, 1, 8))
        at[0] = 0.0
        paths.append(np.column_stack([at, rng.standard_normal((8, 2))]))
        times.append(np.sort(rng.uniform(0, 1, 4)))
        steps = [_steps(paths[-1], t) for t in times[-1]]
        integrals = np.array([signature(s, 2) for s in steps])
        # Words of order one (t, x1, x2), then of order two: (x1, x2) is 3 + 3 + 2.
        y.append(2 * integrals[:, 1] - 3 * integrals[:, 8] + 1.0)
    return paths, times, y


def _steps(path, time):
    past = path[path[:, 0] <= time]
    points = np.vstack([np.zeros(3), past, np.append(time, past[-1, 1:])])
    return np.diff(points, axis=0)


class TestSignatureLasso:
    def test_finds_the_integrals_that_the_target_follows(self):
        paths, times, y = planted(np.random.default_rng(0))
        model = SignatureLasso(depth=2).fit(paths[:40], times[:40], y[:40])
        found = {model.words_[j] for j in np.argsort(-np.abs(model.coef_))[:2]}
        assert found == {(1,), (1, 2)}
        guess = np.concatenate(model.predict(paths[40:], times[40:]))
        truth = np.concatenate(y[40:])
        assert np.mean((guess - truth) ** 2) < 0.01 * np.var(truth)

    def test_the_future_is_not_used(self):
        paths, times, y = planted(np.random.default_rng(1), 10)
        model = SignatureLasso(depth=2, alpha=0.01).fit(paths, times, y)
        known = paths[0][paths[0][:, 0] <= 0.5]
        cut, whole = model.predict([known, paths[0]], [[0.5], [0.5]])
        assert cut == whole

    def test_individuals_are_not_split_over_folds(self):
        paths, times, y = planted(np.random.default_rng(2), 7)
        model = SignatureLasso(depth=1, max_folds=3)
        groups = np.repeat(np.arange(7), 4)
        for train, test in model._lasso(groups).cv:
            assert not set(groups[train]) & set(groups[test])
        with pytest.raises(OptionError, match="single individual"):
            model.fit(paths[:1], times[:1], y[:1])

    def test_bad_paths_are_named(self):
        paths, times, y = planted(np.random.default_rng(3), 3)
        model = SignatureLasso(depth=1, alpha=0.1)
        with pytest.raises(DataError, match=r"path 1 has no observation by time -1.0"):
            model.fit(paths, [times[0], [-1.0], times[2]], [y[0], [0.0], y[2]])
        with pytest.raises(DataError, match=r"path 2, of shape \(8, 3\).*increases"):
            model.fit([*paths[:2], paths[2][::-1]], times, y)
        with pytest.raises(DataError, match="do not match"):
            model.fit(paths, times, y[:2])
        narrow = [path[:, :2] for path in paths]
        with pytest.raises(DataError, match=r"equally many columns.*\[2, 3\]"):
            model.fit([narrow[0], *paths[1:]], times, y)
        with pytest.raises(DataError, match="have 2 columns, the fitted ones had 3"):
            model.fit(paths, times, y).predict(narrow, times)
