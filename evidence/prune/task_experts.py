"""Task-specific expert pruning: one expert of eight, against one at random and a dense model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import thresher as th
from thresher.core.evidence import Experiment
from thresher.parts.coverage import find_layers
from thresher.parts.experts import ExpertScore, Routing
from thresher.prune.task_experts import TaskExperts

from .._statistics import lower
from .._study import Found, Judged, Slacks, Study, ahead, every, means
from ._mixture import (
    CALIBRATION,
    MODEL,
    TUNING,
    Trained,
    fit,
    log_perplexity,
    mixture,
    trained,
    tuned,
)

#: The share of the benefit that the paper finds to stay.
_SHARE = 0.993


@dataclass(frozen=True)
class _Drawn(ExpertScore):
    """Numbers drawn at random."""

    seed: int

    def __call__(self, routing: Routing) -> torch.Tensor:
        return torch.rand(routing.count, generator=torch.Generator().manual_seed(self.seed))


def _fewer(model: Any, known: Trained, recipe: TaskExperts, keep: int) -> nn.Module:
    """Return a model with so many experts left in each block."""
    data = known.train[0][: known.drawn.amount(CALIBRATION, 2)]
    layers = find_layers(model)
    experts = sum(layer.weight.numel() for layer in layers if layer.part is not None)
    others = sum(layer.weight.numel() for layer in layers) - experts
    share = keep / model.config.num_local_experts
    how = recipe.with_density((others + share * experts) / (others + experts))
    made: nn.Module = th.prune(model, how, data, progress=False)
    return made


def _eager(recipe_of: Callable[[int], TaskExperts]) -> Callable[[Trained], nn.Module]:
    """Return the method that keeps one expert, and then trains."""

    def method(known: Trained) -> nn.Module:
        recipe = recipe_of(known.drawn.seed)
        return tuned(_fewer(known.model, known, recipe, 1), known)

    return method


def _in_windows(known: Trained) -> nn.Module:
    """Drop experts in windows of the first half of training, down to one."""
    model, steps = known.model, TUNING // 6
    for keep in (4, 2, 1):
        model = _fewer(tuned(model, known, steps), known, TaskExperts(), keep)
    return tuned(model, known, TUNING - 3 * steps)


def _dense(known: Trained) -> nn.Module:
    """Return a model of one expert that saw the same text from the start."""
    drawn = known.drawn
    torch.manual_seed(drawn.seed)
    model: Any = mixture(known.model.config.vocab_size, experts=1)  # type: ignore[union-attr]
    fit(model, torch.cat(known.train), drawn.seed, drawn.amount(300, 5), 3e-3)
    return tuned(model, known)


def _benefit(found: Found) -> Slacks:
    """Return by how much one expert keeps more of the lead of eight over the dense model."""
    of = {name: found.of("log_perplexity", name) for name in found.study.methods}
    lead = of["dense"] - of["eight experts"]
    kept = of["dense"] - of["one expert"] - _SHARE * lead
    return {
        "eight experts: log_perplexity below dense": float(lower(lead)[0]),
        f"one expert: more than {_SHARE:.1%} of that": float(lower(kept)[0]),
    }


experiment = Experiment(
    method=TaskExperts.card.name,
    claim="The one expert of each block that a task gives most weight to, fine-tuned on it, keeps "
    "99.3 % of what the mixture gains over a dense model, and is better than an expert at random.",
    baseline="an expert at random, and a dense model of the same size, trained alike",
    run=Judged(
        study=Study(
            over=("task",),
            settings={"documentation": None},
            draw=lambda _, drawn: trained(drawn),
            methods={
                "one expert": _eager(lambda _: TaskExperts()),
                "in windows": _in_windows,
                "at random": _eager(lambda seed: replace(TaskExperts(), score=_Drawn(seed))),
                "eight experts": lambda known: tuned(known.model, known),
                "dense": _dense,
            },
            measures={
                "log_perplexity": lambda model, known: log_perplexity(model, known.held_out[0])
            },
        ),
        rule=every(ahead("log_perplexity", "one expert", "at random"), _benefit),
        view=means(
            "log_perplexity", "Perplexity a character on one kind of text", "perplexity", True
        ),
        against={"one expert": ("at random", "dense")},
        note=f"Slacks are differences of log-perplexity. {MODEL} The task is the documentation, "
        f"with {TUNING} steps of fine-tuning. In windows, experts go in three steps in the first "
        "half of these. The paper's tasks, and its speed, are not rerun.",
    ),
    seeds=(0, 1, 2),
)
