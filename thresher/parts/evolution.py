"""Evolution: a search by random changes, of which those stay that lose least."""

from __future__ import annotations

__all__ = ["Evolution", "Genome"]

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import OptionError

Genome = tuple[int, ...]
#: How often an offspring is looked for that is none of its siblings.
_TRIES = 20
#: Of the offspring, and of the samples, what a round has for each of the last one.
_KEPT, _JUDGED = (8, 32), (64, 8)


@dataclass(frozen=True)
class Evolution:
    """Change the best one known, and judge what comes of it in three rounds.

    All offspring are judged by few samples, an eighth of them by more, and a quarter of these, with
    the parent, by the most. The best of the last round is the next parent.

    Parameters
    ----------
    generations : int, default 5
        How many parents there are.
    offspring : int, default 16
        Of each parent.
    most : int, default 4
        Samples that the last round judges by; the one before takes an eighth of them, the first a
        64th, and one at least. Every round draws its own.
    seed : int, default 0

    Raises
    ------
    OptionError
        If an option is below 1, the seed below 0.

    References
    ----------
    Sieberling et al., EvoPress (2024), whose rounds of 128 offspring Li et al., Týr-the-Pruner
    (2025), section 3.1, take, for 50 generations; the defaults are what a processor has time for.
    """

    generations: int = 5
    offspring: int = 16
    most: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("generations", "offspring", "most"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} {getattr(self, name)} is out of range; it is 1 or more")
        if self.seed < 0:
            raise OptionError(f"seed {self.seed} is out of range; it is 0 or more")

    def __call__(
        self,
        start: Genome,
        change: Callable[[Genome, np.random.Generator], Genome],
        loss: Callable[[Genome, Sequence[int]], float],
        samples: int,
    ) -> Genome:
        """Search.

        Parameters
        ----------
        start : tuple of int
            The first parent.
        change : callable
            ``change(parent, rng)`` returns an offspring; the parent where nothing can change.
        loss : callable
            ``loss(genome, indices)`` returns what is to be small, by the samples of these indices.
        samples : int
            How many there are.

        Returns
        -------
        tuple of int
            The best one found; `start` where none was better on the samples of the last round.
        """
        rng = np.random.default_rng(self.seed)
        parent = start
        for _ in range(self.generations):
            found = self._offspring(parent, change, rng)
            if not found:
                break
            rounds = zip((*_KEPT, self.offspring), (*_JUDGED, 1), strict=True)
            for index, (kept, judged) in enumerate(rounds):
                if index == len(_KEPT):
                    found.append(parent)
                some = min(samples, math.ceil(self.most / judged))
                drawn = rng.permutation(samples)[:some].tolist()
                losses = {genome: loss(genome, drawn) for genome in found}
                found = sorted(found, key=losses.__getitem__)[: math.ceil(self.offspring / kept)]
            parent = found[0]
        return parent

    def _offspring(
        self,
        parent: Genome,
        change: Callable[[Genome, np.random.Generator], Genome],
        rng: np.random.Generator,
    ) -> list[Genome]:
        found: dict[Genome, None] = {}
        for _ in range(_TRIES * self.offspring):
            genome = change(parent, rng)
            if genome != parent:
                found[genome] = None
            if len(found) == self.offspring:
                break
        return list(found)
