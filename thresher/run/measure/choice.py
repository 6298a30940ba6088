"""What was measured for every layer of a model, and the layouts it gets."""

from __future__ import annotations

__all__ = ["DENSE", "DENSE_FLOAT32", "RIVALS", "Choices", "LayerChoice"]

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ...core.columns import Fitted
from ...core.compiled import uncompiled
from ...core.errors import OptionError
from ...core.notebook import html_of
from ...core.numbers import number, percent, times
from ..files.stored import record_layouts
from ..layouts.base import Layout
from ..packed.swap import swap
from .candidates import candidate_of, kind_of

#: Name of the choice to leave a layer as it is.
DENSE = "dense"
#: Name of the measurement of a dense layer of float32 beside one of bfloat16.
DENSE_FLOAT32 = "dense float32"
#: What layouts are held against: the faster of these, as far as they were measured.
RIVALS = (DENSE, DENSE_FLOAT32)
#: Denser layers count as not pruned.
_FULL = 0.98


@dataclass(frozen=True)
class LayerChoice:
    """What was measured for one layer, and the layout it gets.

    Parameters
    ----------
    name : str
        Name of the layer in the model, or of the parameter where that is no layer's ``weight``.
    shape : tuple of int
        Of the weight's matrix: outputs, and inputs of each; of the parameter where it is no matrix.
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
        Of the noisiest of the layer's measurements; see
        :class:`thresher.run.measure.timing.Comparison`.
    reason : str
        Why the layer stays dense; empty when it does not.
    share : float
        Of all parameters of the model; 0 where another layer has the same parameter.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    density: float
    pattern: str
    layout: str
    dense_bytes: int
    packed_bytes: int
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    noise: float = 0.0
    reason: str = ""
    share: float = 0.0

    def rival(self, batch: int) -> float:
        """Return the time of the dense layer, of the dtype that is multiplied fastest here."""
        return min(self.seconds[name][batch] for name in RIVALS if name in self.seconds)


@dataclass(frozen=True)
class Choices:
    """The layouts chosen for a model.

    Parameters
    ----------
    layers : list of LayerChoice
        One for every weight of two dimensions or more, in the order of the model.
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

    @property
    def idle(self) -> str:
        """That nothing is packed, and why, as far as zeros tell; empty where something is."""
        if any(layer.layout != DENSE for layer in self.layers):
            return ""
        if all(layer.density > _FULL for layer in self.layers):
            return "Nothing is packed: no layer has zeros to speak of. Was the model pruned?"
        return "Nothing is packed: no layer is faster in another layout here than dense."

    def table(self, every_layer: bool = False) -> Table:
        """Return the table that :func:`~thresher.run.pack.pack` prints.

        Parameters
        ----------
        every_layer : bool, default False
            Whether each layer has a row of its own. By default layers share one, with their
            bytes and times summed, whose names differ only in numbers and whose shape, pattern
            and layout are the same.
        """
        title = f"Packed on {self.machine}; times are the least of interleaved repeats"
        if any(DENSE_FLOAT32 in layer.seconds for layer in self.layers):
            title += ", dense the faster of bfloat16 and float32"
        table = Table(title=title)
        table.add_column("layer", overflow="fold")  # its end is what tells layers apart
        headings = ("layers", "share", "shape", "density", "pattern", "layout", "MB dense", "MB")
        for heading in headings:
            table.add_column(heading, justify="right")
        for size in self.batch:
            table.add_column(f"batch {size}: dense ms", justify="right")
            table.add_column("ms", justify="right")
            table.add_column("ratio", justify="right")
        groups: dict[Hashable, list[LayerChoice]] = {}
        for layer in self.layers:
            alike = (kind_of(layer.name), layer.shape, layer.dtype, layer.pattern, layer.layout)
            groups.setdefault(layer.name if every_layer else alike, []).append(layer)
        for group in groups.values():
            table.add_row(*self._cells(group))
        busy = (
            "The machine was busy: the same product took different times in one run, so the "
            "ratios are not reliable. Close other programs and pack again."
        )
        table.caption = " ".join([self.idle, busy * self.noisy]).strip() or None
        return table

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_of(self.table())

    def show(self, every_layer: bool = False) -> None:
        """Print the table, in parts where the terminal is narrow."""
        Console(emoji=False).print(Fitted(self.table(every_layer)))

    def _cells(self, group: list[LayerChoice]) -> list[str]:
        """Return a row for layers of one shape, pattern and layout."""
        first = group[0]
        (reason, given), *_ = Counter(layer.reason for layer in group).most_common()
        if given < len(group):
            reason = f"mostly: {reason}"
        cells = [
            first.name if len(group) == 1 else kind_of(first.name),
            str(len(group)),
            percent(sum(layer.share for layer in group)),
            " x ".join(map(str, first.shape)),
            number(sum(layer.density for layer in group) / len(group)),
            first.pattern,
            first.layout if not reason else f"{DENSE} ({reason})",
            number(sum(layer.dense_bytes for layer in group) / 1e6),
            number(sum(layer.packed_bytes for layer in group) / 1e6),
        ]
        for size in self.batch:
            if not all(layer.seconds for layer in group):
                cells += ["", "", ""]
                continue
            dense = sum(layer.rival(size) for layer in group)
            ours = sum(layer.seconds[first.layout][size] for layer in group)
            cells += [number(dense * 1e3), number(ours * 1e3), times(dense, ours)]
        return cells

    def apply(self, model: nn.Module) -> None:
        """Replace the layers of `model` that have a layout, in place.

        A layer that the model names twice is replaced under both names; layers that share a
        weight share it packed, if they have the same layout.

        Raises
        ------
        OptionError
            If the model is itself a layer to be replaced.
        """
        with uncompiled(model) as model:
            names: dict[nn.Module, list[str]] = {}
            for name, module in model.named_modules(remove_duplicate=False):
                names.setdefault(module, []).append(name)
            owners = Counter(id(m.weight) for m in names if isinstance(m, nn.Linear | nn.Conv2d))
            shared: dict[tuple[int, str], tuple[Layout, Tensor]] = {}
            for choice in self.layers:
                if choice.layout == DENSE:
                    continue
                require_container(choice.name)
                dense = model.get_submodule(choice.name)
                assert isinstance(dense, nn.Linear | nn.Conv2d)
                key, candidate = (id(dense.weight), choice.layout), candidate_of(dense)
                stored, _ = shared.get(key) or (candidate.stored(Layout.named(choice.layout)), None)
                if owners[key[0]] > 1:  # the weight is held, so that no other takes its number
                    shared[key] = (stored, dense.weight)
                packed = candidate.holding(stored).train(dense.training)
                # One at a time, so that no more than one layer is held in both forms.
                swap(model, dict.fromkeys(names.pop(dense), packed))
            record_layouts(model)


def require_container(name: str) -> None:
    """Raise OptionError if a layer to be replaced has no name, being the model itself."""
    if not name:
        raise OptionError("the model is itself a single layer; wrap it in a module")
