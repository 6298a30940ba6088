"""Making a transformer narrower: directions of its residual stream go."""

from __future__ import annotations

__all__ = ["prune_directions"]

import copy
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import nn

from ..core.compiled import uncompiled
from ..core.errors import LayerError, OptionError
from ..core.machine import versions
from ..core.progress import progress_bar
from ..core.remembered import remember
from ..parts.activations.attached import PRUNE_FIRST, check_none
from ..parts.coverage import Coverage, cover
from ..parts.given import check_is_model
from ..parts.groups.find import find_groups
from ..parts.groups.residual import Residual, find_residual, fold_norms, project, sliced
from ..parts.groups.trace import tensors_of
from ..parts.layers import Layer
from ..parts.moments import Gram
from ..stream.collect import collect_inputs
from ..stream.passes import calibrating, call
from ..stream.precision import Precision
from ..stream.samples import as_samples
from ..stream.source import InMemory
from ..stream.stream import Stream
from ..stream.units import find_units
from .record import PruneRecord, circumstances
from .slicegpt import SliceGPT
from .stock import agree, fitting, head_width, of_configuration, sizes_said
from .unit_example import example_for
from .unit_record import layer_records


def prune_directions(
    model: nn.Module,
    recipe: SliceGPT,
    data: Any = None,
    *,
    example: Any = None,
    tokenizer: Any = None,
    windows: int | None = None,
    length: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: bool = True,
) -> nn.Module:
    """Return a narrower model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        It stays as it is.
    recipe : SliceGPT
        How to choose.
    data, example, tokenizer, windows, length
        See :func:`thresher.prune`.
    include, exclude : sequence of str
        Not to be given: the stream runs through all layers.
    progress
        See :func:`thresher.prune`.

    Returns
    -------
    nn.Module
        What transformers builds of a configuration that says the smaller width. It gives what the
        model gives whose layers write to the kept directions alone.

    Raises
    ------
    ThresherError
        If an option, a layer or the data cannot be used, or no configuration says a width near
        the density.
    """
    check_is_model(model, "thresher.prune", "thresher prune")
    if include or exclude:
        raise OptionError(
            "the residual stream runs through all layers, which become narrower together; leave "
            "include and exclude away"
        )
    started = time.perf_counter()
    with torch.inference_mode(False), uncompiled(model) as dense, torch.no_grad():
        check_none(dense, PRUNE_FIRST)
        run = _Run(dense, recipe)
        samples, calibration = as_samples(
            dense, data, tokenizer=tokenizer, windows=windows, length=length
        )
        calibration.pop("asked", None)
        example = samples[0] if example is None else example
        made, record = run.execute(samples, example, progress)
    record.calibration = calibration
    record.timings = {"total": time.perf_counter() - started}
    remember(made, record)
    return made


class _Run:
    def __init__(self, dense: nn.Module, recipe: SliceGPT) -> None:
        recipe.target  # noqa: B018 - raises now if nothing says how much to keep
        self.dense, self.recipe = dense, recipe
        self.model = _copy(dense)
        self.coverage = cover(self.model)
        for layer in self.coverage.layers:
            layer.check_finite()

    def execute(
        self, samples: Sequence[Any], example: Any, progress: bool
    ) -> tuple[nn.Module, PruneRecord]:
        self.example = example_for(self.model, example)
        residual = self._folded()
        kept, changes = self._width(residual)
        moment = self._moment(residual, samples, progress)
        basis = self.recipe.basis(moment)[:, :kept]
        small = sliced(self.model, residual, basis)
        project(self.model, residual, basis)
        expected = tensors_of(self._run(self.model))
        made = of_configuration(
            small, changes, lambda it: agree(tensors_of(self._run(it)), expected)
        )
        if made is None:
            raise LayerError(
                f"{type(self.model).__name__} of a width of {kept} does not give what it gives "
                f"within as many directions of {residual.width}; use a method that removes units"
            )
        _restore_dtypes(made, self.dense)
        return made, self._record(made, residual, kept)

    def _run(self, model: nn.Module) -> Any:
        with calibrating(model):
            return call(model, self.example)

    def _folded(self) -> Residual:
        """Return the stream of the model, whose norms are folded and prove to be."""
        before = tensors_of(self._run(self.model))
        coupled = find_groups(self.model, self._run, self.example)
        residual = find_residual(self.model, coupled, self._run)
        fold_norms(self.model, residual)
        if not agree(tensors_of(self._run(self.model)), before):
            raise LayerError(
                f"{type(self.model).__name__} gives something else when the scales of its norms "
                "are moved into the layers after them; use a method that removes units"
            )
        return residual

    def _width(self, residual: Residual) -> tuple[int, list[Mapping[str, int]]]:
        """Return the width that is nearest to the density and that a configuration says."""
        width, target = residual.width, self.recipe.target
        step = self.recipe.multiple if width >= 2 * self.recipe.multiple else 1
        on_meta = _without_data(self.model)
        whole = self._weights(residual, width)

        def off(kept: int) -> float:
            return abs(self._weights(residual, kept) / whole - target)

        for kept in sorted(range(step, width, step), key=off):
            basis = torch.empty(width, kept, dtype=torch.float64, device="meta")
            small = sliced(on_meta, residual, basis)
            config = self.model.config
            changes = list(fitting(small, _changes(config, width, kept)))
            if changes and off(kept) > min(target, 1 - target):
                raise OptionError(
                    f"density {target:.4g} cannot be reached by a narrower residual stream of "
                    f"{type(self.model).__name__}: the nearest is "
                    f"{self._weights(residual, kept) / whole:.4g}"
                )
            if changes:
                return kept, changes
        raise LayerError(
            f"no configuration of {type(self.model).__name__} says another width of its "
            "residual stream; use a method that removes units, such as 'structured'"
        )

    def _weights(self, residual: Residual, kept: int) -> int:
        """Return how many weights the covered layers have at some width."""
        inside = {part.parameter for part in (*residual.readers, *residual.writers)}
        sizes = [(la.weight.numel(), la.parameter in inside) for la in self.coverage.layers]
        return sum(n * kept // residual.width if within else n for n, within in sizes)

    def _moment(self, residual: Residual, samples: Sequence[Any], progress: bool) -> torch.Tensor:
        """Return the second moment of what layers read, one layer after each norm."""
        layers = _one_each(residual, self.coverage)
        total = torch.zeros(residual.width, residual.width, dtype=torch.float64)
        weight = layers[0].weight
        used = Precision.natural(weight.dtype, weight.device, None)
        units = find_units(self.model, layers)
        stream = Stream(InMemory(self.model), units, samples, precision=used)
        with closing(stream.visits()) as visits, progress_bar(len(units), progress) as advance:
            for visit in visits:
                found = collect_inputs(self.model, visit.unit.layers, {Gram}, visit.run)
                for statistics in found.values():
                    total += statistics[Gram].value.double().cpu()
                advance(visit.unit.name)
        return total.to(weight.device)

    def _record(self, made: nn.Module, residual: Residual, kept: int) -> PruneRecord:
        """Return the record of a run, without what it was calibrated on."""
        weights = {
            "before": self._weights(residual, residual.width),
            "after": self._weights(residual, kept),
        }
        first = residual.writers[0]
        removed = {f"{first.parameter}[{first.axis}]": list(range(kept, residual.width))}
        return PruneRecord(
            model=str(getattr(self.dense, "name_or_path", "") or type(self.dense).__name__),
            method=self.recipe.card.name,
            recipe=repr(self.recipe),
            parts=self.recipe.recorded(),
            pattern=self.recipe.removes,
            density_asked=self.recipe.target,
            layers=layer_records(self.model, made, self.coverage, (), ()),
            coverage=self.coverage.summary(),
            versions=versions(),
            made=circumstances(self.coverage.layers[0].weight.device),
            structure={"removed": removed, "weights": weights, "settings": [], "whole": {}},
        )


def _copy(dense: nn.Module) -> Any:
    """Return a copy in float32 whose head has a matrix of its own."""
    known = sys.modules.get("transformers")
    if known is None or not isinstance(dense, known.PreTrainedModel):
        raise LayerError(
            f"{type(dense).__name__} is no model of transformers, of which alone the residual "
            "stream becomes narrower: its configuration has to say the width"
        )
    trained = {parameter.requires_grad for parameter in dense.parameters()}
    if len(trained) > 1:
        raise LayerError(
            f"some layers of {type(dense).__name__} are frozen, and its residual stream runs "
            "through all of them; freeze all or none"
        )
    model: Any = copy.deepcopy(dense).float()
    try:
        into, out = model.get_input_embeddings(), model.get_output_embeddings()
    except NotImplementedError:  # no model of tokens, whose parts are not shared
        return model
    if out is not None and getattr(out, "weight", None) is getattr(into, "weight", None):
        out.weight = nn.Parameter(out.weight.detach().clone(), requires_grad=trained.pop())
        model.config.tie_word_embeddings = False
    return model


def _without_data(model: nn.Module) -> nn.Module:
    """Return a copy on the device meta, of which only the shapes are of use."""
    empty: dict[int, Any] = {id(b): b.to("meta") for b in model.buffers()}
    for parameter in model.parameters():
        empty[id(parameter)] = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, empty)


def _one_each(residual: Residual, coverage: Coverage) -> list[Layer]:
    """Return the first layer that reads through each norm, experts that see few tokens aside."""
    by_parameter = {la.parameter: la for la in coverage.layers if la.part is None}
    first: dict[str, Layer] = {}
    for reader in residual.readers:
        norm = residual.before.get(reader.parameter, reader.parameter)
        if reader.parameter in by_parameter:
            first.setdefault(norm, by_parameter[reader.parameter])
    if not first:
        raise LayerError("no layer that may be pruned reads the residual stream")
    return list(first.values())


def _changes(config: Any, width: int, kept: int) -> Iterator[dict[str, int]]:
    """Yield what to change of a configuration so that its residual stream is narrower."""
    names = [name for name, value in sizes_said(config).items() if value == width]
    head = head_width(config)
    for number in range(1, len(names) + 1):
        for some in itertools.combinations(names, number):
            changed = dict.fromkeys(some, kept)
            yield changed
            if head is not None:
                yield changed | {"head_dim": head}


def _restore_dtypes(made: nn.Module, dense: nn.Module) -> None:
    """Give tensors the dtypes that those of the same names had."""
    before = dense.state_dict()
    for name, tensor in made.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        held = getattr(made.get_submodule(owner), leaf)
        held.data = tensor.to(before[name].dtype)
