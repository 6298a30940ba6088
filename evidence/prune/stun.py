"""STUN against weights alone, and against experts at random before the weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

import thresher as th
from thresher.core.evidence import Experiment
from thresher.prune.expert_recipe import Seen
from thresher.prune.stun import STUN
from thresher.prune.wanda import Wanda

from .._study import Draw, Judged, Study, ahead, means
from ._mixture import CALIBRATION, MODEL, Trained, log_perplexity, trained


@dataclass(frozen=True)
class _Problem:
    removed: float
    known: Trained

    @property
    def data(self) -> torch.Tensor:
        """Windows of both kinds of text."""
        count = self.known.drawn.amount(CALIBRATION // 2)
        return torch.cat([each[:count] for each in self.known.train])


@dataclass(frozen=True)
class _AtRandom(STUN):
    """Experts at random, and then Wanda."""

    seed: int = 0

    def choose(self, mixture: Seen) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(mixture.routing.count, generator=generator)
        return sorted(order[: mixture.keep].tolist())


def _smaller(recipe: STUN, problem: _Problem) -> nn.Module:
    how = recipe.with_density(1 - problem.removed)
    made: nn.Module = th.prune(problem.known.model, how, problem.data, progress=False)
    return made


def _weights_alone(problem: _Problem) -> nn.Module:
    model = copy.deepcopy(problem.known.model)
    th.prune(model, Wanda(), problem.data, density=1 - problem.removed, progress=False)
    return model


def _problem(removed: float, drawn: Draw) -> _Problem:
    return _Problem(removed, trained(drawn))


experiment = Experiment(
    method=STUN.card.name,
    claim="With 40 % or 60 % of the weights removed, the first fifth of them as experts that "
    "are alike, perplexity is lower than with Wanda alone, and than with experts at random.",
    baseline="Wanda alone, and Wanda after experts at random, at the same number of weights",
    run=Judged(
        study=Study(
            over=("removed",),
            settings={"40 %": 0.4, "60 %": 0.6},
            draw=_problem,
            methods={
                "STUN": lambda problem: _smaller(STUN(), problem),
                "Wanda": _weights_alone,
                "random experts": lambda problem: _smaller(
                    _AtRandom(seed=problem.known.drawn.seed), problem
                ),
                "dense": lambda problem: problem.known.model,
            },
            measures={
                "log_perplexity": lambda model, problem: log_perplexity(
                    model, torch.cat(problem.known.held_out)
                )
            },
        ),
        rule=ahead("log_perplexity", "STUN", "Wanda", "random experts"),
        view=means("log_perplexity", "Perplexity a character after pruning", "perplexity", True),
        against={"STUN": ("Wanda", "random experts")},
        note=f"Slacks are differences of log-perplexity. {MODEL} The paper's mixtures, of up to "
        "128 experts, and its tasks of generation, where it finds the lead, are not rerun.",
        reason="suspected: eight experts that are trained to be loaded evenly, in a model far too "
        "small for its text, have too little in common for one to stand in for others.",
    ),
    seeds=(0, 1, 2),
)
