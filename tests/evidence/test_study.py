"""Studies: what they draw, what they tolerate, and how what they find is read."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from thresher.evidence._statistics import least_ratio, lower
from thresher.evidence._study import (
    Found,
    Judged,
    Study,
    ahead,
    ahead_overall,
    every,
    grid,
    means,
    reported,
    times,
    times_ahead,
)
from thresher.evidence._timing import Timed


def study(**changes):
    options = {
        "over": ("size",),
        "settings": {1: 1.0, 10: 10.0},
        "draw": lambda size, drawn: (size, drawn.rng.standard_normal()),
        "methods": {"ours": lambda p: p[0] / 2, "rival": lambda p: p[0]},
        "measures": {"error": lambda answer, problem: answer + 0.01 * problem[1]},
    }
    return Study(**(options | changes))


def judged(of=None, **changes):
    options = {
        "study": of or study(),
        "rule": ahead("error", "ours", "rival"),
        "view": means("error", "Errors", "error"),
        "against": {"ours": ("rival",)},
        "note": "A note.",
    }
    return Judged(**(options | changes))


def test_every_method_gets_the_same_problem():
    seen = {"a": [], "b": []}
    methods = {name: lambda p, name=name: seen[name].append(p) or 0.0 for name in seen}
    found = study(methods=methods, draws=2).run(1.0, [0, 1])
    assert seen["a"] == seen["b"]
    assert len({p[1] for p in seen["a"]}) == 4  # draws differ, settings share them
    assert found.of("error", "a").shape == (2, 4)


def test_scale_sets_the_number_of_draws_and_the_same_seed_gives_the_same():
    assert study(draws=10).run(0.3, [0]).of("error", "ours").shape == (2, 3)
    first, second = (study().run(1.0, [3, 4]).of("error", "ours") for _ in range(2))
    assert np.array_equal(first, second)


def test_workers_find_what_one_process_finds():
    one, two = (study(workers=n).run(1.0, [0, 1, 2]).of("error", "ours") for n in (1, 2))
    assert np.array_equal(one, two)


def test_only_declared_failures_are_tolerated():
    def fails(problem):
        raise ArithmeticError("no")

    broken = {"ours": fails, "rival": lambda p: 1.0}
    with pytest.raises(ArithmeticError):
        study(methods=broken).run(1.0, [0])
    with pytest.raises(ArithmeticError):
        study(methods=broken, failed={KeyError: 9.0}).run(1.0, [0])
    found = study(methods=broken, failed={ArithmeticError: 9.0}).run(1.0, [0])
    assert (found.of("error", "ours") > 8).all()


def test_what_did_not_converge_is_measured_without_a_warning(recwarn):
    def ends_early(problem):
        warnings.warn("raise max_iter", ConvergenceWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
        return 1.0

    study(methods={"ours": ends_early}).run(1.0, [0])
    assert {str(warning.message) for warning in recwarn} == {"something else"}


def test_methods_may_report_their_own_measures():
    methods = {"ours": lambda p: {"error": 1.0, "steps": 3}, "rival": lambda p: {"error": 2.0}}
    found = study(methods=methods, measures=reported("error", "steps")).run(1.0, [0])
    assert found.of("error", "rival").tolist() == [[2.0], [2.0]]
    assert found.of("steps", "ours").tolist() == [[3.0], [3.0]]
    assert np.isnan(found.of("steps", "rival")).all()


def test_rules_overall_and_by_ratios():
    ours, rival = [[1.0, 1.2], [5.0, 5.1]], [[4.0, 4.1], [4.0, 4.2]]
    found = Found(study(), {"error": np.array([[ours[0], rival[0]], [ours[1], rival[1]]])})
    overall = ahead_overall("error", "ours", "rival")(found)
    leads = [(3 - 1) / 2, (2.9 - 0.9) / 2]
    assert list(overall.values()) == pytest.approx([lower(leads)])
    ratios = times_ahead("error", "ours", "rival", factor=2)(found)
    assert list(ratios.values()) == pytest.approx(
        [least_ratio([4, 4.1 / 1.2]) / 2 - 1, least_ratio([4 / 5, 4.2 / 5.1]) / 2 - 1]
    )
    both = every(ahead_overall("error", "ours", "rival"), times_ahead("error", "ours", "rival"))
    assert len(both(found)) == 3
    twice = every(ahead("error", "ours", "rival"), ahead("error", "ours", "rival"))
    with pytest.raises(ValueError, match="one name"):
        twice(found)


def test_a_method_that_does_not_apply_has_no_row():
    found = study(methods={"ours": lambda p: 1.0, "rival": lambda p: None}).run(1.0, [0])
    assert np.isnan(found.of("error", "rival")).all()
    assert {row["method"] for row in found.table()} == {"ours"}


def test_tables_hold_means_and_standard_errors():
    of = study()
    found = Found(of, {"error": np.array([[[1.0, 3.0], [0, 0]], [[5, 5], [0, 0]]])})
    first = found.table()[0]
    assert first == {"size": 1, "method": "ours", "error": 2.0, "error_error": 1.0}


def test_settings_are_chosen_by_the_parts_of_their_keys():
    of = study(over=("shape", "batch"), settings=grid(("a", "b"), (1, 2)))
    found = Found(of, {"error": np.arange(8.0).reshape(4, 2, 1)})
    assert found.where(batch=2).study.keys == [("a", 2), ("b", 2)]
    assert found.where(shape="b", batch=2).of("error", "ours").tolist() == [[6.0]]


def test_swapped_puts_the_rival_in_our_place():
    found = study().run(1.0, [0, 1])
    swapped = found.swapped("ours", "rival")
    assert np.array_equal(swapped.of("error", "ours"), found.of("error", "rival"))
    assert not np.array_equal(found.of("error", "ours"), found.of("error", "rival"))


def test_lower_is_two_standard_errors_below_the_mean():
    assert lower([1.0, 2.0, 3.0]) == pytest.approx(2 - 2 / math.sqrt(3))
    assert least_ratio([math.e, math.e]) == pytest.approx(math.e)
    assert np.isnan(lower([5.0]))


def test_the_best_of_several_is_above_zero_no_more_often_than_one():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((20_000, 3, 4))  # 20,000 experiments of 3 settings and 4 draws
    single = stats.t.sf(2, 3)
    assert (lower(values[:, 0]) > 0).mean() == pytest.approx(single, abs=0.01)
    assert (lower(values).max(-1) > 0).mean() > 2 * single
    assert (lower(values, best_of=3).max(-1) > 0).mean() < single


def test_a_rule_must_hold_in_every_setting():
    outcome = judged()(1.0, [0, 1, 2])
    assert outcome.reproduced
    assert set(outcome.slacks) == {"1: error below rival", "10: error below rival"}
    worse = study(methods={"ours": lambda p: min(p[0], 2), "rival": lambda p: 1.0})
    assert not judged(worse)(1.0, [0, 1, 2]).reproduced


def test_one_draw_shows_no_noise():
    outcome = judged()(1.0, [0])
    assert not outcome.reproduced
    assert "One draw shows no noise" in outcome.summary


def test_prose_is_read_off_what_was_found():
    of = study()
    found = Found(of, {"error": np.array([[[1.5, 1.5], [3, 3]], [[2, 2], [1, 1]]])}, noise=0.3)
    told = judged(of, reason="a reason.", say=lambda f: f"{f.of('error', 'ours').max():g} at most.")
    outcome = told.judge(found)
    assert outcome.summary.startswith("Errors (1, 10): ours 1.5, 2; rival 3, 1. 2 at most. A note.")
    assert "1 of 2 parts of the rule did not hold" in outcome.summary
    assert "Reason: a reason." in outcome.summary
    assert "The machine was busy: two timings of one function lay 30% apart." in outcome.summary
    held = told.judge(found.where(size=1))
    assert held.reproduced
    assert "Reason" not in held.summary


def test_times_are_geometric_means_of_ratios():
    found = Found(study(), {"seconds": np.array([[[1.0, 1], [2, 8]], [[1, 1], [1, 1]]])})
    assert times("seconds", "ours", "t").series(found)["rival"].tolist() == pytest.approx([4, 1])


def test_timed_answers_are_timed_together_and_others_measured():
    of = Timed(
        over=("size",),
        settings={100: 100},
        draw=lambda size, drawn: size,
        methods={
            "ours": lambda n: lambda: sum(range(n)),
            "rival": lambda n: lambda: sum(range(1000 * n)),
            "stored": lambda n: n,
        },
        measures={"callable": lambda answer, _: float(callable(answer))},
        repeats=3,
        cold=False,
    )
    found = of.run(1.0, [0])
    assert (found.times("seconds", "ours", "rival") > 2).all()
    assert np.isnan(found.of("seconds", "stored")).all()
    assert found.of("callable", "stored").tolist() == [[0.0]]
    assert found.noise >= 0
