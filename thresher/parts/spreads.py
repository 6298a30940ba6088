"""Spreads: how many units every coupled group loses, from what each of them costs."""

from __future__ import annotations

__all__ = [
    "ByChange",
    "Incremental",
    "PerBlock",
    "PerKind",
    "Ranked",
    "Removed",
    "Spread",
    "WholeModel",
]

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from ..core.errors import OptionError

#: Of the share that blocks lose: finer than one unit of any group.
_HALVINGS = 20
Removed = dict[str, list[int]]
#: Weights that stay of the layers, when units are removed.
Weights = Callable[[Removed], int]


@dataclass(frozen=True)
class Ranked:
    """A group as a spread sees it.

    Parameters
    ----------
    name : str
    costs : array of float64, shape (units,)
        Of removing a unit, relative to what the group's layers give.
    kind : hashable, optional
        What it has in common with groups that do the same in other blocks.
    step : int, default 1
        How many units go at a time.
    place : float, default 0.0
        How deep in the model it is, in [0, 1].
    change : float, default NaN
        How far the block that it is in turns the states of tokens, in half turns.
    """

    name: str
    costs: np.ndarray
    kind: Hashable = None
    step: int = 1
    place: float = 0.0
    change: float = math.nan

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.costs)

    def cheapest(self, count: int) -> list[int]:
        """Return the units to remove, the first ones of equal cost."""
        chosen: list[int] = np.sort(np.argsort(self.costs, kind="stable")[:count]).tolist()
        return chosen


class Spread(ABC):
    """Base class of spreads.

    Attributes
    ----------
    by_change : bool
        Whether the groups have to come with the change of their blocks.
    """

    by_change: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, groups: Sequence[Ranked], weights: Weights, target: float) -> Removed:
        """Return the units to remove, by group.

        Parameters
        ----------
        groups : sequence of Ranked
        weights : callable
            How many weights stay without some units.
        target : float
            How many are to stay.

        Raises
        ------
        OptionError
            If more would stay with one unit left of every group; it says how many.
        """


class _Step(NamedTuple):
    """What a kind might lose next: at what cost per weight, and how many weights then stay."""

    cost: float
    kind: Hashable
    lost: int
    left: int


@dataclass(frozen=True)
class PerKind(Spread):
    """The same number in all groups of a kind, so that all blocks keep one shape.

    Step by step the kind loses units whose removal costs least per weight.

    Parameters
    ----------
    multiple : int, default 32
        What is left of wide groups is a multiple of it, which kernels and formats of packed
        weights ask for.
    """

    multiple: int = 32

    def __call__(self, groups: Sequence[Ranked], weights: Weights, target: float) -> Removed:
        """Remove step by step; see :class:`Spread`."""
        kinds: dict[Hashable, list[Ranked]] = {}
        for group in groups:
            kinds.setdefault((group.kind, group.size), []).append(group)
        counts = dict.fromkeys(kinds, 0)
        left = weights({})
        while left > target:
            steps = []
            for kind, members in kinds.items():
                count = counts[kind] + self._step(members[0], counts[kind])
                if count >= members[0].size:
                    continue
                would = weights(_removed(kinds, counts | {kind: count}))
                cost = sum(_between(group, counts[kind], count) for group in members)
                if left > would:
                    steps.append(_Step(cost / (left - would), kind, count, would))
            if not steps:
                raise _unreachable(left, weights({}), target)
            chosen = min(steps, key=lambda step: step.cost)
            if chosen.left < target:
                # Too far, perhaps: what comes nearest is taken, or nothing more.
                chosen = min(steps, key=lambda step: abs(step.left - target))
                if left - target < abs(chosen.left - target):
                    break
            counts[chosen.kind], left = chosen.lost, chosen.left
        return _removed(kinds, counts)

    def _step(self, group: Ranked, count: int) -> int:
        left = group.size - count
        if group.size < 2 * self.multiple:
            return group.step
        fewer = left - (left - 1) // self.multiple * self.multiple
        return -(-fewer // group.step) * group.step


def _removed(kinds: dict[Hashable, list[Ranked]], counts: dict[Hashable, int]) -> Removed:
    return {
        group.name: group.cheapest(counts[kind])
        for kind, members in kinds.items()
        for group in members
        if counts[kind]
    }


def _between(group: Ranked, start: int, stop: int) -> float:
    return float(np.sort(group.costs)[start:stop].sum())


@dataclass(frozen=True)
class WholeModel(Spread):
    """The cheapest units of all groups, whose costs are made comparable.

    Parameters
    ----------
    by : {"mean", "deviation"}, default "mean"
        Whether costs are divided by their group's mean, or standardised: less the mean, by the
        standard deviation.
    least : float, default 0.1
        Share of its units that every group keeps.
    multiple : int, default 1
        What is left of groups of at least twice as many units is a multiple of it. Convolutions of
        8 or 16 channels at a time are often faster than those of a few channels less.

    Raises
    ------
    OptionError
        If `multiple` is less than 1.
    """

    by: str = "mean"
    least: float = 0.1
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise OptionError(f"multiple {self.multiple} is out of range; it is 1 or more")

    def __call__(self, groups: Sequence[Ranked], weights: Weights, target: float) -> Removed:
        """Bisect the number of units that go; see :class:`Spread`."""
        comparable = {group.name: self._comparable(group.costs) for group in groups}
        limits = {g.name: g.size - max(1, math.ceil(self.least * g.size)) for g in groups}
        values = np.sort(np.concatenate(list(comparable.values())))

        def removed(count: int) -> Removed:
            bound = values[count - 1] if count else -math.inf
            found = {}
            for group in groups:
                number = min(int((comparable[group.name] <= bound).sum()), limits[group.name])
                if group.size >= 2 * self.multiple:
                    number = max(0, number - -(group.size - number) % self.multiple)
                number = number // group.step * group.step
                if number:
                    found[group.name] = group.cheapest(number)
            return found

        low, high = 0, len(values)
        if weights(removed(high)) > target:
            raise _unreachable(weights(removed(high)), weights({}), target)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if weights(removed(middle)) > target else (low, middle)
        few, many = removed(low), removed(high)
        return few if weights(few) - target < target - weights(many) else many

    def _comparable(self, costs: np.ndarray) -> np.ndarray:
        if self.by == "deviation":
            costs = costs - costs.mean()
        scale = float(costs.std() if self.by == "deviation" else costs.mean())
        return costs / (scale or 1.0)


class PerBlock(Spread):
    """Base class of spreads that take the same share of all groups of a block.

    Attributes
    ----------
    most : float
        Largest share of its units that a group loses.
    """

    most: float

    @abstractmethod
    def shares(self, groups: Sequence[Ranked]) -> dict[float, float]:
        """Return what blocks lose beside one another, by place; all above zero."""

    def __call__(self, groups: Sequence[Ranked], weights: Weights, target: float) -> Removed:
        """Bisect what all blocks lose; see :class:`Spread`."""
        shares = self.shares(groups)

        def removed(scale: float) -> Removed:
            found = {}
            for group in groups:
                share = min(self.most, scale * shares[group.place])
                number = min(round(share * group.size), group.size - 1)
                number = number // group.step * group.step
                if number:
                    found[group.name] = group.cheapest(number)
            return found

        low, high = 0.0, self.most / min(shares.values(), default=1.0)
        if weights(removed(high)) > target:
            raise _unreachable(weights(removed(high)), weights({}), target)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if weights(removed(middle)) > target else (low, middle)
        few, many = removed(low), removed(high)
        return few if weights(few) - target < target - weights(many) else many


@dataclass(frozen=True)
class Incremental(PerBlock):
    """The same share in all groups of a block, and more of it in later blocks.

    Parameters
    ----------
    first : float, default 0.5
        What the first block loses, as a share of what the last one does; above 0.
    most : float, default 0.9
        Largest share of its units that a group loses.

    Raises
    ------
    OptionError
        If `first` is not above 0.

    References
    ----------
    Ling et al., SlimGPT (2024), section 3.4: errors add up from block to block, so that the share
    grows with the logarithm of the depth.
    """

    first: float = 0.5
    most: float = 0.9

    def __post_init__(self) -> None:
        if not self.first > 0:
            raise OptionError(f"first {self.first} is out of range; it is above 0")

    def shares(self, groups: Sequence[Ranked]) -> dict[float, float]:
        """Return `first` at the first block and 1 at the last; see :class:`PerBlock`."""
        depths = sorted({group.place for group in groups})
        growth = math.log(len(depths)) if len(depths) > 1 else 1.0
        return {
            place: self.first + (1 - self.first) * math.log(index + 1) / growth
            for index, place in enumerate(depths)
        }


@dataclass(frozen=True)
class ByChange(PerBlock):
    """The same share in all groups of a block, and less where it changes the states more.

    A block of which no change is known loses what one of mean change does.

    Parameters
    ----------
    steepness : float, default 1.0
        How much the shares differ: of the logistic function of the changes, standardised.
    most : float, default 0.9
        Largest share of its units that a group loses.

    Raises
    ------
    OptionError
        If `steepness` is negative or no number.

    References
    ----------
    Wang et al., CFSP (2024), section 3.2.
    """

    steepness: float = 1.0
    most: float = 0.9
    by_change = True

    def __post_init__(self) -> None:
        if not 0 <= self.steepness < math.inf:
            raise OptionError(f"steepness {self.steepness} is out of range; it is 0 or above")

    def shares(self, groups: Sequence[Ranked]) -> dict[float, float]:
        """Return the logistic function of each block's change; see :class:`PerBlock`."""
        changes = {group.place: group.change for group in groups}
        known = [change for change in changes.values() if not math.isnan(change)]
        mean, deviation = (np.mean(known), np.std(known)) if known else (0.0, 0.0)
        standard = {
            place: 0.0 if math.isnan(change) or not deviation else (change - mean) / deviation
            for place, change in changes.items()
        }
        return {
            place: 1 / (1 + math.exp(self.steepness * value)) for place, value in standard.items()
        }


def _unreachable(left: int, whole: int, target: float) -> OptionError:
    return OptionError(
        f"density {target / whole:.4g} cannot be reached by removing units of coupled groups: with "
        f"as few as may be left of each, {left} of {whole} weights stay; the nearest density is "
        f"{left / whole:.4g}"
    )
