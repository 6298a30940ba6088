"""Locks that a halted forward pass holds, for which another pass would wait for ever."""

from __future__ import annotations

__all__ = ["held_lock"]

import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_LOCK = type(threading.Lock())


def held_lock(frame: FrameType | None) -> str | None:
    """Return the name of a lock that is taken where a halted pass stands, None without one.

    What is looked at are the variables of the functions that the pass is in, the attributes of
    those variables, and the globals that these functions name.

    Parameters
    ----------
    frame : frame or None
        The innermost one of the pass.
    """
    while frame is not None:
        for name, value in _reachable(frame):
            if _is_taken(value):
                return name
        frame = frame.f_back
    return None


def _reachable(frame: FrameType) -> Iterator[tuple[str, Any]]:
    names = frame.f_code.co_names
    yield from ((name, frame.f_globals[name]) for name in names if name in frame.f_globals)
    for name, value in frame.f_locals.items():
        yield name, value
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            yield from list(attributes.items())


def _is_taken(value: Any) -> bool:
    if isinstance(value, threading.Condition):
        value = value._lock  # type: ignore[attr-defined]
    if isinstance(value, _LOCK):
        return value.locked()
    # One that may be taken again by the same thread lets the next pass through.
    return isinstance(value, threading.Semaphore) and value._value == 0
