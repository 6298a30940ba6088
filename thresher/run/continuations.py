"""What models write after the beginnings of texts, side by side."""

from __future__ import annotations

__all__ = ["sample_texts"]

from collections.abc import Callable, Mapping
from typing import Any

import torch

from .measure.modes import evaluating

#: Tokens that are given, and at most so many that follow.
_GIVEN, _NEW = 32, 48
_SAMPLES = 3


def sample_texts(
    models: Mapping[str, Callable[[], Any]], tokenizer: Any, windows: torch.Tensor
) -> list[dict[str, str]]:
    """Return how each model goes on with the same beginnings of windows, the likeliest token first.

    Parameters
    ----------
    models : mapping of str to callable
        What makes each causal language model of transformers; one is held at a time.
    tokenizer : transformers tokenizer
        Of all of them.
    windows : Tensor of shape (windows, length), int64
        Token ids; up to three of them, evenly spaced, are begun with their first 32 tokens, or
        half of a shorter window's.

    Returns
    -------
    list of dict of str to str
        For each: the ``prompt``, how the ``text`` itself goes on, and what every model writes, by
        its name: up to 48 tokens.
    """
    count, length = windows.shape
    chosen = windows[torch.linspace(0, count - 1, min(count, _SAMPLES)).long()]
    given = min(_GIVEN, length // 2)
    new = min(_NEW, length - given)
    written = {"text": chosen[:, : given + new]}
    for name, make in models.items():
        written[name] = _greedy(make(), chosen[:, :given], new)
    prompts = tokenizer.batch_decode(chosen[:, :given], skip_special_tokens=True)
    found = [{"prompt": prompt} for prompt in prompts]
    for name, ids in written.items():
        for sample, text in zip(
            found, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True
        ):
            # Of the whole, since tokens that begin a text are often decoded without their space.
            sample[name] = text.removeprefix(sample["prompt"])
    return found


def _greedy(model: Any, prompts: torch.Tensor, new: int) -> torch.Tensor:
    """Return prompts and as many new tokens, whatever the model's own way of drawing them is."""
    from transformers import GenerationConfig

    there = prompts.to(model.device)
    # What is not said here is the model's own, such as a penalty for words that were used.
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_new_tokens=new,
        max_new_tokens=new,
        pad_token_id=0,
    )
    with torch.no_grad(), evaluating(model):
        found: torch.Tensor = model.generate(
            there, attention_mask=torch.ones_like(there), generation_config=settings
        )
    return found.cpu()
