"""The audit of neurons: detectors of characters, where they are and what they suppress."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from thresher.activate.audit import NetworkAudit, NeuronAudit
from thresher.core.evidence import Experiment

from .. import _text as text
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, means

#: Of 90 characters five are many: a detector has two at most.
_AUDIT, _WINDOWS = NeuronAudit(tokens=2), 96
_OURS, _SHUFFLED, _UNTRAINED = "neurons", "another's update", "untrained"


@dataclass(frozen=True)
class Answer:
    """What is found of a block's neurons."""

    rank: float
    other: float
    alive: float


@functools.lru_cache(maxsize=2)
def _audits(drawn: Draw, trained: bool) -> tuple[nn.Module, list[NetworkAudit]]:
    model = text.text_model(drawn.seed, "relu", gated=False)
    if trained:
        text.train(model, drawn.seed, drawn.amount(2 * text.STEPS, 5))
    return model, _AUDIT.audit(model, text.windows(held_out=True)[:_WINDOWS])


def _method(trained: bool, shuffled: bool) -> Callable[[tuple[str, Draw]], Answer]:
    def run(problem: tuple[str, Draw]) -> Answer:
        block, drawn = problem
        model, audits = _audits(drawn, trained)
        found = audits[0 if block == "first" else -1]
        unembedding = model.get_output_embeddings().weight.detach()
        if shuffled:  # what a neuron adds is compared with what triggers another
            order = torch.randperm(
                len(unembedding), generator=torch.Generator().manual_seed(drawn.seed)
            )
            unembedding = unembedding[order]
        ranks = found.suppression(unembedding)
        return Answer(
            rank=float(ranks.mean()) if len(ranks) else 0.5,
            other=1 - float(found.detectors.float().mean()),
            alive=1 - float(found.dead.float().mean()),
        )

    return run


def _rule(found: Found) -> Slacks:
    other, rank = found.of("other", _OURS), found.lead("rank", _OURS, _SHUFFLED)
    return {
        "detectors suppress their triggers more than others": float(lower(rank.mean(axis=0))),
        "more detectors in the first block than in the last": float(lower(other[1] - other[0])),
    }


experiment = Experiment(
    method=NeuronAudit.card.name,
    claim="Neurons of a model with ReLUs that fire at few tokens alone are more frequent in its "
    "first block than in its last, and what they add to the logits suppresses the very tokens that "
    "they fire at. (That neurons are dead, and the more the larger a model is, is not judged.)",
    baseline="what is added against other tokens than those fired at; the last block",
    run=Judged(
        study=Study(
            over=("block",),
            settings={"first": "first", "last": "last"},
            draw=lambda block, drawn: (block, drawn),
            methods={
                _OURS: _method(trained=True, shuffled=False),
                _SHUFFLED: _method(trained=True, shuffled=True),
                _UNTRAINED: _method(trained=False, shuffled=False),
            },
            measures={
                "rank": lambda answer, _: answer.rank,
                "other": lambda answer, _: answer.other,
                "alive": lambda answer, _: answer.alive,
            },
            workers=2,
        ),
        rule=_rule,
        view=means("rank", "Rank of triggers in what detectors add", "rank (0 is suppressed most)"),
        against={_OURS: (_SHUFFLED,)},
        say=lambda found: (
            "Neurons of the first and the last block: detectors "
            + ", ".join(f"{1 - v:.1%}" for v in found.mean("other", _OURS))
            + "; dead "
            + ", ".join(f"{1 - v:.1%}" for v in found.mean("alive", _OURS))
            + "."
        ),
        note="Slacks are differences of ranks, from 0 for the most suppressed token to 1, 0.5 "
        "where there is no detector, and of shares of neurons. A detector fires at two characters "
        f"in 95 % of its firings, twice the protocol's steps are trained. {text.PROTOCOL}",
        reason="a model of two blocks has no early part to speak of.",
    ),
)
