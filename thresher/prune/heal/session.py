"""A healing run from two models and a text to its record, in memory and from folders alike."""

from __future__ import annotations

__all__ = ["HealOptions", "Session", "check_teacher", "split"]

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.errors import DataError, LayerError
from ...core.options import check_number, check_whole
from ...core.progress import progress_bar
from ...parts.activations.attached import PRUNE_FIRST, check_none
from ...parts.coverage import cover
from ...run.files.export import tokenizer_of
from ...run.measure.modes import evaluating
from ...stream.precision import Precision, widened
from ...stream.ranks import check_agreement, is_first
from .distil import Teacher
from .record import HealRecord
from .run import Healer, Plan
from .state import HealState
from .student import Student
from .tap import Tap, observed_blocks

_HELD_OUT = 8
_LINES = 20
#: From this share of zeros on a teacher is pruned itself.
_PRUNED = 1 / 16


@dataclass(frozen=True)
class HealOptions:
    """How to heal a model.

    Parameters
    ----------
    minutes : float, default 30
        Time for everything but loading and writing.
    windows, length : int, default 1024 and 512
        How many windows of how many tokens a text is cut into, at most.
    seed : int, default 0
        Of the order in which windows are read.
    precision : torch.dtype, optional
        Of passes; by default that of the weights where the device multiplies it at full speed,
        otherwise float32. Weights are trained in float32.
    progress : bool, default True
        Show a progress bar on a terminal, and write lines elsewhere.
    clock : callable, default time.monotonic
        Returns seconds.

    Raises
    ------
    OptionError
        If a number is out of its range.
    """

    minutes: float = 30.0
    windows: int = 1024
    length: int = 512
    seed: int = 0
    precision: torch.dtype | None = None
    progress: bool = True
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        check_number("minutes", self.minutes, above=0.0)
        check_whole("windows", self.windows, 2)
        check_whole("length", self.length, 2)
        check_whole("seed", self.seed, 0)


def split(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return windows to train on and windows to judge by, none of which is in both.

    Parameters
    ----------
    samples : list
        Model inputs, see :func:`thresher.stream.samples.as_samples`.

    Raises
    ------
    DataError
        If they are no windows of one length, or fewer than two.
    """
    rows = [sample.get("input_ids") if isinstance(sample, dict) else None for sample in samples]
    if any(row is None or row.dim() != 2 or row.shape[0] != 1 for row in rows):
        raise DataError("healing reads windows of token ids; pass texts, or a tensor of ids")
    lengths = {row.shape[1] for row in rows if row is not None}
    if len(lengths) > 1:
        raise DataError(f"windows have lengths from {min(lengths)} to {max(lengths)}; pass one")
    if len(rows) < 2:
        raise DataError(
            f"the text gives {len(rows)} window of {max(lengths)} tokens, and healing needs one to "
            "train on and another one to judge by, at least; pass more text or shorten the windows"
        )
    whole = torch.cat([row for row in rows if row is not None]).cpu()
    held_out = min(_HELD_OUT, max(1, len(whole) // 4))
    return whole[:-held_out], whole[-held_out:]


def check_teacher(student: nn.Module, teacher: nn.Module) -> None:
    """Raise unless two models speak of the same tokens, and the student's activations are dense.

    Parameters
    ----------
    student, teacher : nn.Module
        Language models; parameters may be without data.

    Raises
    ------
    DataError
        Naming what differs.
    LayerError
        If the student drops activations.
    """
    check_none(student, PRUNE_FIRST)
    sizes = [Tap(model, Precision()).vocabulary for model in (student, teacher)]
    words = [None if (t := tokenizer_of(m)) is None else t.get_vocab() for m in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"the model predicts {sizes[0]} tokens and the teacher {sizes[1]}; the teacher must "
            "have the same tokenizer: use the dense model that was pruned"
        )
    if None not in words and words[0] != words[1]:
        raise DataError(
            f"the teacher's tokenizer has other tokens than the model's ({len(words[1] or ())} and "
            f"{len(words[0] or ())}), so that their predictions are not of the same things; use "
            "the dense model that was pruned"
        )


@dataclass
class Session:
    """Two models and a text.

    Parameters
    ----------
    model, teacher : nn.Module
        With their weights, on one device.
    samples : list
        Model inputs.
    options : HealOptions
        How to go about it.
    names : dict of str to str
        ``teacher`` and ``text``, for the record.
    work : Path
        For the teacher's answers.
    state : HealState
        How far an earlier process came.
    keep : bool
        Whether to keep the state in `work`.
    """

    model: nn.Module
    teacher: nn.Module
    samples: list[Any]
    options: HealOptions
    names: dict[str, str]
    work: Path
    state: HealState
    keep: bool

    @contextmanager
    def healed(self) -> Iterator[HealRecord]:
        """Heal the model; while the context lasts it holds the best weights in float32."""
        _warn_if_pruned(self.teacher)
        windows, held_out = split(self.samples)
        read = torch.cat((windows, held_out)).numpy().tobytes()
        check_agreement(hashlib.sha256(read).hexdigest(), "the text to heal on")
        passes = self._passes()
        wide = Precision(torch.bfloat16, torch.float32)
        with (
            Student.of(self.model) as student,
            evaluating(self.teacher),
            widened(self.teacher, wide),
        ):
            tap, dense = Tap(self.model, passes), Tap(self.teacher, passes)
            blocks = _common_blocks(tap, dense, windows[0])
            teacher = Teacher(dense, blocks, self.work / "teacher")
            plan = Plan(60 * self.options.minutes, seed=self.options.seed)
            folder = self.work if self.keep else None
            clock = self.options.clock
            with _reporting(self.options, self.state, plan) as report:
                healer = Healer(
                    student,
                    tap,
                    teacher,
                    windows,
                    held_out,
                    plan,
                    self.state,
                    folder,
                    clock,
                    report,
                )
                healer.run()
            yield self._record(healer, str(passes.passes).removeprefix("torch."))

    def _passes(self) -> Precision:
        weight = cover(self.model).layers[0].weight
        natural = Precision.natural(weight.dtype, weight.device, self.options.precision)
        return Precision(torch.float32, natural.passes)

    def _record(self, healer: Healer, precision: str) -> HealRecord:
        state, plan, shape = healer.state, healer.plan, healer.windows.shape
        return HealRecord(
            **self.names,
            minutes=self.options.minutes,
            seconds=state.seconds,
            steps=state.step,
            tokens=state.step * plan.batch * shape[1],
            windows=shape[0],
            held_out=len(healer.held_out),
            length=shape[1],
            rate=state.rate,
            loss_before=state.before or 0.0,
            loss_after=state.best or 0.0,
            best_step=state.best_step,
            seed=plan.seed,
            precision=precision,
            hidden=healer.teacher.blocks,
            probes=state.probes,
            checks=state.checks,
            fingerprint=state.fingerprint,
        )


def _warn_if_pruned(teacher: nn.Module) -> None:
    try:
        weights = [layer.weight for layer in cover(teacher).layers]
    except LayerError:
        return
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    share = zeros / sum(weight.numel() for weight in weights)
    if share > _PRUNED:
        warnings.warn(
            f"the teacher is pruned itself: {share:.0%} of its weights are zero; the dense model "
            "teaches more",
            stacklevel=2,
        )


def _common_blocks(student: Tap, teacher: Tap, window: torch.Tensor) -> list[str]:
    """Return blocks that both models have, whose hidden states can be compared."""
    names = observed_blocks(student, window)
    if names != observed_blocks(teacher, window):  # of another depth
        return []
    with torch.no_grad():
        shapes = [[h.shape for h in tap.run(window, names)[1]] for tap in (student, teacher)]
    return names if shapes[0] == shapes[1] else []


@contextmanager
def _reporting(
    options: HealOptions, state: HealState, plan: Plan
) -> Iterator[Callable[[HealState, float], None]]:
    """Show loss and time left, a line for every twentieth of the time."""
    done = int(_LINES * min(1.0, state.seconds / plan.seconds))
    with progress_bar(_LINES - done, options.progress and is_first(), lines=True) as advance:
        reached = done

        def report(state: HealState, loss: float) -> None:
            nonlocal reached
            left = max(0.0, plan.seconds - state.seconds) / 60
            phase = "trying learning rates" if state.begun is None else f"step {state.step}"
            text = f"{phase}, divergence {loss:.4f}, held out {state.lowest:.4f} at best, "
            now = int(_LINES * min(1.0, state.seconds / plan.seconds))
            if now > reached:
                advance(f"{text}{left:.1f} minutes left", now - reached)
                reached = now

        yield report
