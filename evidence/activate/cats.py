"""CATS against a model whose gates are made ReLUs, and against other choices of neurons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from thresher.activate.cats import CATS
from thresher.core.evidence import Experiment

from .._activations import PROTOCOL, activations, sparse
from .._study import Found, Judged, Slacks, ahead, means

#: How much the perplexity may rise, as the accuracy of tasks may fall by 1 to 2 % in the paper.
_NEAR = 0.02
_below_relu = ahead("log_perplexity", "CATS", "ReLU gates")


@contextmanager
def relu_gates(model: nn.Module) -> Iterator[None]:
    """Have feed-forward networks gate by ReLU, without any training."""
    held = {module: module.act_fn for module in model.modules() if hasattr(module, "act_fn")}
    for module in held:
        module.act_fn = nn.ReLU()
    try:
        yield
    finally:
        for module, activation in held.items():
            module.act_fn = activation


def _rule(found: Found) -> Slacks:
    half = found.where(neurons="50 %")
    rise = half.of("log_perplexity", "CATS") - half.of("log_perplexity", "dense")
    near = float(_NEAR - rise.mean())
    return {**_below_relu(found), "50 %: log-perplexity at most 0.02 above dense": near}


experiment = Experiment(
    method=CATS.card.name,
    claim="Without fine-tuning, dropping half of the neurons by their gate stays within 1 to 2 % "
    "of the dense model, and even 70 % have a lower perplexity than a model whose gates are made "
    "ReLUs.",
    baseline="the model with its SiLU gates replaced by ReLU, untrained; the dense model",
    run=Judged(
        study=activations(
            "neurons",
            {"50 %": 0.5, "70 %": 0.7},
            {"CATS": sparse(CATS())},
            {"ReLU gates": relu_gates},
        ),
        rule=_rule,
        view=means("log_perplexity", "Perplexity with sparse neurons", "perplexity", True),
        against={"CATS": ("ReLU gates",)},
        note="Slacks are differences of log-perplexity. The paper judges by the accuracy of tasks "
        "on Mistral-7B and Llama-2-7B; here a rise of perplexity by 2 % stands for it. "
        f"{PROTOCOL}",
        reason="a model of 135 M weights has 1,536 neurons a block, and less to spare than one of "
        "7 billion with 14,336.",
    ),
)
