"""The windows of text that the models of a comparison are calibrated, healed and evaluated on."""

from __future__ import annotations

__all__ = ["Texts", "read_texts"]

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .assets.fetch import is_cached
from .assets.registry import ASSETS
from .assets.texts import gutenberg
from .core.errors import DataError, OptionError
from .parts.calibration import (
    EMBEDDED,
    file_windows,
    split_windows,
    token_windows,
    warn_of_fewer,
)
from .parts.limits import fitting_length
from .run.skeleton import build_model
from .workflow import load_tokenizer

#: Most windows that perplexity is measured on.
_EVALUATION_WINDOWS = 16
#: Most tokens to heal on, beside those that are calibrated on.
_HEALING_TOKENS = 1 << 19
_NO_OTHER = "no second text is at hand; --other-text FILE names one"


@dataclass(frozen=True)
class Texts:
    """What the models of a comparison read.

    Parameters
    ----------
    windows : dict of str to Tensor of shape (windows, length), int64
        ``calibration``; ``held_out`` and, if there is another text, ``other`` to evaluate on;
        ``heal`` to heal on, everything but what is held out.
    described : dict
        See :class:`~thresher.prune.comparison.Comparison`.
    missing : dict of str to str
        Likewise.
    """

    windows: dict[str, torch.Tensor]
    described: dict[str, Any]
    missing: dict[str, str]


def read_texts(
    source: Path,
    calibration: str | Path | None,
    other: str | Path | None,
    windows: int,
    length: int,
    heal: bool,
) -> Texts:
    """Read and cut the texts of a comparison.

    Parameters
    ----------
    source : Path
        The dense model's folder.
    calibration, other : str or Path, optional
        Text files, see :func:`~thresher.comparing.compare_methods`.
    windows, length : int
        Calibration windows and their tokens, at most.
    heal : bool
        Whether there is to be text to heal on.

    Raises
    ------
    ThresherError
        If a text cannot be used, or is too short.
    """
    tokenizer = load_tokenizer(source)
    length = fitting_length(build_model(source), length)
    most = windows + _EVALUATION_WINDOWS + (-(-_HEALING_TOKENS // length) if heal else 0)
    every = file_windows(calibration, tokenizer, length=length, count=most)
    name = str(calibration or EMBEDDED)
    first, held_out = split_windows(every, windows, _EVALUATION_WINDOWS)
    if not len(held_out):
        raise DataError(
            f"{name} gives one window of {length} tokens, and none is left to evaluate on; pass "
            "more text or shorten the windows"
        )
    warn_of_fewer(len(first), windows, length, f"{name}, without windows to evaluate on,")
    found = {"calibration": first, "held_out": held_out}
    if heal:
        found["heal"] = torch.cat([first, every[len(first) + len(held_out) :]])
    described = {"source": name, "windows": len(first), "length": length}
    described |= {"held_out": len(held_out), "other": ""}
    missing = {"other_perplexity": _NO_OTHER}
    if other is not None or is_cached(ASSETS["gutenberg"]):
        described["other"], found["other"] = _other(other, tokenizer, length, len(held_out))
        if torch.equal(found["other"], every[: len(found["other"])]):
            raise OptionError(
                f"the other text begins as the calibration text does ({described['other']}); pass "
                "one of another genre"
            )
        missing = {}
    return Texts(found, described, missing)


def _other(
    file: str | Path | None, tokenizer: Any, length: int, count: int
) -> tuple[str, torch.Tensor]:
    """Return the name and the windows of the other text."""
    if file is not None:
        return str(file), file_windows(file, tokenizer, length=length, count=count)
    words = gutenberg("emma")
    return "Emma, by Jane Austen", token_windows(tokenizer, words, length=length, count=count)
