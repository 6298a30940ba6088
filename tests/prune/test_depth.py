"""Depth compression: the exact search, and merged convolutions that give the same."""

import itertools

import pytest
import torch
from torch import nn

from thresher.core.errors import LayerError, OptionError
from thresher.parts.chains import chain_of
from thresher.prune.depth import DepthCompression, merges, multiplications, seconds

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def network(seed=0):
    """Return a network with strides, groups, normalisations and a pooling in between."""
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1, bias=False),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        nn.SiLU(),
        nn.Conv2d(16, 8, (1, 3), padding=(0, 1)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.Flatten(),
        nn.Linear(72, 5),
    ]
    model = nn.Sequential(*layers)
    model(torch.randn(64, 3, 12, 12))  # for the moments of the normalisation
    return model.eval()


def drawn(seed=0):
    """Return a loss that is another number for every model, the same for the same activations."""
    generator = torch.Generator().manual_seed(seed)
    known = {}

    def loss(model):
        key = tuple(type(module).__name__ for module in model)
        return known.setdefault(key, float(torch.rand((), generator=generator)))

    return loss


def every_plan(chain, cheapest):
    """Yield every choice of activations: rows, and what they cost in the cheapest way."""
    count = len(chain.convolutions)
    for size in range(count):
        for inner in itertools.combinations(range(1, count), size):
            rows = list(itertools.pairwise((0, *inner, count)))
            if all(row in cheapest for row in rows):
                yield rows, sum(cheapest[row][0] for row in rows)


@pytest.mark.parametrize("budget", [0.7, 0.8, 0.9, 1.0])
def test_the_search_finds_the_best_of_all(budget):
    chain = chain_of(network())
    method = DepthCompression(steps=100)
    generator = torch.Generator().manual_seed(int(100 * budget))
    spans = method.costs(network(), X, multiplications)
    # Whole numbers of steps, so that none is rounded up.
    costs = {s: float(torch.randint(1, 5 * (s[1] - s[0]), (), generator=generator)) for s in spans}
    costs |= {(i, i + 1): 4.0 for i in range(len(chain.convolutions))}
    importance = {span: -float(torch.rand((), generator=generator)) for span in spans}
    cheapest = merges(len(chain.convolutions), costs)
    limit = round(budget * 4 * len(chain.convolutions))
    plan = DepthCompression(steps=limit).best(chain, cheapest, importance, limit)
    allowed = [rows for rows, cost in every_plan(chain, cheapest) if cost <= limit]
    best = max(sum(importance[row] for row in rows) for rows in allowed)
    assert plan.importance == pytest.approx(best)
    assert plan.cost <= limit
    rows = list(itertools.pairwise((0, *(a + 1 for a in plan.activations))))
    assert sum(importance[row] for row in rows) == pytest.approx(best)


def test_the_cheapest_merges_are_the_cheapest_of_all():
    generator = torch.Generator().manual_seed(0)
    spans = [(a, b) for a in range(6) for b in range(a + 1, 7)]
    costs = {span: float(torch.rand((), generator=generator)) for span in spans}
    cost, ends = merges(6, costs)[0, 6]
    ways = [
        sum(costs[row] for row in itertools.pairwise((0, *inner, 6)))
        for size in range(6)
        for inner in itertools.combinations(range(1, 6), size)
    ]
    assert cost == pytest.approx(min(ways))
    assert sum(costs[row] for row in itertools.pairwise((0, *(e + 1 for e in ends)))) == cost


@torch.no_grad()
def test_merging_changes_nothing():
    model = network()
    chain = chain_of(model)
    count = len(chain.convolutions)
    whole = chain.sequential(range(count), range(count), merge=False)
    torch.testing.assert_close(whole(X), model(X))
    # Four convolutions become one, and two after the pooling.
    loose = chain.sequential([3, 5], [3, 5], merge=False)
    merged = chain.sequential([3, 5], [3, 5], merge=True)
    torch.testing.assert_close(merged(X), loose(X), rtol=1e-4, atol=1e-5)
    kinds = [type(module).__name__ for module in merged]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "Flatten", "Linear"]
    assert merged[0].kernel_size == (5, 9)
    assert merged[0].stride == (2, 2)


def test_merging_is_what_is_done_inside_of_the_border():
    """Without activations the merged one differs at the border alone."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)).eval()
    merged = chain_of(plain).sequential([1], [1], merge=True)
    given, wanted = merged(X), plain(X)
    assert given.shape == wanted.shape
    torch.testing.assert_close(given[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1])
    assert not torch.allclose(given, wanted)


@torch.no_grad()
def test_a_plan_is_trained_and_merged():
    model, method = network(), DepthCompression()
    plan = method.plan(model, X, 0.8, drawn(), cost=multiplications)
    whole = sum(c for s, c in method.costs(model, X, multiplications).items() if s[1] - s[0] == 1)
    assert plan.cost <= 0.8 * whole
    loose = plan.loosened()
    for parameter in loose.parameters():
        parameter.add_(0.01 * torch.randn(parameter.shape))
    small = method.merge(plan, loose)
    torch.testing.assert_close(small(X), loose(X), rtol=1e-4, atol=1e-5)
    found = [module for module in small if isinstance(module, nn.Conv2d)]
    assert len(found) == len(plan.ends) < 6
    shapes = chain_of(small).shapes(X)
    assert sum(map(multiplications, found, shapes)) == pytest.approx(plan.cost)
    again = method.plan(network(), X, 0.8, drawn(), cost=multiplications)
    assert again == plan


def test_the_cost_may_be_measured():
    costs = DepthCompression().costs(network(), X)
    assert set(costs) == set(DepthCompression().costs(network(), X, multiplications))
    assert all(value > 0 for value in costs.values())
    assert seconds(nn.Conv2d(3, 4, 3), X.shape) > 0


def test_products_are_counted_by_hand():
    assert multiplications(nn.Conv2d(3, 8, 3, padding=1), X.shape) == 12 * 12 * 3 * 8 * 9
    grouped = nn.Conv2d(4, 8, 3, stride=2, groups=4)
    assert multiplications(grouped, torch.Size((7, 4, 9, 9))) == 4 * 4 * 8 * 9


def test_what_cannot_be_is_named():
    method = DepthCompression()
    options = {"loss": drawn(), "cost": multiplications}
    with pytest.raises(OptionError, match="steps 0 is out of range"):
        DepthCompression(steps=0)
    for budget in (0, 1.5, float("nan")):
        with pytest.raises(OptionError, match=f"budget {budget} is out of range"):
            method.plan(network(), X, budget, **options)
    with pytest.raises(OptionError, match="the least that can be reached is"):
        method.plan(network(), X, 0.1, **options)
    with pytest.raises(LayerError, match=r"Linear is no nn\.Sequential"):
        method.plan(nn.Linear(2, 2), X, 0.5, **options)
    with pytest.raises(LayerError, match="training mode"):
        method.plan(network().train(), X, 0.5, **options)
    with pytest.raises(LayerError, match="has one convolution"):
        method.plan(nn.Sequential(nn.Conv2d(3, 4, 1)).eval(), X, 0.5, **options)
    with pytest.raises(LayerError, match="has no convolution"):
        method.plan(nn.Sequential(nn.Linear(3, 4)).eval(), X, 0.5, **options)


def test_what_was_merged_into_one_convolution_still_has_a_cost():
    # A plan may leave a single one, whose products the evidence counts.
    one = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False)).eval()
    (shape,) = chain_of(one).shapes(X)
    assert multiplications(one[0], shape) == 4 * 3 * 3 * 3 * 10 * 10
