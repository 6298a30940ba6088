"""Sirius: sums that sparse models get wrong, and what correcting them costs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thresher.activate import activate, record_of
from thresher.activate.cats import CATS
from thresher.activate.coreinfer import CoreInfer
from thresher.activate.networks import Networks, find_networks
from thresher.activate.sirius import Sirius, Text
from thresher.core.evidence import Experiment
from thresher.parts.activations.attached import attached, detach
from thresher.parts.coverage import cover

from .._study import Draw, Found, Judged, Study, ahead, every, means
from . import _sums as sums

#: Share of neurons that is dropped, as in the paper; tokens of an answer that a check settles.
_SPARSITY, _KERNEL = 0.5, 6
_TRAINING, _PROBLEMS = 400, 40
_OURS, _SPARSE, _DENSE = "Sirius", "sparse", "dense"
_EQUAL = "sparse, reading as much as Sirius"
_TOKEN, _PROMPT = "CATS", "CoreInfer"


@dataclass(frozen=True)
class Answer:
    """Wrong answers in percent, share of weights read a token, and tokens that a check settles."""

    wrong: float
    read: float
    advance: float = math.nan


@dataclass(frozen=True)
class Problem:
    """Which kind of sparsity, and the draw."""

    kind: str
    drawn: Draw

    @property
    def model(self) -> nn.Module:
        """The dense model."""
        return sums.trained(self.drawn.seed, self.drawn.amount(_TRAINING, 5))

    @property
    def problems(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts and answers that it is measured on."""
        return sums.problems(self.drawn.amount(_PROBLEMS, 2), 10_007 + self.drawn.seed)


def _networks(model: nn.Module) -> Networks:
    return find_networks(model, sums.problems(16, 1)[0])


def _share(networks: Networks) -> float:
    """Return the share of a model's blocks that its feed-forward networks are."""
    inside = sum(layer.weight.numel() for n in networks.networks for layer in n.layers)
    return inside / sum(layer.weight.numel() for layer in cover(networks.model).layers)


@contextmanager
def _sparse(problem: Problem, sparsity: float) -> Iterator[tuple[Callable[[Any], Any], float]]:
    """Have the model sparse, and yield what is entered for a prompt, and the share that is read."""
    model = problem.model
    if problem.kind == _TOKEN:
        activate(model, CATS(sparsity=sparsity), sums.problems(64, 1)[0], progress=False)
        try:
            record = record_of(model)
            assert record is not None
            yield lambda prompt: _nothing(), 1 - record.skipped
        finally:
            for name, side in attached(model):
                detach(model.get_submodule(name), side)
        return
    networks, method = _networks(model), CoreInfer(sentence=1 - sparsity)
    yield (
        lambda prompt: method.choose(networks, prompt).applied(),
        1 - sparsity * _share(networks),
    )


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _free(problem: Problem, sparsity: float) -> Answer:
    """Return what the sparse model answers by itself, after the dense one has read the prompt."""
    wrong = []
    with _sparse(problem, sparsity) as (entered, read), torch.no_grad():
        for prompt, answer in zip(*problem.problems, strict=True):
            with entered(prompt[None]):
                draft = Text(problem.model, prompt[None]).draft(sums.STEPS, frozenset())
            wrong.append(draft != answer.tolist())
    return Answer(100 * sum(wrong) / len(wrong), read)


@functools.lru_cache(maxsize=1)
def _corrected(problem: Problem) -> tuple[Answer, float]:
    """Return what Sirius answers, and what the sparse model alone reads."""
    method, wrong, found = Sirius(_KERNEL), [], []
    with _sparse(problem, _SPARSITY) as (entered, read):
        for prompt, answer in zip(*problem.problems, strict=True):
            with entered(prompt[None]):
                found.append(method.generate(problem.model, prompt, sums.STEPS))
            wrong.append(found[-1].tokens.tolist() != answer.tolist())
    reads = [each.read(read) for each in found]
    advance = sums.STEPS * len(found) / sum(each.checks for each in found)
    return Answer(100 * sum(wrong) / len(wrong), sum(reads) / len(reads), advance), read


def _equal(problem: Problem) -> Answer | None:
    """Return what a sparse model answers that reads as much as Sirius does."""
    corrected, read = _corrected(problem)
    sparsity = _SPARSITY * (1 - corrected.read) / (1 - read)
    return _free(problem, sparsity) if sparsity > 0 else None


@torch.no_grad()
def _dense(problem: Problem) -> Answer:
    prompts, answers = problem.problems
    # An answer is right if every step is likeliest after the right ones before it.
    logits = problem.model(input_ids=torch.cat([prompts, answers[:, :-1]], dim=1)).logits
    right = (logits[:, sums.STEPS :].argmax(-1) == answers).all(dim=1)
    return Answer(100 * (1 - float(right.float().mean())), 1.0)


def _say(found: Found) -> str:
    advance = ", ".join(f"{value:.1f}" for value in found.mean("advance", _OURS))
    read = "; ".join(
        f"{name} " + ", ".join(f"{value:.0%}" for value in found.mean("read", name))
        for name in (_OURS, _SPARSE)
    )
    return f"Read of the blocks' weights per token: {read}. A check settles {advance} tokens."


experiment = Experiment(
    method=Sirius.card.name,
    claim="A model that drops half of the neurons of its feed-forward networks gets fewer answers "
    "of many steps wrong when the dense one corrects it, and reads fewer weights per token than "
    "the dense one. (Latency is not judged.)",
    baseline="the sparse model by itself, by CATS and by CoreInfer; the dense model's weights",
    run=Judged(
        study=Study(
            over=("sparsity by",),
            settings={_TOKEN: _TOKEN, _PROMPT: _PROMPT},
            draw=Problem,
            methods={
                _OURS: lambda problem: _corrected(problem)[0],
                _SPARSE: lambda problem: _free(problem, _SPARSITY),
                _EQUAL: _equal,
                _DENSE: _dense,
            },
            measures={
                "wrong": lambda answer, _: answer.wrong,
                "read": lambda answer, _: answer.read,
                "advance": lambda answer, _: answer.advance,
            },
            workers=2,
        ),
        rule=every(ahead("wrong", _OURS, _SPARSE), ahead("read", _OURS, _DENSE)),
        view=means("wrong", "Wrong answers", "wrong (%)"),
        against={_OURS: (_SPARSE, _DENSE)},
        say=_say,
        note="Slacks are percent of the answers, and shares of the blocks' weights. A Llama of two "
        f"blocks and 0.08 M weights, trained for {_TRAINING} steps, writes the running sums of "
        f"{sums.STEPS} digits modulo {sums.MODULUS}, each the one before and a digit; "
        f"{_PROBLEMS} problems a draw. A check settles up to {_KERNEL} tokens, where the paper's "
        "settle 16 of texts of some hundred, and lets pass what has a probability of 0.1, as the "
        "paper's. That a model which reads as much without corrections is worse is shown and not "
        "judged.",
        reason="the task leaves little to correct: by CATS the sparse model gets every answer "
        "right, and by CoreInfer so few wrong that three draws cannot tell them from none. With "
        "48 neurons in place of 192 CATS still loses nothing, and CoreInfer so much that "
        "corrections come to more than the dense model reads.",
    ),
)
