"""How far predictions are from others, of which the likeliest tokens are known."""

from __future__ import annotations

__all__ = ["bucket_divergence", "likeliest"]

from typing import Any

import torch

_TOP = 64
#: Of a bucket that has no probability at all.
_LEAST = -100.0


def likeliest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 64 likeliest tokens, and how likely they and all others together are.

    Parameters
    ----------
    logits : Tensor of shape (positions, vocabulary)

    Returns
    -------
    ids : Tensor of shape (positions, top), int64
        Fewer where the vocabulary has fewer than 65.
    log_probabilities : Tensor of shape (positions, top + 1)
        Of those, and of the rest; float32.
    """
    logits = logits.float()
    # One token at least is left for the rest.
    top = logits.topk(min(_TOP, logits.shape[-1] - 1), -1)
    rest = logits.scatter(-1, top.indices, -torch.inf).logsumexp(-1, keepdim=True)
    found = torch.cat((top.values, rest), -1) - logits.logsumexp(-1, keepdim=True)
    return top.indices, found.clamp(min=_LEAST)


def bucket_divergence(
    logits: torch.Tensor, ids: torch.Tensor, log_probabilities: torch.Tensor
) -> torch.Tensor:
    """Return how far predictions are from a teacher's, over its likeliest tokens and the rest.

    The Kullback-Leibler divergence of the distributions over ``top + 1`` buckets.

    Parameters
    ----------
    logits : Tensor of shape (positions, vocabulary)
        Of the student; gradients reach these.
    ids, log_probabilities : Tensor
        Of the teacher, see :func:`likeliest`.

    Returns
    -------
    Tensor of shape (positions,)
        In nats.
    """
    found: torch.Tensor = _BucketDivergence.apply(logits, ids, log_probabilities)  # type: ignore[no-untyped-call]
    return found


class _BucketDivergence(torch.autograd.Function):
    """Loss and gradient in one go: what autograd would keep is several times as wide as logits."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, ids: torch.Tensor, log_probabilities: torch.Tensor
    ) -> torch.Tensor:
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_student = logits.to(wide).log_softmax(-1)
        log_teacher = log_probabilities.to(wide)
        teacher = log_teacher.exp()
        top = log_student.gather(-1, ids)
        gradient = log_student.exp_().scatter_(-1, ids, 0)
        rest = gradient.sum(-1, keepdim=True).clamp(min=torch.finfo(wide).tiny)
        gradient *= 1 - teacher[:, -1:] / rest
        gradient.scatter_(-1, ids, top.exp() - teacher[:, :-1])
        ctx.save_for_backward(gradient.to(logits.dtype))
        # Never negative but for rounding, where both are the same.
        return (teacher * (log_teacher - torch.cat((top, rest.log()), -1))).sum(-1).clamp(min=0)

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> Any:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return gradient * scale[:, None].to(gradient.dtype), None, None
