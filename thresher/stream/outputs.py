"""What a model in a folder gives for samples, without ever holding its weights in memory."""

from __future__ import annotations

__all__ = ["folder_logits", "outputs"]

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ..core.device import device_named
from ..core.errors import CheckpointError
from ..parts.coverage import cover
from ..parts.limits import check_windows
from ..parts.reasons import output_head
from ..run.skeleton import Skeleton
from .logits import Logits, shortened
from .passes import as_written, settled
from .precision import Precision
from .source import Folder, Source
from .units import Unit, find_units
from .walk import Walk, call_on_copy, halting, tensors

#: Tokens of the pass that shows how logits may be computed.
_PROBE = 8


def outputs(
    source: Source,
    units: Sequence[Unit],
    samples: Sequence[Any],
    precision: Precision,
    advance: Callable[[str], None] = lambda text: None,
) -> Generator[tuple[int, Any]]:
    """Send samples through a model in step, unit by unit, and return what it gives for them.

    Parameters
    ----------
    source : Source
        The model.
    units : sequence of Unit
        Those whose weights are loaded while they run.
    samples : sequence
        Model inputs.
    precision : Precision
        Of the forward passes.
    advance : callable, optional
        ``advance(text)`` is called when all samples have gone through a unit.

    Yields
    ------
    index : int
        Of the sample; they come in order where all run through the same units.
    output : Any
        Of the model. It is made as it is asked for, so that only one has to be held.
    """
    model, device = source.model, _device_of(samples)
    with ExitStack() as stack:
        stack.enter_context(settled(model))
        stack.enter_context(source.opened(units))
        stack.enter_context(source.on_demand([]))
        stack.enter_context(halting(units))
        walks = [Walk(functools.partial(call_on_copy, model, sample)) for sample in samples]
        for walk in walks:
            stack.callback(walk.stop)
        for index, walk in enumerate(walks):
            yield from _go_on(index, walk, precision, device)
        while (unit := next((w.halt.unit for w in walks if w.halt is not None), None)) is not None:
            with source.loaded(unit):
                for index, walk in enumerate(walks):
                    if walk.halt is not None and walk.halt.unit is unit:
                        yield from _go_on(index, walk, precision, device)
            advance(f"ran {unit.name}")


def _device_of(samples: Sequence[Any]) -> torch.device:
    """Return where the first tensor of the samples lies."""
    return next((tensor.device for tensor in tensors(list(samples))), torch.device("cpu"))


def _go_on(
    index: int, walk: Walk, precision: Precision, device: torch.device
) -> Generator[tuple[int, Any]]:
    # Not for as long as the generator lasts: two of them may take turns, and end in any order.
    with as_written(), precision.rounding(device):
        output = walk.go_on()
    if walk.halt is None:
        yield index, output


def folder_logits(
    folder: Path,
    windows: torch.Tensor,
    dtype: torch.dtype | None = None,
    precision: torch.dtype | None = None,
    overlay: Path | None = None,
    device: str = "auto",
    advance: Callable[[str], None] = lambda text: None,
) -> Generator[torch.Tensor | Logits]:
    """Return the logits of a causal language model in a folder, window by window.

    Parameters
    ----------
    folder : Path
        A Hugging Face folder, dense or sparse.
    windows : Tensor of shape (windows, length), int64
        Token ids.
    dtype : torch.dtype, optional
        Convert weights to it; by default they stay as stored.
    precision : torch.dtype, optional
        Of forward passes; by default that of the weights where the processor multiplies it at
        full speed, otherwise float32.
    overlay : Path, optional
        Folder of shards whose weights take the place of the folder's.
    device : str, default "auto"
        Where the model runs.
    advance : callable, optional
        See :func:`outputs`.

    Yields
    ------
    Tensor, or Logits, of shape (length - 1, vocabulary)
        Of every token but the last, which predicts nothing that is known.

    Raises
    ------
    CheckpointError
        If the folder cannot be read.
    DataError
        If an id is beyond the vocabulary, or a window longer than the positions.
    """
    skeleton = Skeleton(folder, dtype)
    if overlay is not None:
        skeleton.overlay(overlay)
    check_windows(skeleton.model, windows)
    layers = cover(skeleton.model).layers
    place = device_named(device)
    used = Precision.natural(skeleton.stored_dtype(layers[0].parameter), place, precision)
    units = find_units(skeleton.model, layers)
    probe = windows[0, :_PROBE]
    samples = [{"input_ids": each.unsqueeze(0).to(place)} for each in (probe, *windows)]
    head = output_head(skeleton.model)
    with ExitStack() as holding, ExitStack() as stack:
        given = [] if head is None else stack.enter_context(shortened(head))
        source = Folder(skeleton, used, place)
        found = outputs(source, units, samples, used, advance)
        for expected, (index, output) in enumerate(found):
            if index == 0:
                # The last unit runs now; every slice of logits would load the head anew.
                holding.enter_context(source.head_loaded())
            if index != expected:
                raise CheckpointError(
                    f"{str(folder)!r} runs other blocks for other texts, so that it is not "
                    "evaluated from disk; load it with from_pretrained and call thresher.perplexity"
                )
            logits = output.logits[0]
            if head is not None and given:
                sliced = Logits(head, given[-1], logits.shape[-1], used)
                given.clear()
                # They are not the head's where the model caps or scales them.
                if torch.equal(sliced[-1:], logits):
                    logits = sliced
                elif index > 0:
                    raise CheckpointError(
                        f"{str(folder)!r} makes its logits in another way for other texts, so that "
                        "it is not evaluated from disk; call thresher.perplexity on the model"
                    )
                else:
                    stack.close()
            if index > 0:
                yield logits.without_last() if isinstance(logits, Logits) else logits[:-1]
            # Before the next one is made: they are as wide as the vocabulary.
            del output, logits
