import numpy as np
import pytest
import torch

from thresher.core import prox
from thresher.core.errors import OptionError
from thresher.core.top_k import top_k_mask

#: Operator of (x, threshold), and the penalty that it is the prox of.
OPERATORS = {
    "soft": (prox.soft, lambda z, t: t * np.abs(z).sum()),
    "hard": (prox.hard, lambda z, t: t**2 / 2 * (z != 0).sum()),
}
EACH = pytest.mark.parametrize("name", OPERATORS)


def points():
    generator = np.random.default_rng(0)
    return [
        generator.normal(size=(4, 5)),
        generator.normal(size=(2, 3)) * 1e-3,
        np.zeros((2, 3)),
        np.array([[1.0, -1.0, 0.5], [1e150, -1e150, 0.0]]),
    ]


@EACH
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_numpy_and_torch_agree(name, threshold):
    operator, _ = OPERATORS[name]
    for x in points():
        ours = operator(x, threshold)
        theirs = operator(torch.from_numpy(x), threshold)
        assert isinstance(ours, np.ndarray)
        assert isinstance(theirs, torch.Tensor)
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12)


@EACH
@pytest.mark.parametrize("threshold", [0.3, 1.0])
def test_no_perturbation_is_better(name, threshold):
    operator, penalty = OPERATORS[name]
    generator = np.random.default_rng(1)
    x = generator.normal(size=(3, 4))
    best = operator(x, threshold)

    def objective(z):
        return 0.5 * ((z - x) ** 2).sum() + penalty(z, threshold)

    rivals = [np.zeros_like(x), x]
    rivals += [
        best + 10.0 ** -generator.integers(1, 6) * generator.normal(size=x.shape)
        for _ in range(200)
    ]
    for i in np.ndindex(x.shape):
        for value in (0.0, x[i]):
            changed = best.copy()
            changed[i] = value
            rivals.append(changed)
    assert min(objective(z) for z in rivals) >= objective(best) - 1e-12


@EACH
def test_negative_thresholds_are_named(name):
    with pytest.raises(OptionError, match=r"-0\.5"):
        OPERATORS[name][0](np.ones((2, 2)), -0.5)


def test_thresholds_broadcast():
    x = np.array([[2.0, -2.0], [2.0, -2.0]])
    np.testing.assert_allclose(prox.soft(x, np.array([[0.5], [3.0]])), [[1.5, -1.5], [0.0, 0.0]])


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor])
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_top_k_is_the_nearest_sparse_point(convert, axis):
    x = np.random.default_rng(0).normal(size=(5, 6))
    kept = np.asarray(prox.top_k(convert(x), 2, axis))
    expected = np.zeros_like(x)
    flat = np.abs(x).reshape(-1) if axis is None else None
    if axis is None:
        for place in np.argsort(flat)[-2:]:
            expected.reshape(-1)[place] = x.reshape(-1)[place]
    else:
        for lane_x, lane_e in zip(
            np.moveaxis(x, axis, -1), np.moveaxis(expected, axis, -1), strict=True
        ):
            for place in np.argsort(np.abs(lane_x))[-2:]:
                lane_e[place] = lane_x[place]
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor])
@pytest.mark.parametrize("k", range(7))
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_top_k_masks_are_exact_whatever_the_ties(convert, k, axis):
    for values in (np.ones((6, 6)), np.zeros((6, 6)), np.arange(36.0).reshape(6, 6) // 9):
        mask = np.asarray(top_k_mask(convert(values), k, axis))
        assert mask.dtype == bool
        counts = mask.sum() if axis is None else mask.sum(axis)
        assert (counts == k).all()


@pytest.mark.parametrize("kind", ["random", "ties", "one value", "signs", "extremes"])
@pytest.mark.parametrize("k", [1, 17, 3000, 5000, 8999])
def test_top_k_of_many_values_is_that_of_sorting(kind, k):
    random = np.random.default_rng(0)
    values = {
        "random": random.standard_normal(9000),
        "ties": random.integers(-3, 4, 9000),
        "one value": np.full(9000, 0.25),
        "signs": random.choice([-1.0, 1.0, -0.5], 9000),
        "extremes": random.choice([np.inf, -np.inf, 1e-45, 0.0, 3e38], 9000),
    }[kind]
    values = torch.tensor(values, dtype=torch.float32)
    mask = top_k_mask(values, k)
    assert int(mask.sum()) == k
    expected = values.sort(descending=True).values[:k]
    torch.testing.assert_close(values[mask].sort(descending=True).values, expected, rtol=0, atol=0)


def test_top_k_out_of_range_is_named():
    for k in (-1, 4):
        with pytest.raises(OptionError, match=f"cannot keep {k} of 3"):
            top_k_mask(np.ones(3), k)
