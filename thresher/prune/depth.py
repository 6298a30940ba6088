"""Depth compression: activations go where they matter least, and convolutions become one."""

from __future__ import annotations

__all__ = ["DepthCompression", "Plan", "merges", "multiplications", "seconds"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.benchmark import Timer

from ..core.card import Card, Catalogued
from ..core.errors import LayerError, OptionError
from ..parts.chains import Chain, chain_of, merged

#: A row of convolutions, by its first one and the one after its last.
Span = tuple[int, int]
Cost = Callable[[nn.Conv2d, torch.Size], float]
#: How long a convolution is timed for, at least.
_SECONDS = 0.05


def multiplications(convolution: nn.Conv2d, shape: torch.Size) -> float:
    """Return how many products a convolution takes of one sample.

    Parameters
    ----------
    convolution : nn.Conv2d
    shape : torch.Size
        Of its input, (batch, channels, height, width).
    """
    with torch.device("meta"):
        like = nn.Conv2d(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            stride=convolution.stride,  # type: ignore[arg-type]
            padding=convolution.padding,  # type: ignore[arg-type]
            groups=convolution.groups,
        )
        places = math.prod(like(torch.empty(1, *shape[1:])).shape[2:])
    return float(places * convolution.weight.numel())


def seconds(convolution: nn.Conv2d, shape: torch.Size) -> float:
    """Return the median time that a convolution takes here.

    Parameters
    ----------
    convolution : nn.Conv2d
    shape : torch.Size
        Of its input, (batch, channels, height, width).
    """
    weight = convolution.weight
    x = torch.randn(shape, device=weight.device, dtype=weight.dtype)
    timer = Timer("convolution(x)", globals={"convolution": convolution, "x": x})
    return float(timer.blocked_autorange(min_run_time=_SECONDS).median)


@dataclass(frozen=True)
class Plan:
    """Which activations stay, and which convolutions are merged.

    Parameters
    ----------
    activations : tuple of int
        Convolutions after which what follows stays, the last one among them; in order.
    ends : tuple of int
        Of each row of convolutions to merge, the last one; in order.
    cost : float
        Of the merged convolutions.
    importance : float
        Sum over the rows between the activations that stay.
    """

    activations: tuple[int, ...]
    ends: tuple[int, ...]
    cost: float
    importance: float
    chain: Chain = field(repr=False, compare=False)

    def loosened(self) -> nn.Sequential:
        """Return the model without the other activations, to be trained.

        Normalisations are folded, and of every row that is to be merged the padding is put before
        the first convolution, so that :meth:`DepthCompression.merge` changes nothing.
        """
        return self.chain.sequential(self.ends, self.activations, merge=False)


@dataclass(frozen=True)
class DepthCompression(Catalogued):
    """Drop activations between convolutions, and merge these, within a budget of time.

    Which activations stay is found exactly by dynamic programming, of tables of what rows of
    convolutions cost when they are merged in the cheapest way, and of what the model loses without
    the activations within a row. The rows' losses count as adding up. Train what
    :meth:`Plan.loosened` returns, then merge it.

    Parameters
    ----------
    steps : int, default 1000
        Into how many parts the budget is divided: costs are rounded up to one.

    Raises
    ------
    OptionError
        If `steps` is below 1.

    References
    ----------
    Kim et al., Efficient Latency-Aware CNN Depth Compression (2023), section 4, algorithms 1
    and 2.

    Examples
    --------
    >>> layers = [nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    >>> model = nn.Sequential(*layers).eval()
    >>> method, x = DepthCompression(), torch.randn(1, 4, 8, 8)
    >>> plan = method.plan(model, x, 0.95, lambda model: 0.0, cost=multiplications)
    >>> len(method.merge(plan, plan.loosened()))
    2
    """

    steps: int = 1000
    card = Card(
        name="depth-compression",
        title="Efficient Latency-Aware CNN Depth Compression via Two-Stage Dynamic Programming",
        authors="Jinuk Kim et al.",
        year=2023,
        arxiv="2301.12187",
        summary="Drop activations by dynamic programming, and merge the convolutions between.",
    )

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"steps {self.steps} is out of range; it is 1 or more")

    @torch.no_grad()
    def costs(
        self, model: nn.Sequential, example: torch.Tensor, cost: Cost = seconds
    ) -> dict[Span, float]:
        """Return what every row of convolutions costs that may be merged into one.

        Parameters
        ----------
        model : nn.Sequential
            In evaluation mode.
        example : Tensor
            What it is called with.
        cost : callable, default seconds
            ``cost(convolution, input_shape)``, such as :func:`seconds` or :func:`multiplications`.

        Returns
        -------
        dict of (int, int) to float
            By the first convolution and the one after the last.

        Raises
        ------
        LayerError
            If the model is no Sequential, is training, or has fewer than two convolutions.
        """
        chain = chain_of(model)
        if len(chain.convolutions) < 2:
            raise LayerError("the model has one convolution of two dimensions, nothing to merge")
        shapes = chain.shapes(example)
        return {
            (start, stop): float(cost(merged(chain.convolutions[start:stop]), shapes[start]))
            for start, stop in _spans(chain)
        }

    def plan(
        self,
        model: nn.Sequential,
        example: torch.Tensor,
        budget: float,
        loss: Callable[[nn.Sequential], float],
        *,
        cost: Cost = seconds,
    ) -> Plan:
        """Return which activations to keep, and what to merge.

        Parameters
        ----------
        model : nn.Sequential
            In evaluation mode. What lies between convolutions other than normalisations and
            activations stays, and nothing is merged across it.
        example : Tensor
            What it is called with.
        budget : float
            Share of the model's cost that may be left, in (0, 1].
        loss : callable
            ``loss(model)`` returns what is the lower the better, of a model that is its own: it
            may train it before, as the paper does. Called once for the model, with
            normalisations folded, and once for every row of more than one convolution.
        cost : callable, default seconds
            See :meth:`costs`.

        Raises
        ------
        OptionError
            If the budget is out of range, or less than the least cost that can be reached.
        LayerError
            If the model is no Sequential, or is training.
        """
        if not 0 < budget <= 1:
            raise OptionError(
                f"budget {budget} is out of range; it is the share of the cost that may be left, "
                "above 0 and at most 1"
            )
        chain = chain_of(model)
        table = self.costs(model, example, cost)
        count = len(chain.convolutions)
        whole = sum(table[index, index + 1] for index in range(count))
        importance = self.importances(model, table, loss)
        return self.best(chain, merges(count, table), importance, budget * whole)

    def importances(
        self,
        model: nn.Sequential,
        costs: Mapping[Span, float],
        loss: Callable[[nn.Sequential], float],
    ) -> dict[Span, float]:
        """Return how much lower the loss is with the activations within each row.

        Parameters
        ----------
        model : nn.Sequential
            In evaluation mode.
        costs : mapping of (int, int) to float
            See :meth:`costs`.
        loss : callable
            See :meth:`plan`.

        Returns
        -------
        dict of (int, int) to float
            At most 0 where the activations are of use; 0 of a single convolution.
        """
        chain = chain_of(model)
        count = len(chain.convolutions)
        cheapest = merges(count, costs)
        every = range(count)
        before = loss(chain.sequential(every, every, merge=False))
        importance = dict.fromkeys(costs, 0.0)
        for start, stop in (span for span in costs if span[1] - span[0] > 1):
            ends = [*range(start), *cheapest[start, stop][1], *range(stop, count)]
            kept = [*range(start), *range(stop - 1, count)]
            importance[start, stop] = before - loss(chain.sequential(ends, kept, merge=False))
        return importance

    def best(
        self,
        chain: Chain,
        cheapest: Mapping[Span, tuple[float, tuple[int, ...]]],
        importance: Mapping[Span, float],
        budget: float,
    ) -> Plan:
        """Return the plan of the largest importance within a budget.

        Parameters
        ----------
        chain : Chain
            The convolutions.
        cheapest : mapping of (int, int) to tuple
            Costs and merges of rows, see :func:`merges`.
        importance : mapping of (int, int) to float
            Of rows without the activations in them.
        budget : float
            In the costs' unit.
        """
        count, unit = len(chain.convolutions), budget / self.steps
        # By convolutions that are done and parts of the budget that are spent at most.
        best = [[-math.inf] * (self.steps + 1) for _ in range(count + 1)]
        last = [[0] * (self.steps + 1) for _ in range(count + 1)]
        best[0] = [0.0] * (self.steps + 1)
        for stop in range(1, count + 1):
            for start in range(stop):
                if (start, stop) not in cheapest:
                    continue
                # What is a whole number of parts must not become one more by rounding.
                spent = math.ceil(cheapest[start, stop][0] / unit - 1e-9)
                for total in range(spent, self.steps + 1):
                    found = best[start][total - spent] + importance[start, stop]
                    if found > best[stop][total]:
                        best[stop][total], last[stop][total] = found, start
        if best[count][-1] == -math.inf:
            least = merges(count, {span: each[0] for span, each in cheapest.items()}, whole=True)
            raise OptionError(
                f"the budget is {budget:.4g}, and the least that can be reached is "
                f"{least[0, count][0]:.4g}"
            )
        activations: list[int] = []
        ends: list[int] = []
        cost, stop, total = 0.0, count, self.steps
        while stop:
            start = last[stop][total]
            of_row, merge = cheapest[start, stop]
            activations.insert(0, stop - 1)
            ends = [*merge, *ends]
            cost += of_row
            total -= math.ceil(of_row / unit - 1e-9)
            stop = start
        return Plan(tuple(activations), tuple(ends), cost, best[count][-1], chain)

    def merge(self, plan: Plan, model: nn.Sequential) -> nn.Sequential:
        """Return the shallower model.

        Parameters
        ----------
        plan : Plan
        model : nn.Sequential
            What :meth:`Plan.loosened` returned, trained or not.

        Returns
        -------
        nn.Sequential
            It gives what `model` gives.
        """
        made: list[nn.Module] = []
        row: list[nn.Conv2d] = []
        ends, index = set(plan.ends), 0
        for module in model:
            if not isinstance(module, nn.Conv2d):
                made.append(module)
                continue
            row.append(module)
            if index in ends:
                made.append(merged(row))
                row = []
            index += 1
        return nn.Sequential(*made).train(model.training)


def merges(
    count: int, costs: Mapping[Span, float], whole: bool = False
) -> dict[Span, tuple[float, tuple[int, ...]]]:
    """Return the cheapest way to merge every row of convolutions, into one or several.

    Parameters
    ----------
    count : int
        Of convolutions.
    costs : mapping of (int, int) to float
        Of rows merged into one.
    whole : bool, default False
        Whether rows are made of others where no cost of theirs is known.

    Returns
    -------
    dict of (int, int) to tuple of float and tuple of int
        The cost, and the last convolution of each part that becomes one.
    """
    found: dict[Span, tuple[float, tuple[int, ...]]] = {}
    for length in range(1, count + 1):
        for start in range(count - length + 1):
            span = (start, start + length)
            if span not in costs and not whole:
                continue
            ways: list[tuple[float, tuple[int, ...]]] = []
            if span in costs:
                ways.append((costs[span], (span[1] - 1,)))
            for middle in range(start + 1, span[1]):
                parts = [found.get((start, middle)), found.get((middle, span[1]))]
                if parts[0] is not None and parts[1] is not None:
                    ways.append((parts[0][0] + parts[1][0], (*parts[0][1], *parts[1][1])))
            if ways:
                found[span] = min(ways, key=lambda way: (way[0], len(way[1])))
    return found


def _spans(chain: Chain) -> list[Span]:
    """Return the rows that may be merged into one."""
    found = []
    for start in range(len(chain.convolutions)):
        stop = start + 1
        found.append((start, stop))
        while chain.joined(stop - 1):
            stop += 1
            found.append((start, stop))
    return found
