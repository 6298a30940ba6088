"""Jensen-Shannon divergence against perplexity, and the task's text against others, on SmolLM2."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from thresher.assets import gutenberg, smollm2
from thresher.core.evidence import Experiment
from thresher.parts.calibration import token_windows
from thresher.prune import Recipe
from thresher.prune.magnitude import MagnitudePruning
from thresher.prune.sparsegpt import SparseGPT
from thresher.prune.wanda import Wanda
from thresher.run.evaluate import Evaluation, compare

from .._one_shot import LENGTH, Calibrated, calibrate, language_model, pruned, windows
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, means

_ADDRESSES, _NOVEL = "addresses", "the novel"
#: Windows to calibrate on; windows to measure on, of each text, and their tokens.
_CALIBRATION, _HELD_OUT, _READ, _SHORT = 8, 2, 3, 128
_EVERY = 5
_SPARSITIES = (0.3, 0.5, 0.7)
_METHODS: dict[str, Recipe] = {"Wanda": Wanda(), "SparseGPT": SparseGPT()}
#: Methods calibrated on the novel, with themselves calibrated on addresses.
_ON_NOVEL = {f"{name} on the novel": name for name in _METHODS}


# By identity, so that it can be remembered.
@dataclass(frozen=True, eq=False)
class _Seen:
    """What one draw saw of the model, by the text that it was calibrated on."""

    calibrated: Mapping[str, Calibrated]
    logits: Sequence[torch.Tensor]
    novel: torch.Tensor


@dataclass(frozen=True)
class _Problem:
    density: float
    seen: _Seen


@dataclass(frozen=True)
class _Answer:
    log_perplexity: float
    js: float
    wrong: float


@functools.cache
def _novel() -> torch.Tensor:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    return token_windows(tokenizer, gutenberg("emma"), length=LENGTH)


@functools.lru_cache(maxsize=1)
@torch.no_grad()
def _seen(drawn: Draw) -> _Seen:
    rng = drawn.rng
    first, last = (each[rng.permutation(len(each))] for each in windows())
    novel = _novel()[rng.permutation(len(_novel()))]
    model, held_out = language_model(min(1.0, drawn.scale)), last[:_HELD_OUT, :_SHORT]
    count = drawn.amount(_CALIBRATION, 2)
    needs = frozenset().union(*(recipe.needs for recipe in _METHODS.values()))
    calibrated = {
        text: calibrate(model, data[:count], held_out, needs, _EVERY)
        for text, data in ((_ADDRESSES, first), (_NOVEL, novel))
    }
    logits = [model(input_ids=window[None]).logits[0, :-1] for window in held_out]
    return _Seen(calibrated, logits, novel[-_READ:, :_SHORT])


def _method(recipe: Recipe, text: str) -> Callable[[_Problem], _Answer]:
    @torch.no_grad()
    def run(problem: _Problem) -> _Answer:
        seen = problem.seen
        here = seen.calibrated[text]
        with pruned(recipe.with_options(density=problem.density), here):
            found = compare(seen.logits, here.model, here.held_out)
            return _Answer(
                math.log(found.pruned_perplexity), found.js, _wrong(here.model, seen.novel)
            )

    return run


def _wrong(model: nn.Module, novel: torch.Tensor) -> float:
    """Return the percentage of the novel's tokens that the model does not rank first."""
    right = [
        model(input_ids=window[None], use_cache=False).logits[0, :-1].argmax(-1) == window[1:]
        for window in novel
    ]
    return 100 * (1 - float(torch.cat(right).double().mean()))


def correlations(found: Found, measure: str) -> np.ndarray:
    """Return the rank correlation of a measure with wrong words over all that was pruned.

    Returns
    -------
    array of shape (draws,)
    """
    of, wrong = (
        np.stack([found.of(m, name) for name in found.study.methods]) for m in (measure, "wrong")
    )
    draws = range(wrong.shape[-1])
    return np.array([spearmanr(of[..., d].ravel(), wrong[..., d].ravel())[0] for d in draws])


def _rule(found: Found) -> Slacks:
    better = correlations(found, "js") - correlations(found, "log_perplexity")
    parts = {"rank correlation with wrong words, above that of perplexity": float(lower(better))}
    for ours, rival in _ON_NOVEL.items():
        leads = lower(found.lead("wrong", ours, rival))
        parts |= {
            f"{sparsity:.0%}: fewer wrong words by {ours}": float(lead)
            for sparsity, lead in zip(found.study.settings, leads, strict=True)
        }
    return parts


def _say(found: Found) -> str:
    js, perplexity = (correlations(found, name).mean() for name in ("js", "log_perplexity"))
    return (
        "Mean rank correlation with wrong words on the novel: Jensen-Shannon divergence "
        f"{js:.3f}, perplexity {perplexity:.3f}."
    )


experiment = Experiment(
    method=Evaluation.card.name,
    claim="The Jensen-Shannon divergence from the dense model ranks pruned models by the ability "
    "that they lost better than perplexity does, and calibration on the text of the task keeps "
    "more of it than general text. (Judged: with the words of a novel as the task.)",
    baseline="perplexity; Wanda and SparseGPT calibrated on other text than the task's",
    run=Judged(
        study=Study(
            over=("sparsity",),
            settings={sparsity: 1 - sparsity for sparsity in _SPARSITIES},
            draw=lambda density, drawn: _Problem(density, _seen(drawn)),
            methods={
                **{name: _method(recipe, _ADDRESSES) for name, recipe in _METHODS.items()},
                "magnitude": _method(MagnitudePruning(), _ADDRESSES),
                **{ours: _method(_METHODS[rival], _NOVEL) for ours, rival in _ON_NOVEL.items()},
            },
            measures={
                "log_perplexity": lambda answer, _: answer.log_perplexity,
                "js": lambda answer, _: answer.js,
                "wrong": lambda answer, _: answer.wrong,
            },
            workers=2,
        ),
        rule=_rule,
        view=means("wrong", "Tokens of the novel not ranked first", "wrong (%)"),
        against={ours: (rival,) for ours, rival in _ON_NOVEL.items()},
        say=_say,
        note=f"SmolLM2-135M-Instruct, of which every {_EVERY}th block is pruned, calibrated on "
        f"{_CALIBRATION} windows of {LENGTH} tokens of State of the Union addresses, or of Emma, "
        f"the novel. {_READ} other windows of Emma are read in every draw; divergence and "
        f"perplexity are of {_HELD_OUT} addresses of later years, all of {_SHORT} tokens. All "
        "layers are calibrated on the dense model. Slacks are differences of rank correlations "
        "over all pruned models, and percentage points. Question answering, summaries and their "
        "judges are not judged.",
    ),
    seeds=(0, 1, 2),
)
