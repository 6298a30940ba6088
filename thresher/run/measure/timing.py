"""Timing that compares: interleaved repeats, cold caches, and a check on the noise."""

from __future__ import annotations

__all__ = ["Comparison", "compare"]

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

_EVICTED_BYTES = 96 << 20
"""Larger than the last-level cache of common processors; see :func:`compare`."""
_PASSES_ON_CUDA = 8
"""Over what empties the caches: half a millisecond or more, in which Python starts the function."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Comparison:
    """Times of several functions measured in one run.

    Parameters
    ----------
    seconds : dict of str to list of float
        Every time measured, in order, by name.
    control : list of float
        Times of the first function measured a second time in every round.
    """

    seconds: dict[str, list[float]]
    control: list[float]

    def best(self, name: str) -> float:
        """Return the least time of a function, in seconds."""
        return min(self.seconds[name])

    def median(self, name: str) -> float:
        """Return the median time of a function, in seconds."""
        return statistics.median(self.seconds[name])

    @property
    def noise(self) -> float:
        """How far apart two measurements of the same function lie, as a fraction.

        The larger of two signs of a loaded machine: the difference between the least times of
        the first function and of its control, and how much its median exceeds its minimum.
        """
        first = next(iter(self.seconds.values()))
        least, other = min(first), min(self.control)
        disagreement = abs(least - other) / min(least, other)
        spread = statistics.median([*first, *self.control]) / min(least, other) - 1
        return max(disagreement, spread / 2)

    @property
    def noisy(self) -> bool:
        """Whether ratios of these times should not be trusted (noise above 10 %)."""
        return self.noise > 0.1


def compare(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int = 7,
    cold: bool = True,
    touched: torch.Tensor | None = None,
    device: torch.device = _CPU,
) -> Comparison:
    """Time functions in turn, several rounds of all of them.

    Interleaving spreads a disturbance over all functions; the least time of each is the one
    least disturbed.

    Parameters
    ----------
    functions : mapping of str to callable
        What to time; the first is also the control that the noise is read from.
    repeats : int, default 7
        Rounds; up to three times as many while the times are noisy, as those of products of
        less than a tenth of a millisecond often are.
    cold : bool, default True
        Whether to push the functions' data out of the caches before every call. A layer of a
        model finds its weights in memory, not in the cache, because all other layers ran
        since its last call; timing it warm would flatter small layouts.
    touched : Tensor, optional
        Data to read once more before every call, after the caches were emptied: the images that
        the layer before a convolution has only just written.
    device : torch.device, default the CPU
        Where the functions run. On CUDA, events of the stream are timed: what the device takes,
        without what Python takes to start its work, which it does while the device is still
        emptying the caches.

    Returns
    -------
    Comparison
        Times of each function, and of the control.
    """
    eviction = torch.zeros(_evicted_bytes(device) // 4 if cold else 1, device=device)
    passes = 1 if device.type == "cpu" else _PASSES_ON_CUDA
    names = list(functions)
    control: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rounds = [*((functions[name], seconds[name]) for name in names), (functions[names[0]], control)]
    for function in functions.values():
        function()
    for done in range(1, 3 * repeats + 1):
        for function, times in rounds:
            for _ in range(passes):
                eviction.add_(1)
            if touched is not None:
                touched.sum()
            times.append(_seconds(function, device))
        if done >= repeats and not Comparison(seconds, control).noisy:
            break
    return Comparison(seconds, control)


def _evicted_bytes(device: torch.device) -> int:
    if device.type == "cpu":
        return _EVICTED_BYTES
    return max(_EVICTED_BYTES, 2 * torch.cuda.get_device_properties(device).L2_cache_size)


def _seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Return how long one call takes."""
    if device.type == "cpu":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    stream = torch.cuda.current_stream(device)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record(stream)
    function()
    after.record(stream)
    after.synchronize()
    return before.elapsed_time(after) / 1e3
