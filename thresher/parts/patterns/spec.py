"""Patterns by their text, such as ``"2:4"``."""

from __future__ import annotations

__all__ = ["parse"]

import re

from ...core.errors import OptionError, nearest
from .base import Pattern
from .blocks import Block, Channels
from .nm import NM
from .shared_rows import SharedRows
from .unstructured import FanIn, Unstructured

_NAMED: dict[str, Pattern] = {
    "unstructured": Unstructured(),
    "per-row": Unstructured("row"),
    "fan-in": FanIn(),
    "channels": Channels(),
}


def parse(spec: str | Pattern) -> Pattern:
    """Return the pattern that `spec` names.

    Parameters
    ----------
    spec : str or Pattern
        ``"unstructured"``, ``"per-row"``, ``"fan-in"``, ``"2:4"`` (N:M),
        ``"2:4/outputs"``, ``"16x16"`` (blocks of rows x columns), ``"channels"``,
        ``"channels/64"`` or ``"shared/4"``; a pattern is returned as it is.

    Returns
    -------
    Pattern

    Raises
    ------
    OptionError
        If `spec` is none of these.
    """
    if isinstance(spec, Pattern):
        return spec
    text = spec.strip().lower()
    if text in _NAMED:
        return _NAMED[text]
    if found := re.fullmatch(r"(\d+):(\d+)(?:/(inputs|outputs))?", text):
        return NM(int(found[1]), int(found[2]), found[3] or "inputs")
    if found := re.fullmatch(r"(\d+)x(\d+)", text):
        return Block(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"channels/(\d+)", text):
        return Channels(int(found[1]))
    if found := re.fullmatch(r"shared/(\d+)", text):
        return SharedRows(int(found[1]))
    raise OptionError(
        f"there is no pattern {spec!r}; {nearest(text, _NAMED)}; or N:M such as 2:4, or a "
        "block such as 16x16"
    )
