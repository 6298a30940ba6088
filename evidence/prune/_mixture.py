"""A small mixture of experts that has learned two kinds of text, for studies of its experts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from thresher.assets import state_of_the_union
from thresher.parts.calibration import embedded_text

from .._models import WINDOW
from .._study import Draw

#: Steps of training on both kinds of text, and windows of a batch.
_STEPS, _BATCH = 300, 16
_HELD_OUT, CALIBRATION = 48, 32
#: How many experts each block has; two of them see a token.
EXPERTS = 8

#: What the model is, for the note of a study.
MODEL = (
    f"The model is a Mixtral of two blocks with {EXPERTS} experts each, 0.4 M weights in all, "
    f"trained anew for every seed for {_STEPS} steps on characters of Python's documentation and "
    "of State of the Union addresses."
)


# By identity, so that what is learned of one draw can be remembered.
@dataclass(frozen=True, eq=False)
class Trained:
    """A mixture that was trained on both kinds of text, and windows of each."""

    model: nn.Module
    train: tuple[torch.Tensor, torch.Tensor]
    held_out: tuple[torch.Tensor, torch.Tensor]
    drawn: Draw


@functools.lru_cache(maxsize=1)
def trained(drawn: Draw) -> Trained:
    """Return the mixture of a draw; the last one is kept."""
    kinds, size = _windows()
    train = tuple(each[: len(each) * 9 // 10] for each in kinds)
    held_out = tuple(each[len(each) * 9 // 10 :][: drawn.amount(_HELD_OUT, 4)] for each in kinds)
    torch.manual_seed(drawn.seed)
    model = _mixture(size, EXPERTS)
    fit(model, torch.cat(train), drawn.seed, drawn.amount(_STEPS, 5), 3e-3)
    return Trained(model, train, held_out, drawn)


@functools.lru_cache(maxsize=1)
def trained_dense(drawn: Draw) -> nn.Module:
    """Return a model of one expert a block that was trained as the mixture of a draw was."""
    kinds, size = _windows()
    torch.manual_seed(drawn.seed)
    model = _mixture(size, 1)
    train = torch.cat([each[: len(each) * 9 // 10] for each in kinds])
    fit(model, train, drawn.seed, drawn.amount(_STEPS, 5), 3e-3)
    return model


def _mixture(vocabulary: int, experts: int) -> nn.Module:
    """Return an untrained mixture."""
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=112,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            num_local_experts=experts,
            num_experts_per_tok=min(2, experts),
            max_position_embeddings=WINDOW,
            tie_word_embeddings=True,
            router_aux_loss_coef=0.01,
            output_router_logits=False,
        )
    ).eval()


def fit(
    model: Any, windows: torch.Tensor, seed: int, steps: int, rate: float, rising: float = 0.1
) -> None:
    """Train a model on random windows, in place; the rate rises for a share of them and falls."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=rising
    )
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        batch = windows[torch.randint(len(windows), (_BATCH,), generator=order)]
        # With the loss that keeps experts from lying idle.
        loss = model(input_ids=batch, labels=batch, output_router_logits=True, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def log_perplexity(model: Any, windows: torch.Tensor) -> float:
    """Return the mean loss in nats a character."""
    parts = [model(input_ids=w, labels=w, use_cache=False).loss for w in windows.split(16)]
    return float(np.mean([float(part) for part in parts]))


@functools.cache
def _windows() -> tuple[tuple[torch.Tensor, torch.Tensor], int]:
    """Return windows of both kinds of text, as many of each, and the vocabulary's size."""
    texts = (embedded_text(), state_of_the_union(1990, 2021))
    codes = [np.frombuffer(t.encode("ascii", "replace"), dtype=np.uint8) for t in texts]
    known = np.unique(np.concatenate(codes))
    count = min(len(each) for each in codes) // WINDOW
    kinds = tuple(
        torch.from_numpy(np.searchsorted(known, each[: count * WINDOW]).reshape(count, WINDOW))
        for each in codes
    )
    return kinds, len(known)
