"""Making mixtures of experts smaller: whole experts go, and the router's rows with them."""

from __future__ import annotations

__all__ = ["prune_experts"]

import copy
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..core.compiled import uncompiled
from ..core.errors import DataError, LayerError, OptionError
from ..core.machine import versions
from ..core.remembered import remember
from ..parts.activations.attached import PRUNE_FIRST, check_none
from ..parts.coverage import Coverage, cover
from ..parts.experts import Mixture, Routing, find_mixtures
from ..parts.given import check_is_model
from ..stream.routing import collect_routing
from ..stream.samples import as_samples
from .expert_recipe import ExpertRecipe, Seen
from .record import LayerRecord, PruneRecord, circumstances
from .stock import of_configuration, sizes_said


def prune_experts(
    model: nn.Module,
    recipe: ExpertRecipe,
    data: Any = None,
    *,
    tokenizer: Any = None,
    windows: int | None = None,
    length: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> nn.Module:
    """Return a model with fewer experts, as many in every mixture.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        It stays as it is.
    recipe : ExpertRecipe
        How to choose.
    data, tokenizer, windows, length
        Calibration data, see :func:`thresher.prune`.
    include, exclude : sequence of str
        Shell patterns of layer names, see :func:`~thresher.parts.coverage.find_layers`. A mixture
        of which an expert is excluded is an error, since all keep as many.

    Returns
    -------
    nn.Module
        What transformers builds of a configuration that says the smaller number. It gives what
        the model gives whose routers never choose the experts that went.

    Raises
    ------
    ThresherError
        If an option, a layer or the data cannot be used, there are no experts, or no number of
        them comes near the density.
    """
    check_is_model(model, "thresher.prune", "thresher prune")
    started = time.perf_counter()
    with torch.inference_mode(False), uncompiled(model) as dense, torch.no_grad():
        check_none(dense, PRUNE_FIRST)
        coverage = cover(dense, include=include, exclude=exclude)
        for layer in coverage.layers:
            layer.check_finite()
        mixtures = _found(dense, coverage)
        keep = _number_to_keep(mixtures, coverage, recipe.of_experts)
        samples, calibration = as_samples(
            dense, data, tokenizer=tokenizer, windows=windows, length=length
        )
        calibration.pop("asked", None)
        routing = collect_routing(dense, mixtures, samples)
        kept = {m.name: _chosen(dense, m, recipe, routing[m.name], keep) for m in mixtures}
        small = _without(dense, mixtures, kept, routing, samples[0])
        record = _record(dense, recipe, coverage, mixtures, kept)
    record.calibration = calibration
    record.timings = {"total": time.perf_counter() - started}
    remember(small, record)
    return small


def _found(model: nn.Module, coverage: Coverage) -> list[Mixture]:
    known = sys.modules.get("transformers")
    if known is None or not isinstance(model, known.PreTrainedModel):
        raise LayerError(
            f"{type(model).__name__} is no model of transformers, of which alone experts are "
            "removed: its configuration has to say how many are left"
        )
    mixtures = find_mixtures(model, coverage.layers)
    if not mixtures:
        raise LayerError(
            f"{type(model).__name__} has no mixture of experts that may be pruned; use a method "
            "that removes units, such as 'structured'"
        )
    if len(counts := {mixture.count for mixture in mixtures}) > 1:
        raise LayerError(
            f"the mixtures of {type(model).__name__} have different numbers of experts "
            f"({', '.join(map(str, sorted(counts)))}), which no one number can say less of"
        )
    return mixtures


def _number_to_keep(mixtures: Sequence[Mixture], coverage: Coverage, density: float) -> int:
    """Return how many experts to keep, so that the share of weights is nearest to the density."""
    count = mixtures[0].count
    of_experts = _weights_of_experts(mixtures, coverage)
    whole = sum(layer.weight.numel() for layer in coverage.layers)

    def left(keep: int) -> float:
        return 1 - of_experts * (1 - keep / count) / whole

    keep = min(range(1, count + 1), key=lambda keep: abs(left(keep) - density))
    if density < left(1) or keep == count:
        which = "one left" if density < left(1) else "one less"
        nearest = left(1 if density < left(1) else count - 1)
        raise OptionError(
            f"density {density:.4g} cannot be reached by removing experts: with {which} of each of "
            f"{len(mixtures)} mixtures the nearest density is {nearest:.4g}"
        )
    return keep


def _weights_of_experts(mixtures: Sequence[Mixture], coverage: Coverage) -> int:
    members = {path for mixture in mixtures for path in mixture.members}
    return sum(la.weight.numel() for la in coverage.layers if la.parameter in members)


def _chosen(
    model: nn.Module, mixture: Mixture, recipe: ExpertRecipe, routing: Routing, keep: int
) -> list[int]:
    """Return the experts of a mixture that stay."""
    few = routing.hits < recipe.least
    if recipe.few == "stop" and bool(few.any()):
        idle = few.nonzero().flatten().tolist()
        raise DataError(
            f"experts {_listed(idle)} of {mixture.name!r} were chosen by fewer than {recipe.least} "
            f"of {routing.tokens} tokens; calibrate with more data, or say few='keep' or 'borrow'"
        )
    always = few if recipe.few == "keep" else torch.zeros_like(few)
    if int(always.sum()) > keep:
        raise OptionError(
            f"{int(always.sum())} experts of {mixture.name!r} were chosen by fewer than "
            f"{recipe.least} tokens, and only {keep} are to stay; calibrate with more data, or say "
            "few='borrow'"
        )
    weights = [model.get_parameter(path) for path in mixture.members if _is_stack(model, path)]
    rows = model.get_parameter(mixture.router).float().cpu()
    stacks = [weight.detach().float().cpu() for weight in weights]
    borrowing = few if recipe.few == "borrow" else torch.zeros_like(few)
    return recipe.choose(Seen(routing, rows, stacks, keep, always, borrowing))


def _is_stack(model: nn.Module, path: str) -> bool:
    owner, _, leaf = path.rpartition(".")
    tensor = getattr(model.get_submodule(owner), leaf)
    return isinstance(tensor, nn.Parameter) and tensor.dim() == 3


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def _without(
    model: nn.Module,
    mixtures: Sequence[Mixture],
    kept: Mapping[str, Sequence[int]],
    routing: Mapping[str, Routing],
    sample: Any,
) -> Any:
    """Return the model that transformers builds with fewer experts."""
    # What is cut below need not be in memory twice; what stays must not be the model's own.
    cut = [model.get_parameter(p) for m in mixtures for p in m.members if _is_stack(model, p)]
    small = copy.deepcopy(model, {id(parameter): parameter for parameter in cut})
    for mixture in mixtures:
        for path in mixture.members:
            _cut(small, path, kept[mixture.name])
    count, keep = mixtures[0].count, len(kept[mixtures[0].name])
    chosen = {min(found.chosen, keep) for found in routing.values()}

    def is_right(made: Any) -> bool:
        fewer = [dataclasses.replace(mixture, count=keep) for mixture in mixtures]
        try:
            seen = collect_routing(made, fewer, [sample])
        except (RuntimeError, IndexError, LayerError):
            return False
        return {found.chosen for found in seen.values()} == chosen

    before = max(found.chosen for found in routing.values())
    made = of_configuration(small, _changes(small.config, count, keep, before), is_right)
    if made is None:
        raise LayerError(
            f"no configuration of {type(model).__name__} says that {keep} of {count} experts are "
            "left"
        )
    return made


def _cut(model: nn.Module, path: str, keep: Sequence[int]) -> None:
    owner, _, leaf = path.rpartition(".")
    holder = model.get_submodule(owner)
    tensor = getattr(holder, leaf)
    data = tensor.detach()[torch.tensor(keep, device=tensor.device)].clone()
    if isinstance(tensor, nn.Parameter):
        holder._parameters[leaf] = nn.Parameter(data, requires_grad=tensor.requires_grad)
    else:
        holder._buffers[leaf] = data


def _changes(config: Any, count: int, keep: int, chosen: int) -> Iterator[dict[str, int]]:
    """Yield what to change of a configuration: how many experts there are, and are chosen."""
    said = sizes_said(config)
    counts = [name for name, value in said.items() if value == count]
    choices = [name for name, value in said.items() if value == chosen and chosen > keep]
    for number in range(1, len(counts) + 1):
        for some in itertools.combinations(counts, number):
            for more in range(len(choices) + 1):
                for others in itertools.combinations(choices, more):
                    yield dict.fromkeys((*some, *others), keep)


def _record(
    model: nn.Module,
    recipe: ExpertRecipe,
    coverage: Coverage,
    mixtures: Sequence[Mixture],
    kept: Mapping[str, Sequence[int]],
) -> PruneRecord:
    """Return the record of a run, without what it was calibrated on."""
    card = getattr(recipe, "card", None)
    layers = []
    for block, mixture in enumerate(mixtures):
        for path in mixture.members:
            if _is_stack(model, path):
                shape = list(model.get_parameter(path).shape)
                left = math.prod(shape[1:]) * len(kept[mixture.name])
                layers.append(LayerRecord(path, block, shape, left, 0.0, 0.0, {}))
    whole = sum(layer.weight.numel() for layer in coverage.layers)
    after = whole - sum(layer.size - layer.kept for layer in layers)
    removed = {
        mixture.members[0]: sorted(set(range(mixture.count)) - set(kept[mixture.name]))
        for mixture in mixtures
    }
    return PruneRecord(
        model=str(getattr(model, "name_or_path", "") or type(model).__name__),
        method=card.name if card else "recipe",
        recipe=repr(recipe),
        parts=recipe.recorded(),
        pattern="experts",
        density_asked=recipe.target,
        calibration={"source": "none"},
        layers=layers,
        coverage=coverage.summary(),
        versions=versions(),
        made=circumstances(coverage.layers[0].weight.device),
        structure={
            "removed": removed,
            "weights": {"before": whole, "after": after},
            "settings": [],
            "whole": {},
        },
    )
