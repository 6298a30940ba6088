"""Packing by measurement: every layer keeps the layout that is fastest on this machine."""

from __future__ import annotations

__all__ = ["choose_layouts", "pack"]

import copy
import math
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..core.compiled import uncompiled
from ..core.errors import OptionError
from ..core.numbers import times
from ..parts.given import check_is_model
from .instructions import check_instruction_set
from .layouts import GroupedNofM, NofM
from .layouts.base import Layout
from .measure.candidates import Candidate
from .measure.choice import (
    DENSE,
    DENSE_FLOAT32,
    RIVALS,
    Choices,
    LayerChoice,
    require_container,
)
from .measure.timing import Comparison, compare
from .measure.weights import Found, find_weights
from .packed.layer import PackedLayer


def choose_layouts(
    model: nn.Module,
    batch: int | Sequence[int] = (1, 16, 128),
    candidates: str | Iterable[str] | None = None,
    repeats: int = 7,
    gain: float = 1.05,
    example: Tensor | None = None,
) -> Choices:
    """Time the candidate layouts of every layer, without changing the model.

    Layers that agree in shape, dtype, density (to one hundredth) and candidates are measured
    once. Parameters, returns and errors as for :func:`pack`.
    """
    check_instruction_set()
    sizes = (batch,) if isinstance(batch, int) else tuple(batch)
    if not sizes or any(size < 1 for size in sizes):
        raise OptionError(f"batch={sizes} must name at least one batch size of 1 or more")
    tried = list(Layout.known().values()) if candidates is None else _named(candidates)
    measured: dict[tuple, tuple[str, dict[str, dict[int, float]], float, str]] = {}
    layers = []
    machines = set()
    with uncompiled(model) as model:
        for found in find_weights(model, example):
            weight, work = found.weight.detach(), found.candidate
            density = int(torch.count_nonzero(weight)) / max(1, weight.numel())
            if work is None:
                layers.append(_choice(found, density, "", (DENSE, {}, 0.0, found.reason)))
                continue
            refusals = {c: work.refusal(c) for c in tried if c.exact}
            fitting = [c for c, refusal in refusals.items() if refusal is None]
            names = tuple(c.name for c in fitting)
            machines.add(_machine(work.device))
            key = (work.key, work.device, work.matrix.shape, weight.dtype, round(density, 2), names)
            if not fitting:
                measured[key] = (DENSE, {}, 0.0, _why_none(refusals.values()))
            elif key not in measured:
                measured[key] = _measure(work, fitting, sizes, repeats, gain)
            layers.append(_choice(found, density, _pattern(work.matrix, density), measured[key]))
    return Choices(layers, sizes, " and ".join(sorted(machines)))


def pack(
    model: nn.Module,
    batch: int | Sequence[int] = (1, 16, 128),
    candidates: str | Iterable[str] | None = None,
    repeats: int = 7,
    gain: float = 1.05,
    show: bool = True,
    example: Tensor | None = None,
) -> nn.Module:
    """Give every linear layer and convolution the layout that is fastest on this machine.

    Every other weight of two dimensions or more (of an embedding, a recurrent layer, experts in
    one parameter, a layer of another library) has a row in the table that says why it stays.

    Each layer's own weight is timed in every layout that can hold it, beside torch's dense
    layer of the same dtype and, on processors, of float32, which some of them multiply faster than
    bfloat16; a layout is held against the faster of the two. All are timed with weights that are
    not in the cache and inputs that are: with the threads of ``torch.get_num_threads()``, or on
    the CUDA device that holds the layer, in the layouts that have a kernel for it. A layer keeps
    the layout whose times, relative to dense and averaged geometrically over the batch sizes, are
    the least; it stays dense when none wins.

    Parameters
    ----------
    model : nn.Module
        Changed in place: its layers become :class:`PackedLinear` and
        :class:`thresher.run.packed.conv.PackedConv2d` one at a time, so that no second copy of the
        model is needed. Use bfloat16 (``model.bfloat16()``) for the
        smallest and fastest result, and for the honest rival.
    batch : int or sequence of int, default (1, 16, 128)
        Batch sizes (rows or images of the input) that matter: 1 for generating text, more for
        prompts.
    candidates : str or iterable of str, optional
        Names of the layouts to try; all registered ones by default.
    repeats : int, default 7
        Rounds of interleaved timing.
    gain : float, default 1.05
        How many times faster than dense a layout must be, on that average, to be kept; on a busy
        machine by as much more as two measurements of the dense product disagree.
    show : bool, default True
        Whether to print the table, with a row for each kind of layer.
    example : Tensor, optional
        An input of the model. Convolutions are timed on images of the size that reaches them when
        the model runs on it; without it they stay dense.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    OptionError
        If a batch size is below 1, a layout or the instruction set of ``THRESHER_ISA`` is unknown,
        or the model is itself a single layer, or no module.
    LayerError
        If the model does not run on `example`, or has weights without data.
    """
    check_is_model(model, "thresher.pack", "thresher bench")
    if isinstance(model, nn.Linear | nn.Conv2d):
        require_container("")
    choices = choose_layouts(model, batch, candidates, repeats, gain, example)
    choices.apply(model)
    if show:
        choices.show()
    return model


def _named(candidates: str | Iterable[str]) -> list[type[Layout]]:
    candidates = [candidates] if isinstance(candidates, str) else candidates
    return [Layout.named(name) for name in candidates]


def _choice(
    found: Found,
    density: float,
    pattern: str,
    measured: tuple[str, dict[str, dict[int, float]], float, str],
) -> LayerChoice:
    """Return the row of a weight."""
    layout, seconds, noise, reason = measured
    weight, work = found.weight, found.candidate
    shape = tuple(weight.shape) if work is None else tuple(work.matrix.shape)
    dense_bytes = weight.numel() * weight.element_size()
    packed_bytes = dense_bytes
    if work is not None and layout != DENSE:
        packed_bytes = Layout.named(layout).from_dense(work.matrix).nbytes
    return LayerChoice(
        found.name,
        shape,
        weight.dtype,
        density,
        pattern,
        layout,
        dense_bytes,
        packed_bytes,
        seconds,
        noise,
        reason,
        found.share,
    )


def _why_none(refusals: Iterable[str | None]) -> str:
    """Return the one reason for which all layouts refused, or the general one."""
    reasons = set(refusals)
    reason = reasons.pop() if len(reasons) == 1 else None
    return reason or "no layout is smaller"


def _measure(
    work: Candidate,
    fitting: list[type[Layout]],
    sizes: tuple[int, ...],
    repeats: int,
    gain: float,
) -> tuple[str, dict[str, dict[int, float]], float, str]:
    """Return the chosen layout, all times, the noise, and why the layer stays dense."""
    packed = {layout.name: work.holding(work.stored(layout)) for layout in fitting}
    seconds: dict[str, dict[int, float]] = {}
    noise = 0.0
    for size in sizes:
        compared = _time_products(work, packed, size, repeats)
        noise = max(noise, compared.noise)
        for name in compared.seconds:
            seconds.setdefault(name, {})[size] = compared.best(name)
    rival = {size: min(seconds[name][size] for name in RIVALS if name in seconds) for size in sizes}
    gains = {
        name: math.prod(rival[s] / seconds[name][s] for s in sizes) ** (1 / len(sizes))
        for name in packed
    }
    fastest = max(gains, key=gains.__getitem__)
    # What is within the noise would be chosen by chance.
    if gains[fastest] < gain * (1 + noise):
        wider = sum(rival.values()) < sum(seconds[DENSE].values())
        of = f" of {DENSE_FLOAT32}" if wider else ""
        return DENSE, seconds, noise, f"best was {fastest}, {times(gains[fastest], 1)}{of}"
    return fastest, seconds, noise, ""


def _time_products(
    work: Candidate, packed: dict[str, PackedLayer], size: int, repeats: int
) -> Comparison:
    x = work.example(size)
    products = {name: partial(layer, x) for name, layer in packed.items()}
    rivals = {DENSE: partial(work.module, x)}
    if work.matrix.dtype == torch.bfloat16 and work.device.type == "cpu":
        rivals[DENSE_FLOAT32] = partial(copy.deepcopy(work.module).float(), x.float())
    with torch.no_grad():
        functions = {**rivals, **products}
        return compare(functions, repeats, touched=x, device=work.device)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def _pattern(weight: Tensor, density: float) -> str:
    """Name the structure of the zeros for the table."""
    if density > 0.98:
        return "none"
    for layout, along in ((NofM, ""), (GroupedNofM, "/outputs")):
        if layout.refusal(weight) is None and (found := layout.find_pattern(weight)):
            return f"{found[0]}:{found[1]}{along}"
    known = Layout.known()
    structures = (("shrunk", "rows/columns"), ("blocks", "blocks"), ("row-groups", "shared rows"))
    for name, pattern in structures:
        if known[name].refusal(weight) is None:
            return pattern
    return "unstructured"
