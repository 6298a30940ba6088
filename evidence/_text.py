"""Character models of 0.06 M weights by activation, trained by the experiments themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from thresher.activate.networks import Networks
from thresher.stream.feedforward import FeedForward

from . import _models as models

#: Characters per window, windows per step, steps at scale 1 and windows that measure a loss.
LENGTH, BATCH, STEPS, HELD_OUT = 64, 16, 300, 96
#: Neurons of feed-forward networks without and with a gate: as many weights.
PLAIN, GATED = 192, 128

PROTOCOL = (
    f"Characters of Python's documentation; models of two blocks of 48 channels, {PLAIN} neurons "
    f"each or {GATED} with a gate, 0.06 M weights, trained for {STEPS} steps of {BATCH} windows of "
    f"{LENGTH} characters; measured on {HELD_OUT} others. The paper's are thousands of times "
    "larger."
)


def text_model(seed: int, activation: str, gated: bool = True) -> nn.Module:
    """Return an untrained model of characters.

    Parameters
    ----------
    seed : int
        Of the weights.
    activation : str
        As transformers names it.
    gated : bool, default True
        Whether what is activated scales another projection.
    """
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.activations import ACT2FN

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=models.characters()[2],
            hidden_size=48,
            intermediate_size=GATED,
            hidden_act=activation,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=models.WINDOW,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    if not gated:
        for block in model.model.layers:
            up, down = nn.Linear(48, PLAIN, bias=False), nn.Linear(PLAIN, 48, bias=False)
            block.mlp = nn.Sequential(up, ACT2FN[activation], down)
            for layer in (up, down):
                nn.init.normal_(layer.weight, std=model.config.initializer_range)
    return model.eval()


def windows(held_out: bool = False) -> torch.Tensor:
    """Return windows of characters to learn from, or to be measured on."""
    return models.characters()[int(held_out)].reshape(-1, LENGTH)


def train(
    model: nn.Module,
    seed: int,
    steps: int,
    *,
    rate: float = 3e-3,
    data: torch.Tensor | None = None,
    parameters: Iterable[nn.Parameter] | None = None,
    penalty: Callable[[int], torch.Tensor] | None = None,
    at: Callable[[int], None] = lambda step: None,
) -> None:
    """Train a model of characters in place, at a rate that rises and falls.

    Parameters
    ----------
    model : nn.Module
        What is trained.
    seed : int
        Of the batches.
    steps : int
        How many.
    rate : float, default 0.003
        The highest.
    data : Tensor of shape (windows, characters), optional
        To learn from instead of :func:`windows`.
    parameters : iterable of Parameter, optional
        What is trained of it.
    penalty : callable, optional
        ``penalty(step)`` is added to the loss, after the model's pass.
    at : callable, optional
        ``at(step)`` is called after every step.
    """
    chosen = list(model.parameters() if parameters is None else parameters)
    optimizer = torch.optim.AdamW(chosen, lr=rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps + 1, pct_start=0.1)
    data, order = windows() if data is None else data, torch.Generator().manual_seed(seed)
    model.train()
    for step in range(steps):
        batch = data[torch.randint(len(data), (BATCH,), generator=order)]
        loss = model(input_ids=batch, labels=batch).loss
        if penalty is not None:
            loss = loss + penalty(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()
        schedule.step()
        at(step + 1)
    model.eval()


@torch.no_grad()
def log_perplexity(model: nn.Module, data: torch.Tensor | None = None) -> float:
    """Return the mean loss in nats per character of held-out windows, or of others."""
    held_out = (windows(held_out=True) if data is None else data)[:HELD_OUT].split(32)
    return float(np.mean([float(model(input_ids=batch, labels=batch).loss) for batch in held_out]))


def density(networks: Networks, data: torch.Tensor, above: float = 0.0) -> float:
    """Return the share of neurons whose activation is above a magnitude, over windows."""
    shares: list[float] = []

    def note(network: FeedForward, hidden: torch.Tensor) -> None:
        shares.append(float((hidden.abs() > above).float().mean()))

    with networks.watched(note), torch.no_grad():
        networks.model(input_ids=data)
    return float(np.mean(shares))
