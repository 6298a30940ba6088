"""Distillation: what a teacher says of a text, and how far a student is from it."""

from __future__ import annotations

__all__ = ["Targets", "Teacher", "backward", "divergence"]

from dataclasses import dataclass
from pathlib import Path

import torch

from ...parts.divergence import bucket_divergence, likeliest
from ...run.files.tensors import TensorFile
from ...run.files.writer import save_tensors
from .tap import POSITIONS, Tap

#: How much the hidden states count beside the divergence in nats.
_HIDDEN = 0.25


@dataclass(frozen=True)
class Targets:
    """What a teacher says of one window.

    Parameters
    ----------
    ids : Tensor of shape (positions, top), int64
        The likeliest next tokens.
    log_probabilities : Tensor of shape (positions, top + 1)
        Of those, and of all other tokens together.
    hidden : tuple of Tensor of shape (positions, width)
        Outputs of the observed blocks.
    """

    ids: torch.Tensor
    log_probabilities: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()


class Teacher:
    """The dense model, asked once about every window.

    What it says is kept in a folder, a file for each window: 64 probabilities, that of all other
    tokens, and hidden states of a few blocks in bfloat16, so that later epochs, and a run that is
    gone on with, do not ask again.

    Parameters
    ----------
    tap : Tap
        The model.
    blocks : list of str
        Those whose hidden states are wanted.
    folder : Path
        Where to keep answers.
    """

    def __init__(self, tap: Tap, blocks: list[str], folder: Path) -> None:
        self._tap, self._folder = tap, folder
        self.blocks = blocks
        folder.mkdir(parents=True, exist_ok=True)

    def ask(self, index: int, window: torch.Tensor) -> Targets:
        """Return what the teacher says of the window of this number."""
        path = self._folder / f"{index:06d}.safetensors"
        if not path.is_file():
            found = self._answer(window)
            held = {"ids": found.ids.int(), "log_probabilities": found.log_probabilities}
            held |= {f"hidden.{i}": state for i, state in enumerate(found.hidden)}
            save_tensors({name: tensor.cpu() for name, tensor in held.items()}, path)
        file = TensorFile(path)
        hidden = tuple(file.read(f"hidden.{i}") for i in range(len(self.blocks)))
        # As they were stored, whether they were there before or not: both give the same result.
        return Targets(file.read("ids").long(), file.read("log_probabilities"), hidden)

    @torch.no_grad()
    def _answer(self, window: torch.Tensor) -> Targets:
        final, hidden = self._tap.run(window, self.blocks)
        parts = [likeliest(self._tap.logits(part)) for part in final.split(POSITIONS)]
        ids, log_probabilities = (torch.cat(each) for each in zip(*parts, strict=True))
        return Targets(ids, log_probabilities, tuple(state.bfloat16() for state in hidden))


@torch.no_grad()
def divergence(student: Tap, window: torch.Tensor, targets: Targets) -> float:
    """Return the mean divergence from a teacher over a window's positions, in nats."""
    final, _ = student.run(window)
    total = 0.0
    for start in range(0, len(final), POSITIONS):
        total += float(_portion(student, final, targets, start).double().sum())
    return total / len(final)


def backward(
    student: Tap, blocks: list[str], window: torch.Tensor, targets: Targets, share: float
) -> float:
    """Add the gradient of a window's loss to those of the student's parameters.

    The loss is the divergence and, a quarter of it, the squared distance of hidden states
    relative to the teacher's own square, position by position: the first token's is by far the
    largest in many models and would be all that counts.

    Parameters
    ----------
    student : Tap
        Its passes are differentiated.
    blocks : list of str
        Where the hidden states of the targets come from.
    window : Tensor of shape (positions,), int64
    targets : Targets
        Of that window.
    share : float
        Of this window in the step's loss.

    Returns
    -------
    float
        The divergence, in nats.
    """
    final, hidden = student.run(window, blocks)
    # Head and loss a few positions at a time, so that only their gradient is held as a whole.
    leaf, total = final.detach().requires_grad_(), 0.0
    for start in range(0, len(leaf), POSITIONS):
        part = _portion(student, leaf, targets, start).sum() / len(leaf)
        (part * share).backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    losses = [_distance(s, t) for s, t in zip(hidden, targets.hidden, strict=True)]
    scale = _HIDDEN * share / max(1, len(losses))
    roots = [final, *(loss * scale for loss in losses)]
    torch.autograd.backward(roots, [leaf.grad, *(None for _ in losses)])
    return total


def _portion(student: Tap, final: torch.Tensor, targets: Targets, start: int) -> torch.Tensor:
    stop = start + POSITIONS
    logits = student.logits(final[start:stop])
    ids, held = targets.ids[start:stop], targets.log_probabilities[start:stop]
    return bucket_divergence(logits, ids.to(logits.device), held.to(logits.device))


def _distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    teacher = teacher.to(student.device, torch.float32)
    square = (student.float() - teacher).square().sum(-1)
    return (square / teacher.square().sum(-1).clamp(min=1e-12)).mean()
