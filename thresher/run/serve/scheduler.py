"""One thread that computes all texts under way together, and the line of those that wait."""

from __future__ import annotations

__all__ = ["End", "FullError", "Scheduler", "Task"]

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import _run
from ..engine.continuation import Continuation
from ..engine.session import Batch, Session
from ..engine.text import Piece, TextStream

_logger = logging.getLogger(__name__)


class FullError(Exception):
    """As many texts wait as may."""


@dataclass(frozen=True)
class End:
    """How a text ended.

    Parameters
    ----------
    reason : {"stop", "length", "error"}
        Whether the model or a stop string ended it, or there was no room for more.
    prompt, new : int
        Tokens.
    cached : int
        Tokens of the prompt that were not computed again.
    error : str, optional
        What went wrong.
    """

    reason: str
    prompt: int
    new: int
    cached: int
    error: str | None = None


class Task:
    """A text that is asked for.

    Parameters
    ----------
    text : Continuation
    pieces : TextStream
    deliver : callable
        Takes every piece, and at last the end; it is called in the scheduler's thread.
    """

    def __init__(
        self, text: Continuation, pieces: TextStream, deliver: Callable[[Piece | End], None]
    ) -> None:
        self.text, self.pieces, self.deliver = text, pieces, deliver
        self.prompt = text.text
        self.cached = 0
        self.cancelled = False
        """Set by whoever wants no more of it: it then ends without a word."""


class Scheduler:
    """Computes texts, several at a time.

    A step takes every text under way one token further, and beside them so much of new prompts as
    a pass has room for, so that a long prompt holds nobody up for long. What a text becomes does
    not depend on the others.

    Parameters
    ----------
    model : EngineModel
    slots : int
        Texts under way at a time. Each keeps its keys and values when it ends, for a prompt that
        begins alike.
    queue : int
        Texts that may wait beside them.
    """

    def __init__(self, model: _run.EngineModel, slots: int, queue: int) -> None:
        self._model, self._most = model, slots + queue
        self._batch = Batch(model)
        self._free = [Session(model) for _ in range(slots)]  # the longest unused first
        self._active: list[tuple[Task, Session]] = []
        self._waiting: deque[Task] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """How many texts are under way."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """How many texts wait."""
        return len(self._waiting)

    def submit(self, task: Task) -> None:
        """Have a text computed.

        Raises
        ------
        FullError
            If as many wait as may.
        """
        with self._change:
            if len(self._waiting) + len(self._active) >= self._most:
                raise FullError
            self._waiting.append(task)
            self._change.notify()

    def cancel(self, task: Task) -> None:
        """End a text without a word; nothing if it has ended."""
        with self._change:
            task.cancelled = True
            if task in self._waiting:
                self._waiting.remove(task)

    def close(self) -> None:
        """Cancel all texts, and return once none is computed any more."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._ready():
            parts = self._parts()
            try:
                found = self._batch.logits([part for _, part in parts])
            except Exception as error:  # whoever waits for a text has to hear of it
                self._give_up(error)
                continue
            for (task, _), logits in zip(parts, found, strict=True):
                if len(logits):
                    self._grow(task, logits[0])

    def _ready(self) -> bool:
        """Wait until there is something to compute; False where there will be nothing."""
        with self._change:
            while not self._closed:
                for task in [task for task, _ in self._active if task.cancelled]:
                    self._release(task)
                while self._waiting and self._free:
                    task = self._waiting.popleft()
                    session = self._session_for(task.prompt)
                    task.cached = session.common(task.prompt)
                    self._active.append((task, session))
                if self._active:
                    return True
                self._change.wait()
            return False

    def _session_for(self, prompt: NDArray[np.int64]) -> Session:
        """Take the one that has most of a prompt, if that is half of it or of what the one holds.

        Otherwise a conversation that may go on would make room for another that only begins alike.
        """
        like = {each: each.common(prompt) for each in self._free}
        good = [
            each
            for each, common in like.items()
            if common and 2 * common >= min(len(prompt), len(each.held))
        ]
        # Of several the one that loses least.
        chosen = max(good, key=lambda each: (like[each], -len(each.held)), default=self._free[0])
        self._free.remove(chosen)
        return chosen

    def _parts(self) -> list[tuple[Task, tuple[Session, NDArray[np.int64], int]]]:
        """Return what the next pass computes: of texts a token, and of prompts what fits in."""
        growing = [(task, session) for task, session in self._active if task.text.new]
        parts = [(task, (session, task.text.text, 1)) for task, session in growing]
        chunk: int = _run.EngineWork.chunk
        room = max(chunk - len(growing), chunk // 4)
        for task, session in self._active:
            if task.text.new or not room:
                continue
            done = session.common(task.prompt)
            end = min(done + room, len(task.prompt))
            parts.append((task, (session, task.prompt[:end], int(end == len(task.prompt)))))
            room -= end - done
        return parts

    def _grow(self, task: Task, logits: NDArray[np.float32]) -> None:
        try:
            token = task.text.choose(logits)
            if token is not None:
                self._deliver(task, task.pieces.add(token))
            if task.text.left and not task.pieces.stopped:
                return
            self._deliver(task, task.pieces.rest())
        except Exception as error:  # of one text, which must not end the others
            self._end(task, "error", str(error) or type(error).__name__)
            return
        ended = task.pieces.stopped or task.text.ended
        self._end(task, "stop" if ended else "length")

    def _deliver(self, task: Task, piece: Piece) -> None:
        if piece and not task.cancelled:
            task.deliver(piece)

    def _end(self, task: Task, reason: str, error: str | None = None) -> None:
        with self._change:
            self._release(task)
        if not task.cancelled:
            task.deliver(End(reason, len(task.prompt), task.text.new, task.cached, error))

    def _release(self, task: Task) -> None:
        held = next(pair for pair in self._active if pair[0] is task)
        self._active.remove(held)
        self._free.append(held[1])

    def _give_up(self, error: Exception) -> None:
        """End all texts under way; memory may be short, so that nothing is kept."""
        _logger.error("a pass failed", exc_info=error)
        said = str(error) or type(error).__name__
        for task in [task for task, _ in self._active]:
            self._end(task, "error", f"the texts under way could not be computed: {said}")
        with self._change:
            self._free = [Session(self._model) for _ in self._free]
