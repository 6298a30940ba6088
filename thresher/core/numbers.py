"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["duration", "number", "percent", "removed", "times"]


def percent(share: float) -> str:
    """Return a share as a percentage, such as ``"50 %"``."""
    return f"{100 * share:.4g} %"


def removed(density: float) -> str:
    """Return what a density removes, such as ``"30 %"`` for 0.7."""
    return percent(round(1 - density, 6))


def number(value: float) -> str:
    """Return a figure with four significant digits, and up to a million in full."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def times(value: float, base: float) -> str:
    """Return how many times `base` the `value` is, such as ``"1.08x"``."""
    return f"{value / base:,.3g}x" if base and value / base < 1000 else f"{value:.4g} / {base:.4g}"


def duration(seconds: float) -> str:
    """Return a time in seconds, or minutes and seconds from two minutes on."""
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
