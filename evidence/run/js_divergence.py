"""Jensen-Shannon divergence against perplexity, and the task's text against others, on SmolLM2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from thresher.core.evidence import Experiment
from thresher.prune import Recipe
from thresher.prune.magnitude import MagnitudePruning
from thresher.prune.sparsegpt import SparseGPT
from thresher.prune.wanda import Wanda
from thresher.run.evaluate import Evaluation, compare

from .._one_shot import PROTOCOL, READ, Calibrated, cut, one_shot
from .._statistics import lower
from .._study import Found, Judged, Slacks, means

_EVERY = 3
_METHODS: dict[str, Callable[[Any], Recipe]] = {
    "Wanda": cut(Wanda()),
    "SparseGPT": cut(SparseGPT()),
}
#: Methods calibrated on the novel, with themselves calibrated on addresses.
_ON_NOVEL = {f"{name} on the novel": name for name in _METHODS}
_SPARSITIES = (0.3, 0.5, 0.7)


def _js(model: nn.Module, seen: Calibrated) -> float:
    """Return the divergence from the dense model on held-out addresses."""
    return compare(seen.logits, model, seen.held_out).js


def _wrong(model: nn.Module, seen: Calibrated) -> float:
    """Return the percentage of the novel's tokens that the model does not rank first."""
    right = [
        model(input_ids=window[None], use_cache=False).logits[0, :-1].argmax(-1) == window[1:]
        for window in seen.novel
    ]
    return 100 * (1 - float(torch.cat(right).double().mean()))


def correlations(found: Found, measure: str) -> np.ndarray:
    """Return the rank correlation of a measure with wrong words over all that was pruned.

    Returns
    -------
    array of shape (draws,)
    """
    names = [name for name in found.study.methods if name != "dense"]
    of, wrong = (np.stack([found.of(m, n) for n in names]) for m in (measure, "wrong"))
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
        study=one_shot(
            ("sparsity",),
            {sparsity: {"density": 1 - sparsity} for sparsity in _SPARSITIES},
            {
                **_METHODS,
                "magnitude": cut(MagnitudePruning()),
                **{ours: _METHODS[rival] for ours, rival in _ON_NOVEL.items()},
            },
            every=_EVERY,
            on_novel=tuple(_ON_NOVEL),
            also={"js": _js, "wrong": _wrong},
        ),
        rule=_rule,
        view=means("wrong", "Tokens of the novel not ranked first", "wrong (%)"),
        against={ours: (rival,) for ours, rival in _ON_NOVEL.items()},
        say=_say,
        note=f"The novel is Emma; {READ} windows of it are read in every draw, others than those "
        "calibrated on. Divergence and perplexity are of addresses. Slacks are differences of rank "
        "correlations over all pruned models, and percentage points. Question answering, summaries "
        f"and their judges are not judged. Every {_EVERY}rd block is pruned. {PROTOCOL}",
    ),
    seeds=(0, 1, 2, 3),
)
