"""Evolution: it finds what trying everything finds, and judges in rounds."""

import itertools

import pytest

from thresher.core.errors import OptionError
from thresher.parts.evolution import Evolution

#: By gene and value; no gene's best value is the one that the sum of 8 leaves the others.
TABLE = [
    [(value - best) ** 2 * steep for value in range(5)]
    for best, steep in ((4, 1.0), (4, 3.0), (3, 0.5), (1, 2.0))
]


def loss(genome, indices):
    return sum(row[value] for row, value in zip(TABLE, genome, strict=True))


def moved(genome, rng):
    """Return a genome of the same sum."""
    less, more = rng.permutation(len(genome))[:2]
    found = list(genome)
    if found[less] > 0 and found[more] < 4:
        found[less] -= 1
        found[more] += 1
    return tuple(found)


def test_it_finds_the_best_of_all():
    every = [g for g in itertools.product(range(5), repeat=4) if sum(g) == 8]
    best = min(every, key=lambda genome: loss(genome, ()))
    found = Evolution(generations=10)((2, 2, 2, 2), moved, loss, samples=3)
    assert loss(found, ()) == loss(best, ())
    assert loss(found, ()) < loss((2, 2, 2, 2), ())


def test_a_parent_that_none_beats_stays():
    assert Evolution()((2, 2), moved, lambda g, _: abs(g[0] - 2), samples=1) == (2, 2)
    assert Evolution()((0, 0), lambda g, _: g, loss, samples=1) == (0, 0)


def test_fewer_are_judged_by_more_samples():
    judged = []

    def noted(genome, indices):
        judged.append((len(indices), genome))
        assert len(set(indices)) == len(indices)
        assert max(indices) < 100
        return loss(genome, indices)

    Evolution(generations=1, offspring=12, most=64)((2, 2, 2, 2), moved, noted, samples=100)
    amounts = [amount for amount, _ in judged]
    # An eighth of 12, rounded up, goes on, and then one, which the parent joins.
    assert amounts == 12 * [1] + 2 * [8] + 2 * [64]
    assert judged[-1][1] == (2, 2, 2, 2)
    first = sorted((g for _, g in judged[:12]), key=lambda g: loss(g, ()))
    assert [g for _, g in judged[12:14]] == first[:2]


def test_the_same_seed_finds_the_same():
    runs = [
        Evolution(generations=2, offspring=3, seed=seed)((2, 2, 2, 2), moved, loss, samples=2)
        for seed in (0, 0, 1, 2, 3)
    ]
    assert runs[0] == runs[1]
    assert len(set(runs)) > 1


@pytest.mark.parametrize("bad", [{"generations": 0}, {"offspring": 0}, {"most": 0}, {"seed": -1}])
def test_options_out_of_range_are_named(bad):
    with pytest.raises(OptionError, match=next(iter(bad))):
        Evolution(**bad)
