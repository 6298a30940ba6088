import itertools

import pytest
from part_examples import concrete_subclasses

from thresher.core.errors import OptionError
from thresher.parts.schedules import Cosine, Cubic, Linear, OneShot, Schedule

KINDS = pytest.mark.parametrize("kind", concrete_subclasses(Schedule))


@KINDS
@pytest.mark.parametrize(("initial", "final"), [(1.0, 0.1), (0.3, 0.9), (0.7, 0.7)])
def test_ends_are_exact_and_the_way_monotone(kind, initial, final):
    schedule = kind(final, initial)
    values = [schedule(step / 200) for step in range(201)]
    assert values[-1] == final
    if kind is not OneShot:
        assert values[0] == pytest.approx(initial, abs=1e-15)
    steps = [after - before for before, after in itertools.pairwise(values)]
    sign = 1 if final >= initial else -1
    assert all(sign * step >= -1e-15 for step in steps)


@KINDS
@pytest.mark.parametrize("progress", [-0.01, 1.01])
def test_progress_outside_is_named(kind, progress):
    with pytest.raises(OptionError, match=str(progress)):
        kind(0.5)(progress)


def test_hand_computed_values():
    # Zhu and Gupta, eq. 1: s_t = s_f + (s_i - s_f)(1 - t)^3, in densities.
    assert Cubic(0.1)(0.5) == pytest.approx(0.1 + 0.9 / 8)
    assert Linear(0.2)(0.25) == pytest.approx(0.8)
    assert Cosine(0.0)(0.5) == pytest.approx(0.5)
    assert OneShot(0.3, at=0.5)(0.49) == 1.0
    assert OneShot(0.3, at=0.5)(0.5) == 0.3
    assert OneShot(0.3)(0.0) == 0.3
