import itertools

import pytest
from part_examples import concrete_subclasses

from thresher.core.errors import OptionError
from thresher.parts.schedules import Cosine, Cubic, Linear, OneShot, Periodic, Schedule

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


@KINDS
def test_the_clock_says_when_and_how_far(kind):
    schedule = kind(0.1, clock=Periodic(every=10, start=20, stop=45))
    assert [step for step in range(60) if schedule.due(step)] == [20, 30, 40, 45]
    assert schedule.at_step(0) == schedule.at_step(20) == schedule(0.0)
    assert schedule.at_step(30) == schedule(0.4)
    assert schedule.at_step(45) == schedule.at_step(1000) == 0.1


def test_a_clock_without_an_end_goes_on_and_knows_no_progress():
    clock = Periodic(every=3)
    assert [step for step in range(8) if clock.due(step)] == [0, 3, 6]
    assert clock.due(3_000_000)
    with pytest.raises(OptionError, match="stop="):
        clock.progress(3)


def test_a_clock_that_stands_still_is_over_at_once():
    clock = Periodic(every=5, start=7, stop=7)
    assert [step for step in range(20) if clock.due(step)] == [7]
    assert clock.progress(7) == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"every": 2, "start": -1}, "start must be a whole number of at least 0, got -1"),
        ({"every": 2, "start": 5, "stop": 4}, "stop must be a whole number of at least 5, got 4"),
        ({"every": 2.5}, "got 2.5"),
    ],
)
def test_clocks_that_cannot_run_are_named(options, words):
    with pytest.raises(OptionError, match=words):
        Periodic(**options)


def test_a_schedule_without_a_clock_says_so():
    for ask in (Cubic(0.1).due, Cubic(0.1).at_step):
        with pytest.raises(OptionError, match=r"clock=Periodic"):
            ask(3)
