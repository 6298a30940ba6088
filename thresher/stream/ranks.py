"""Several processes on one set of samples: each sends its share, and moments are added up."""

from __future__ import annotations

__all__ = [
    "by_first",
    "check_agreement",
    "check_same_samples",
    "from_first",
    "gathered",
    "is_first",
    "joined",
    "meet",
    "rank",
    "ranks",
    "share_of",
    "speaks",
    "sum_over_ranks",
    "written_by_first",
]

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from ..core.errors import DataError, ThresherError
from ..core.output import Output, writing
from ..parts.layers import Layer
from ..parts.statistics import Statistics
from .walk import tensors

T = TypeVar("T")


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun has started, where it has, while the context lasts."""
    if not distributed.is_torchelastic_launched():
        yield
        return
    # torchrun has told the processes where to meet.
    distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def speaks() -> bool:
    """Return whether a command prints here; of processes that torchrun starts only the first."""
    return not distributed.is_torchelastic_launched() or os.environ.get("RANK", "0") == "0"


def ranks() -> int:
    """Return how many processes take part: one unless ``torch.distributed`` is initialised."""
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1


def rank() -> int:
    """Return which of the processes this one is."""
    return 0 if ranks() == 1 else distributed.get_rank()


def is_first() -> bool:
    """Return whether this process is the one that writes for all."""
    return rank() == 0


def from_first(value: T) -> T:
    """Return, in every process, what the first one passes."""
    if ranks() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, 0)
    return held[0]


def by_first(make: Callable[[], T]) -> T:
    """Have the first process make something, and return it in every process.

    Raises
    ------
    ThresherError
        In every process, if the first one could not make it.
    """
    if ranks() == 1:
        return make()
    made: tuple[Any, ThresherError | None] = (None, None)
    if is_first():
        try:
            made = (make(), None)
        except ThresherError as error:
            made = (None, error)
    found, failed = from_first(made)
    if failed is not None:
        raise failed
    return found  # type: ignore[no-any-return]


def gathered(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of every process, one after another, in every process.

    Parameters
    ----------
    rows : Tensor of shape (rows, columns)
        As many rows as a process has, of as many columns in all of them.
    """
    if ranks() == 1:
        return rows
    held: list[torch.Tensor] = [rows] * ranks()
    distributed.all_gather_object(held, rows.cpu())
    return torch.cat(held).to(rows.device)


def meet() -> None:
    """Wait until every process has come here."""
    if ranks() > 1:
        distributed.barrier()


@contextmanager
def written_by_first(out: Path, kind: str) -> Iterator[Output]:
    """Hold an output folder for all processes, see :func:`~thresher.core.output.writing`.

    The first process alone writes; the others may read what it has written so far. Its work
    folder stays where the work fails, to go on with, and ends with the context of the first.

    Parameters
    ----------
    out : Path
        The folder to write, on a disk that all processes see.
    kind : str
        See :class:`~thresher.core.output.Output`.

    Raises
    ------
    ThresherError
        In every process, if nothing can be written there.
    """
    with ExitStack() as stack:
        held: list[Output] = []
        by_first(lambda: held.append(stack.enter_context(writing(out, kind, keep=True))))
        yield held[0] if held else Output(out.resolve(), kind)


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
    return list(samples) if many == 1 else list(samples[rank() :: many])


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


def check_same_samples(samples: Sequence[Any]) -> None:
    """Raise unless every process has the same calibration samples, in the same order.

    Parameters
    ----------
    samples : sequence
        Model inputs, whose tensors are compared by their digest.

    Raises
    ------
    DataError
        In every process.
    """
    if ranks() == 1:
        return
    digest = hashlib.sha256()
    for tensor in tensors(list(samples)):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    check_agreement(digest.hexdigest(), "the calibration data")


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
