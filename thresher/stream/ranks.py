"""Several processes on one set of samples: each sends its share, and moments are added up."""

from __future__ import annotations

__all__ = ["check_agreement", "from_first", "is_first", "ranks", "share_of", "sum_over_ranks"]

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed

from ..core.errors import DataError
from ..parts.layers import Layer
from ..parts.statistics import Statistics

T = TypeVar("T")


def ranks() -> int:
    """Return how many processes take part: one unless ``torch.distributed`` is initialised."""
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1


def is_first() -> bool:
    """Return whether this process is the one that writes for all."""
    return ranks() == 1 or distributed.get_rank() == 0


def from_first(value: T) -> T:
    """Return, in every process, what the first one passes."""
    if ranks() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, 0)
    return held[0]


def share_of(samples: Sequence[T]) -> list[T]:
    """Return the samples of this process, every so many of them.

    Raises
    ------
    DataError
        If there are fewer samples than processes.
    """
    many = ranks()
    if samples and len(samples) < many:
        raise DataError(
            f"{len(samples)} samples cannot be shared out over {many} processes; pass at least "
            "one for each"
        )
    return list(samples) if many == 1 else list(samples[distributed.get_rank() :: many])


def check_agreement(value: Any, what: str) -> None:
    """Raise unless every process holds the same value.

    Raises
    ------
    DataError
        Naming what differs.
    """
    if ranks() == 1:
        return
    held: list[Any] = [None] * ranks()
    distributed.all_gather_object(held, value)
    if any(other != held[0] for other in held):
        raise DataError(
            f"{what} differs between processes; give all of them the same model and data"
        )


def sum_over_ranks(statistics: Mapping[str, Statistics], layers: Sequence[Layer]) -> None:
    """Add up the moments of all processes, in place, before any of them is read.

    Parameters
    ----------
    statistics : mapping of str to Statistics
        By layer name, sums shared by no two of them.
    layers : sequence of Layer
        Those that they are of, in the same order in every process.
    """
    if ranks() == 1:
        return
    device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
    for layer in layers:
        known = statistics[layer.name]
        known.reserve(layer.matrix())
        for total in known.tensors():
            there = total.to(device)
            distributed.all_reduce(there)
            total.copy_(there)
