"""Packing by measurement: every layer keeps the layout that is fastest on this machine."""

from __future__ import annotations

__all__ = ["LayerChoice", "Packing", "choose_layouts", "pack"]

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from thresher.core.errors import OptionError

from .layout import Layout, known_layouts, named_layout
from .layouts import GroupedNofM, NofM
from .packable import Packable, packable, packable_layers
from .packed_linear import PackedLayer
from .stored import record_layouts
from .timing import Comparison, compare

DENSE = "dense"


@dataclass(frozen=True)
class LayerChoice:
    """What was measured for one layer, and the layout it gets.

    Parameters
    ----------
    name : str
        Name of the layer in the model.
    shape : (int, int)
        Of the weight's matrix: outputs, and inputs of each.
    dtype : torch.dtype
        Of the weight.
    density : float
        Fraction of weights that are not zero.
    pattern : str
        ``"2:4"``, ``"2:4/outputs"``, ``"blocks"``, ``"rows/columns"``, ``"shared rows"``,
        ``"unstructured"`` or ``"none"``.
    layout : str
        Name of the fastest layout, or ``"dense"``.
    dense_bytes, packed_bytes : int
        Bytes of the weight before and after.
    seconds : dict of str to dict of int to float
        Least time per product, by layout and batch size.
    noise : float
        Of the noisiest of the layer's measurements; see :class:`thresher.run.timing.Comparison`.
    reason : str
        Why the layer stays dense; empty when it does not.
    """

    name: str
    shape: tuple[int, int]
    dtype: torch.dtype
    density: float
    pattern: str
    layout: str
    dense_bytes: int
    packed_bytes: int
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    noise: float = 0.0
    reason: str = ""

    def ratio(self, batch: int) -> float:
        """Return dense time over the chosen layout's time at a batch size."""
        if self.layout == DENSE:
            return 1.0
        return self.seconds[DENSE][batch] / self.seconds[self.layout][batch]


@dataclass(frozen=True)
class Packing:
    """The layouts chosen for a model.

    Parameters
    ----------
    layers : list of LayerChoice
        One for every linear layer and convolution, in the order of the model.
    batch : tuple of int
        Batch sizes measured.
    machine : str
        What the products ran on: ``"2 threads"``, or the names of the CUDA devices.
    """

    layers: list[LayerChoice]
    batch: tuple[int, ...]
    machine: str

    @property
    def noisy(self) -> bool:
        """Whether the machine was too busy for the ratios to be trusted."""
        noises = sorted(layer.noise for layer in self.layers if layer.seconds)
        return bool(noises) and noises[len(noises) // 2] > 0.1

    def table(self) -> Table:
        """Return the table that :func:`pack` prints."""
        title = f"Packed on {self.machine}; times are the least of interleaved repeats"
        table = Table(title=title)
        for heading in ("layer", "shape", "density", "pattern", "layout", "MB dense", "MB"):
            table.add_column(heading, justify="left" if heading == "layer" else "right")
        for size in self.batch:
            table.add_column(f"batch {size}: dense ms", justify="right")
            table.add_column("ms", justify="right")
            table.add_column("ratio", justify="right")
        for layer in self.layers:
            table.add_row(*self._cells(layer))
        if self.noisy:
            table.caption = (
                "The machine was busy: the same product took different times in one run, so the "
                "ratios are not reliable. Close other programs and pack again."
            )
        return table

    def _cells(self, layer: LayerChoice) -> list[str]:
        cells = [
            layer.name,
            f"{layer.shape[0]} x {layer.shape[1]}",
            f"{layer.density:.3f}",
            layer.pattern,
            layer.layout if not layer.reason else f"{DENSE} ({layer.reason})",
            f"{layer.dense_bytes / 1e6:.2f}",
            f"{layer.packed_bytes / 1e6:.2f}",
        ]
        for size in self.batch:
            if not layer.seconds:
                cells += ["", "", ""]
                continue
            cells += [
                f"{layer.seconds[DENSE][size] * 1e3:.3f}",
                f"{layer.seconds[layer.layout][size] * 1e3:.3f}",
                f"{layer.ratio(size):.2f}x",
            ]
        return cells

    def apply(self, model: nn.Module) -> None:
        """Replace the layers of `model` that have a layout, in place."""
        for layer in self.layers:
            if layer.layout == DENSE:
                continue
            if not layer.name:
                raise OptionError("the model is itself a single layer; wrap it in a module")
            dense = model.get_submodule(layer.name)
            packed = packable(dense).packed(named_layout(layer.layout))
            model.set_submodule(layer.name, packed.train(dense.training))
        record_layouts(model)


def choose_layouts(
    model: nn.Module,
    batch: Sequence[int] = (1, 16, 128),
    candidates: Iterable[str] | None = None,
    repeats: int = 7,
    gain: float = 1.05,
    example: Tensor | None = None,
) -> Packing:
    """Time the candidate layouts of every layer, without changing the model.

    Layers that agree in shape, dtype, density (to one hundredth) and candidates are measured
    once. Parameters, returns and errors as for :func:`pack`.
    """
    sizes = tuple(batch)
    if not sizes or any(size < 1 for size in sizes):
        raise OptionError(f"batch={sizes} must name at least one batch size of 1 or more")
    known = known_layouts()
    tried = [named_layout(n) for n in candidates] if candidates is not None else [*known.values()]
    measured: dict[tuple, tuple[str, dict[str, dict[int, float]], float, str]] = {}
    layers = []
    machines = set()
    for name, work in packable_layers(model, example):
        weight = work.matrix
        density = int(torch.count_nonzero(weight)) / max(1, weight.numel())
        refusals = {c: work.refusal(c) for c in tried if c.exact}
        fitting = [c for c, refusal in refusals.items() if refusal is None]
        names = tuple(c.name for c in fitting)
        machines.add(_machine(work.device))
        key = (work.key, work.device, weight.shape, weight.dtype, round(density, 2), names)
        if not fitting:
            measured[key] = (DENSE, {}, 0.0, _why_none(refusals.values()))
        elif key not in measured:
            measured[key] = _measure(work, fitting, sizes, repeats, gain)
        layout, seconds, noise, reason = measured[key]
        dense_bytes = weight.numel() * weight.element_size()
        packed_bytes = dense_bytes if layout == DENSE else known[layout].from_dense(weight).nbytes
        layers.append(
            LayerChoice(
                name,
                (weight.shape[0], weight.shape[1]),
                weight.dtype,
                density,
                _pattern(weight, density),
                layout,
                dense_bytes,
                packed_bytes,
                seconds,
                noise,
                reason,
            )
        )
    return Packing(layers, sizes, " and ".join(sorted(machines)))


def pack(
    model: nn.Module,
    batch: Sequence[int] = (1, 16, 128),
    candidates: Iterable[str] | None = None,
    repeats: int = 7,
    gain: float = 1.05,
    show: bool = True,
    example: Tensor | None = None,
) -> nn.Module:
    """Give every linear layer and convolution the layout that is fastest on this machine.

    Each layer's own weight is timed in every layout that can hold it, beside torch's dense
    layer of the same dtype, with weights that are not in the cache and inputs that are: with the
    threads of ``torch.get_num_threads()``, or on the CUDA device that holds the layer, in the
    layouts that have a kernel for it. A layer keeps the layout whose times, relative to dense and
    averaged geometrically over the batch sizes, are the least; it stays dense when none wins.

    Parameters
    ----------
    model : nn.Module
        Changed in place: its layers become :class:`PackedLinear` and
        :class:`thresher.run.packed_conv.PackedConv2d` one at a time, so that no second copy of the
        model is needed. Use bfloat16 (``model.bfloat16()``) for the
        smallest and fastest result, and for the honest rival.
    batch : sequence of int, default (1, 16, 128)
        Batch sizes (rows or images of the input) that matter: 1 for generating text, more for
        prompts.
    candidates : iterable of str, optional
        Names of the layouts to try; all registered ones by default.
    repeats : int, default 7
        Rounds of interleaved timing.
    gain : float, default 1.05
        How many times faster than dense a layout must be, on that average, to be kept.
    show : bool, default True
        Whether to print the table.
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
        If a batch size is below 1 or a layout is unknown.
    LayerError
        If the model does not run on `example`.
    """
    packing = choose_layouts(model, batch, candidates, repeats, gain, example)
    packing.apply(model)
    if show:
        Console(width=200, emoji=False).print(packing.table())
    return model


def _why_none(refusals: Iterable[str | None]) -> str:
    """Return the one reason for which all layouts refused, or the general one."""
    reasons = set(refusals)
    reason = reasons.pop() if len(reasons) == 1 else None
    return reason or "no layout is smaller"


def _measure(
    work: Packable,
    fitting: list[type[Layout]],
    sizes: tuple[int, ...],
    repeats: int,
    gain: float,
) -> tuple[str, dict[str, dict[int, float]], float, str]:
    """Return the chosen layout, all times, the noise, and why the layer stays dense."""
    packed = {layout.name: work.packed(layout) for layout in fitting}
    seconds: dict[str, dict[int, float]] = {name: {} for name in (DENSE, *packed)}
    noise = 0.0
    for size in sizes:
        compared = _time_products(work, packed, size, repeats)
        noise = max(noise, compared.noise)
        for name in seconds:
            seconds[name][size] = compared.best(name)
    gains = {
        name: math.prod(seconds[DENSE][s] / seconds[name][s] for s in sizes) ** (1 / len(sizes))
        for name in packed
    }
    fastest = max(gains, key=gains.__getitem__)
    if gains[fastest] < gain:
        return DENSE, seconds, noise, f"best was {fastest}, {gains[fastest]:.2f}x"
    return fastest, seconds, noise, ""


def _time_products(
    work: Packable, packed: dict[str, PackedLayer], size: int, repeats: int
) -> Comparison:
    x = work.example(size)
    products = {name: partial(layer, x) for name, layer in packed.items()}
    with torch.no_grad():
        functions = {DENSE: partial(work.module, x), **products}
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
    known = known_layouts()
    structures = (("shrunk", "rows/columns"), ("blocks", "blocks"), ("row-groups", "shared rows"))
    for name, pattern in structures:
        if known[name].refusal(weight) is None:
            return pattern
    return "unstructured"
