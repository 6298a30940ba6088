"""A task of many steps, each of which needs the one before: running sums of digits."""

from __future__ import annotations

import functools

import torch
from torch import nn

#: Digits of a problem, and as many of its answer; their modulus; the sign between them.
STEPS, MODULUS, EQUALS = 12, 10, 10
#: Tokens: the digits, the sign, and all of the answer but its last.
_LENGTH = 2 * STEPS
_WIDTH, _NEURONS, _BLOCKS = 48, 192, 2
_BATCH, _RATE = 64, 3e-3


def problems(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts of shape (count, STEPS + 1), and answers of shape (count, STEPS)."""
    generator = torch.Generator().manual_seed(seed)
    digits = torch.randint(MODULUS, (count, STEPS), generator=generator)
    prompts = torch.cat([digits, torch.full((count, 1), EQUALS)], dim=1)
    return prompts, digits.cumsum(dim=1) % MODULUS


@functools.lru_cache(maxsize=1)
def trained(seed: int, steps: int) -> nn.Module:
    """Return a Llama of 0.08 M weights that writes the running sums of digits."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=MODULUS + 1,
            hidden_size=_WIDTH,
            intermediate_size=_NEURONS,
            num_hidden_layers=_BLOCKS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2 * _LENGTH,
            tie_word_embeddings=False,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, steps + 1, pct_start=0.1)
    model.train()
    for step in range(steps):
        prompts, answers = problems(_BATCH, 1_000_003 * (seed + 1) + step)
        logits = model(input_ids=torch.cat([prompts, answers[:, :-1]], dim=1)).logits
        loss = nn.functional.cross_entropy(logits[:, STEPS:].flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()
