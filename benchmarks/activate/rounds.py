"""Timing some works in turn, and ratios of what a round of them took.

Of one thread the processor's time counts, which a busy machine disturbs less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def in_turn(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of every round of every work; a first round warms up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            start = clock()
            work()
            if repeat:
                seconds[name].append(clock() - start)
    return seconds


def ratios(seconds: Mapping[str, list[float]], rival: str) -> dict[str, dict[str, float]]:
    """Return how many times as long the rival took: the median of rounds, and by the fastest."""
    found = {}
    for name, took in seconds.items():
        pairs = zip(seconds[rival], took, strict=True)
        found[name] = {
            "median": round(statistics.median(a / b for a, b in pairs), 3),
            "fastest": round(min(seconds[rival]) / min(took), 3),
        }
    return found
