"""The loss whose gradients count, where a user passes none."""

from __future__ import annotations

__all__ = ["default_loss"]

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..core.errors import OptionError
from ..stream.passes import call

#: What transformers leaves out of a loss.
_IGNORED = -100


def default_loss(model: nn.Module, sample: Any) -> torch.Tensor:
    """Return the model's own loss on a sample's labels, or that of the next token.

    Parameters
    ----------
    model : nn.Module
        A transformers model, which computes a loss where it is given labels.
    sample : dict
        Its keywords. Without labels it is text of a causal language model: every token is to
        be told from those before it, but for tokens that the attention mask leaves out.

    Returns
    -------
    Tensor of shape ()

    Raises
    ------
    OptionError
        If the sample is no dict, has no labels where the next token is not what the model
        predicts, or the model returns no loss.
    """
    remedy = "pass loss=, a function of (model, sample)"
    if not isinstance(sample, Mapping):
        raise OptionError(f"this method uses gradients of a loss: {remedy}")
    if not any(_is_label(name) for name in sample):
        if "input_ids" not in sample:
            raise OptionError(f"the samples have no labels to take a loss of: {remedy}")
        _check_predicts_the_next_token(model, remedy)
        sample = {**sample, "labels": _labels(sample)}
    loss = getattr(call(model, sample), "loss", None)
    if not isinstance(loss, torch.Tensor):
        raise OptionError(f"{type(model).__name__} returns no loss for its labels: {remedy}")
    return loss


def _is_label(name: str) -> bool:
    return name in ("labels", "label", "label_ids", "start_positions", "next_sentence_label")


def _labels(sample: Mapping[str, Any]) -> torch.Tensor:
    """Return the tokens that are to be predicted, without those that only fill up a batch."""
    ids: torch.Tensor = sample["input_ids"]
    mask = sample.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.shape == ids.shape:
        return ids.masked_fill(mask == 0, _IGNORED)
    return ids


def _check_predicts_the_next_token(model: nn.Module, remedy: str) -> None:
    """Raise if a model is known to be trained on something else than the next token."""
    # By the names that transformers gives what it can do, also of wrapped models.
    inner = getattr(model, "module", model)
    kind = type(inner).__name__
    config = getattr(inner, "config", None)
    other = ("ForMaskedLM", "ForPreTraining", "Classification", "ForQuestionAnswering")
    if getattr(config, "is_encoder_decoder", False) or any(word in kind for word in other):
        raise OptionError(
            f"the samples have no labels, and {kind} does not predict the next token of its "
            f"input: give the samples the labels that it is trained on, or {remedy}"
        )
