"""The healing loop: distillation from the dense model in a given time, with the zeros held."""

from __future__ import annotations

__all__ = ["Healer", "Plan"]

import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import distributed

from ...core.errors import NumericalError
from ...parts.schedules import Cosine
from ...stream.ranks import is_first, ranks
from .distil import Teacher, backward, divergence
from .state import HealState
from .student import Student
from .tap import Tap

_RATES = (1e-4, 3e-4, 6e-4)
#: Share of the time that goes into trying them, and in which the rate rises at the start.
_PROBING, _WARM_UP = 0.12, 0.05
#: The training is evaluated so many times, and at least so often, in seconds.
_CHECKS, _LONGEST = 12, 300.0


@dataclass(frozen=True)
class Plan:
    """How to heal.

    Parameters
    ----------
    seconds : float
        Time there is.
    batch : int
        Windows in a step.
    seed : int
        Of the order of windows.
    """

    seconds: float
    batch: int = 4
    seed: int = 0


@dataclass
class Healer:
    """A healing run, or the rest of one.

    Parameters
    ----------
    student : Student
        The pruned model.
    tap : Tap
        The same model's.
    teacher : Teacher
        The dense one.
    windows : Tensor of shape (windows, length), int64
        To train on.
    held_out : Tensor of shape (windows, length), int64
        To judge by.
    plan : Plan
        How to go about it.
    state : HealState
        How far an earlier process came.
    folder : Path or None
        Where to keep the state.
    clock : callable
        Returns seconds.
    report : callable
        Called after every step.
    """

    student: Student
    tap: Tap
    teacher: Teacher
    windows: torch.Tensor
    held_out: torch.Tensor
    plan: Plan
    state: HealState
    folder: Path | None
    clock: Callable[[], float]
    report: Callable[[HealState, float], None]
    best: dict[str, torch.Tensor] = field(default_factory=dict, init=False)
    _last: float = field(default=0.0, init=False)

    def run(self) -> None:
        """Train until the time is over; the model then is the best that it has been."""
        self.best = self.student.values(rounded=True)
        self._resume()
        self._last = self.clock()
        state = self.state
        if state.before is None:
            state.before = self._check()
            _check_finite(state.before)
            state.check_seconds = state.seconds
            self._save()
        while state.begun is None:
            self._probe_or_begin()
            self._save()
        # Time for the last evaluation is kept back.
        end = self.plan.seconds - state.check_seconds
        if not self._train(state.rate, state.begun, end, True):
            warnings.warn(
                f"gradients were no longer finite after {state.step} steps at learning rate "
                f"{state.rate:g}; the best weights until then are kept",
                stacklevel=2,
            )
        if state.step == 0:
            warnings.warn(
                f"{self.plan.seconds / 60:g} minutes were too short for a step of training, so "
                f"that nothing was healed: an evaluation alone takes {state.check_seconds:.0f} s "
                "here; give more minutes, or shorter or fewer windows",
                stacklevel=2,
            )
        if not state.checks or state.checks[-1]["step"] != state.step:
            self._check()
        self.student.set(self.best)

    def _probe_or_begin(self) -> None:
        state, start = self.state, dict(self.best)
        span = self.plan.seconds * _PROBING / len(_RATES) - state.check_seconds
        tried = len(state.probes)
        # One step says nothing of a rate.
        useless = span <= 0 or any(probe["steps"] < 2 for probe in state.probes)
        if useless or tried == len(_RATES):
            middle = _RATES[len(_RATES) // 2]
            best = min(state.probes, key=lambda probe: probe["loss"], default={"rate": middle})
            state.rate = middle if useless else best["rate"]
            state.begun, state.next_check = state.seconds, state.seconds + self._interval()
        else:
            rate = _RATES[tried]
            finite = self._train(rate, state.seconds, state.seconds + span, False)
            loss = self._judged()[0] if finite else math.inf
            probe = {"rate": rate, "loss": _written(loss), "steps": state.step}
            state.probes.append(probe)
        state.step = 0
        self.student.restart(start)

    def _train(self, rate: float, begin: float, end: float, checks: bool) -> bool:
        """Train from one moment to another; return whether the gradients stayed finite."""
        state = self.state
        while state.seconds + state.step_seconds <= end:
            middle = state.seconds + state.step_seconds / 2
            self._set_rate(rate * _shape((middle - begin) / max(end - begin, 1e-9)))
            before = state.seconds
            try:
                loss = self._step()
            except NumericalError:
                # Of a probe, whose rate is too high. What was best is kept in any case.
                return False
            state.step += 1
            self._tick()
            state.step_seconds = state.seconds - before
            self.report(state, loss)
            if checks and state.seconds >= state.next_check:
                self._check()
                state.next_check = state.seconds + self._interval()
                self._save(moved=True)
        return True

    def _step(self) -> float:
        """Take a step on this process's share of the next windows; return the divergence."""
        total, many = 0.0, ranks()
        batch = max(self.plan.batch, many)
        mine = distributed.get_rank() if many > 1 else 0
        for index in self._batch(self.state.step, batch)[mine::many]:
            window = self.windows[index]
            targets = self.teacher.ask(index, window)
            share = many / batch
            total += share * backward(self.tap, self.teacher.blocks, window, targets, share)
        if many > 1:
            self.student.optimizer.average()
        self.student.optimizer.step()
        return total

    def _batch(self, step: int, size: int) -> list[int]:
        """Return the numbers of a step's windows: every epoch goes through all in a new order."""
        found = []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, len(self.windows))
            generator = torch.Generator().manual_seed(1_000_003 * self.plan.seed + epoch)
            found.append(int(torch.randperm(len(self.windows), generator=generator)[place]))
        return found

    def _check(self) -> float:
        """Evaluate, and keep the weights if they are the best so far."""
        state = self.state
        loss, stored = self._judged()
        if loss < state.lowest:
            state.best, state.best_step, self.best = loss, state.step, stored
        check = {"seconds": state.seconds, "step": state.step, "loss": _written(loss)}
        state.checks.append(check)
        return loss

    def _judged(self) -> tuple[float, dict[str, torch.Tensor]]:
        """Return the loss on held-out windows, and the weights as they are stored that have it."""
        with self.student.rounded() as stored:
            loss = self._divergence()
        self._tick()
        return loss, stored

    def _divergence(self) -> float:
        mine = distributed.get_rank() if ranks() > 1 else 0
        losses = torch.zeros(len(self.held_out), dtype=torch.float64)
        for i in range(mine, len(losses), ranks()):
            targets = self.teacher.ask(len(self.windows) + i, self.held_out[i])
            losses[i] = divergence(self.tap, self.held_out[i], targets)
        if ranks() > 1:
            distributed.all_reduce(losses)
        return float(losses.mean())

    def _interval(self) -> float:
        return min(_LONGEST, self.plan.seconds / _CHECKS)

    def _set_rate(self, rate: float) -> None:
        for group in self.student.optimizer.param_groups:
            group["lr"] = rate

    def _tick(self) -> None:
        """Count the time since the last tick, the same in all processes."""
        now = self.clock()
        spent = torch.tensor(now - self._last, dtype=torch.float64)
        if ranks() > 1:
            distributed.broadcast(spent, 0)
        self.state.seconds, self._last = self.state.seconds + float(spent), now

    def _save(self, moved: bool = False) -> None:
        """Save the state, with weights and moments if they have moved from the start."""
        if self.folder is None or not is_first():
            return
        tensors = None
        if moved:
            tensors = self.student.snapshot()
            tensors |= {f"best.{name}": value.cpu() for name, value in self.best.items()}
        self.state.save(self.folder, tensors)

    def _resume(self) -> None:
        saved = {} if self.folder is None else self.state.tensors(self.folder)
        if saved:
            self.student.restore(saved)
            self.best = {name: saved[f"best.{name}"] for name in self.best}


def _shape(progress: float) -> float:
    """Return the share of the learning rate at a moment: a short rise, then half a cosine."""
    reached = min(1.0, max(0.0, progress))
    return Cosine()(reached) * min(1.0, (reached + 1e-9) / _WARM_UP)


def _written(loss: float) -> float:
    """Return a loss as JSON can hold it, where there is neither NaN nor infinity."""
    return loss if math.isfinite(loss) else sys.float_info.max


def _check_finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise NumericalError(
            f"the divergence from the teacher is {loss}; one of the two models holds NaN or "
            "infinite weights, or its passes overflow: try precision float32"
        )
