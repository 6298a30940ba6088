"""Studies of speed: every method's product is timed in turn with the others, in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from thresher.run.measure.timing import compare

from ._study import Draw, Measured, Study


@dataclass(frozen=True)
class Timed(Study):
    """A study whose methods' answers are functions of no argument, which are timed.

    The measure ``seconds`` comes for free: the least of interleaved repeats. An answer that cannot
    be called has the other measures alone.

    Parameters
    ----------
    over, settings, draw, methods, measures, draws, failed
        See :class:`~thresher.evidence._study.Study`.
    repeats : int, default 9
        Rounds of all functions at scale 1, up to three times as many on a noisy machine.
    cold : bool, default True
        Whether caches are emptied before every call.
    touched : callable, optional
        ``touched(problem)`` returns data to read once more after that.
    gradients : bool, default False
        Whether the functions need gradients.
    """

    repeats: int = 9
    cold: bool = True
    touched: Callable[[Any], torch.Tensor] | None = None
    gradients: bool = False

    def observe(self, problem: Any, drawn: Draw) -> tuple[Measured, float | None]:
        """Return the seconds and other measures of every method, and the noise."""
        answers = {name: self.answer(method, problem) for name, method in self.methods.items()}
        answers = {name: answer for name, answer in answers.items() if answer is not None}
        timed = {name: answer for name, answer in answers.items() if callable(answer)}
        with torch.set_grad_enabled(self.gradients):
            touched = self.touched(problem) if self.touched else None
            repeats = drawn.amount(self.repeats, 3)
            compared = compare(timed, repeats, cold=self.cold, touched=touched)
            found = {
                measure: {name: float(of(answer, problem)) for name, answer in answers.items()}
                for measure, of in self.measures.items()
            }
        return {"seconds": {name: compared.best(name) for name in timed}} | found, compared.noise
