"""Perplexity and distance from logits that are made one window at a time."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator

import pytest
import torch

from thresher.core.errors import DataError
from thresher.run.evaluate import compare, perplexity

WINDOWS = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 2, 2]])


def logits(seed: int, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 5, generator=generator) for _ in range(count)]


def test_distance_is_what_the_definitions_say() -> None:
    dense, pruned = logits(0), logits(1)
    p, q = (torch.stack(each).double().log_softmax(-1) for each in (dense, pruned))
    targets = WINDOWS[:, 1:].unsqueeze(-1)
    found = compare(dense, pruned, WINDOWS)
    assert found.dense_perplexity == pytest.approx(float((-p.gather(-1, targets)).mean().exp()))
    assert found.pruned_perplexity == pytest.approx(float((-q.gather(-1, targets)).mean().exp()))
    assert found.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-5)
    middle = ((p.exp() + q.exp()) / 2).log()
    halves = [(each.exp() * (each - middle)).sum(-1).mean() for each in (p, q)]
    assert found.js == pytest.approx(float(sum(halves)) / 2, rel=1e-5)
    assert found.top1_agreement == float((p.argmax(-1) == q.argmax(-1)).double().mean())
    assert perplexity(dense, WINDOWS) == found.dense_perplexity
    losses = [-each.gather(-1, targets).mean((1, 2)) for each in (p, q)]
    assert found.dense_losses == pytest.approx(losses[0].tolist())
    assert found.pruned_losses == pytest.approx(losses[1].tolist())


def test_the_jensen_shannon_divergence_is_bounded_and_symmetric() -> None:
    one, other = ([scale * each for each in logits(seed)] for seed, scale in ((0, 1), (1, 400)))
    found, turned = compare(one, other, WINDOWS), compare(other, one, WINDOWS)
    assert found.js == pytest.approx(turned.js, rel=1e-6)
    assert 0 < found.js < math.log(2) < found.kl
    apart = compare([torch.eye(3, 5) * 1e4] * 3, [torch.eye(3, 5).roll(1, 0) * 1e4] * 3, WINDOWS)
    assert apart.js == pytest.approx(math.log(2))


@pytest.mark.parametrize("models", [1, 2])
def test_no_window_is_held_while_the_next_is_made(models: int) -> None:
    """They are as wide as the vocabulary."""
    made: list[weakref.ref[torch.Tensor]] = []

    class Source:
        def __init__(self, seed: int) -> None:
            self.seed, self.index = seed, 0

        def __iter__(self) -> Source:
            return self

        def __next__(self) -> torch.Tensor:
            if self.index == 3:
                raise StopIteration
            alive = sum(other() is not None for other in made)
            assert alive < models
            found = logits(self.seed)[self.index]
            made.append(weakref.ref(found))
            self.index += 1
            return found

    if models == 1:
        assert math.isfinite(perplexity(Source(0), WINDOWS))
    else:
        assert math.isfinite(compare(Source(0), Source(1), WINDOWS).kl)


@pytest.mark.parametrize(("count", "words"), [(2, "fewer windows"), (4, "more windows")])
def test_logits_of_other_windows_are_refused(count: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        perplexity(logits(0, count), WINDOWS)
    with pytest.raises(DataError, match=words):
        compare(logits(0), logits(1, count), WINDOWS)


def test_passes_that_wait_are_left_where_logits_do_not_fit() -> None:
    left = []

    def made(width: int) -> Iterator[torch.Tensor]:
        try:
            for _ in WINDOWS:
                yield torch.randn(3, width)
        finally:
            left.append(width)

    models = made(5), made(6)
    with pytest.raises(DataError, match="vocabularies of 5 and 6") as error:
        compare(*models, WINDOWS)
    assert sorted(left) == [5, 6]
    one = made(5)
    with pytest.raises(DataError, match="logits of 3 tokens"):
        perplexity(one, WINDOWS.repeat(1, 2))
    assert left[2:] == [5]
    del error
