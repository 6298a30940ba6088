"""How far a changed model's answers are from those that it gave before."""

from __future__ import annotations

__all__ = ["Likeness"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError
from ..parts.divergence import bucket_divergence, likeliest
from ..stream.passes import call, first_output, settled

#: Of the likeliest tokens' ids and log-probabilities, or an answer that is no prediction.
_Answer = tuple[torch.Tensor, torch.Tensor] | torch.Tensor


class Likeness:
    """The distance of a model's answers from those of the model as it is now.

    For models that give ``logits`` it is the divergence of the predictions, in nats, over the 64
    likeliest answers and the rest, without tokens that the attention mask leaves out; for others
    the squared distance of the first output, relative to its own square.

    Parameters
    ----------
    model : nn.Module
        It is asked at once, and may be changed afterwards.
    samples : sequence
        Model inputs.

    Raises
    ------
    DataError
        If there is no sample, or the model's answer is no tensor.
    """

    def __init__(self, model: nn.Module, samples: Sequence[Any]) -> None:
        if not samples:
            raise DataError("the search needs calibration data to compare models on: pass data=")
        self._model, self._samples = model, samples
        self._held = [self._hold(sample) for sample in samples]

    def __call__(self, indices: Sequence[int]) -> float:
        """Return the mean distance on the samples of these indices.

        Raises
        ------
        DataError
            If it is NaN.
        """
        total = sum(self._distance(index) for index in indices)
        if total != total:
            raise DataError("the model's answers are NaN; check the data and the model")
        return total / len(indices)

    @torch.no_grad()
    def _hold(self, sample: Any) -> _Answer:
        answer, are_logits = self._ask(sample)
        return likeliest(answer) if are_logits else answer

    @torch.no_grad()
    def _distance(self, index: int) -> float:
        answer, _ = self._ask(self._samples[index])
        held = self._held[index]
        if isinstance(held, tuple):
            return float(bucket_divergence(answer, *held).double().mean())
        scale = float(held.double().square().sum()) or 1.0
        return float((answer - held).double().square().sum()) / scale

    def _ask(self, sample: Any) -> tuple[torch.Tensor, bool]:
        with settled(self._model):
            output = call(self._model, sample)
        logits = getattr(output, "logits", None)
        if isinstance(logits, torch.Tensor) and logits.shape[-1] > 1:
            return _of_tokens(logits, sample).float(), True
        answer = first_output(output)
        if not isinstance(answer, torch.Tensor):
            raise DataError(
                f"{type(self._model).__name__} returns {type(answer).__name__}, and no tensor to "
                "compare: pass loss=, a function of (model, sample)"
            )
        return answer.float(), False


def _of_tokens(logits: torch.Tensor, sample: Any) -> torch.Tensor:
    """Return the logits as rows, without those of tokens that only fill up a batch."""
    mask = sample.get("attention_mask") if isinstance(sample, Mapping) else None
    if isinstance(mask, torch.Tensor) and mask.shape == logits.shape[:-1]:
        return logits[mask.to(logits.device) != 0]
    return logits.flatten(0, -2)
