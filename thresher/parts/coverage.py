"""Which parameters of a model are pruned, which are kept on purpose, which are not understood."""

from __future__ import annotations

__all__ = ["Coverage", "cover", "find_layers"]

import fnmatch
import warnings
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ..core.errors import LayerError, OptionError, nearest
from ..core.records import kind_of
from .forms import Columns, Rows, form_of, multiplies_its_own_way
from .layers import Layer
from .reasons import Reasons, identify, why_kept

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

#: The share of parameters that are not understood from which on it is said aloud.
_MUCH = 0.05
#: Layers whose names are all told where a pattern matches none.
_FEW = 20


@dataclass
class Coverage:
    """What becomes of every parameter of a model.

    Parameters
    ----------
    layers : list of Layer
        To prune, in the model's own order.
    kept : dict of str to str
        Parameters that stay dense on purpose, and why.
    unknown : dict of str to str
        Parameters of two or more axes that are no known kind of layer, and what they are in.
    sizes : dict of str to int
        Numbers of values of all parameters, those that are shared counted once.
    """

    layers: list[Layer] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def keep(self, layers: Sequence[Layer]) -> None:
        """Prune these layers alone, and call the others not understood.

        Parameters
        ----------
        layers : sequence of Layer
            Those of this coverage whose own values are what the model multiplies by.

        Raises
        ------
        LayerError
            If there are none.
        """
        names = {layer.name for layer in layers}
        for layer in self.layers:
            if layer.name not in names:
                self.unknown[layer.parameter] = type(layer.module).__name__
        if not layers:
            raise LayerError(
                f"nothing to prune: {next(iter(self.unknown))!r} and every other layer computes "
                "what it multiplies by from its weight, so that zeros in the weight would be none "
                "in use"
            )
        self.layers = list(layers)

    def summary(self) -> dict[str, object]:
        """Return the numbers of parameters pruned, kept by reason, and not understood by name."""
        pruned = sum(layer.weight.numel() for layer in self.layers)
        kept: dict[str, int] = {}
        for name, reason in self.kept.items():
            kept[reason] = kept.get(reason, 0) + self.sizes[name]
        unknown = {name: self.sizes[name] for name in self.unknown}
        return {
            "parameters": sum(self.sizes.values()),
            "pruned": pruned,
            "kept": kept,
            "not_understood": unknown,
        }

    def warn_of_unknown(self) -> None:
        """Warn where much of a model stays dense because it is not known what it multiplies."""
        sizes = {name: self.sizes[name] for name in self.unknown}
        share = sum(sizes.values()) / sum(self.sizes.values())
        if share > _MUCH:
            largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
            plainer = _made_plain(self.unknown)
            warnings.warn(
                f"{share:.0%} of the model's parameters are used in ways that are not understood "
                f"and stay dense, such as {', '.join(map(repr, largest))}; the record's coverage "
                "names all of them" + (f". {plainer}" if plainer else ""),
                stacklevel=4,
            )


def find_layers(
    model: nn.Module, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Layer]:
    """Find the layers to prune, in the model's own order.

    Parameters
    ----------
    model : nn.Module
        Any module.
    include : sequence of str
        Shell patterns of names, such as ``"lm_head"``, to prune although they would stay
        dense: output heads of Hugging Face models, layers whose weight is shared with an
        embedding, routers, depthwise kernels of up to four inputs.
    exclude : sequence of str
        Shell patterns of names to leave dense; they win over `include`.

    Returns
    -------
    list of Layer
        Embeddings are never among them.

    Raises
    ------
    LayerError
        If there is nothing to prune, or a layer holds no plain floating-point weight.
    OptionError
        If a pattern matches no layer.
    """
    return cover(model, include=include, exclude=exclude).layers


def cover(
    model: nn.Module,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    strict: bool = True,
) -> Coverage:
    """Sort every parameter of a model.

    Parameters
    ----------
    model, include, exclude
        See :func:`find_layers`, also for what is raised.
    strict : bool, default True
        Whether a pattern of `exclude` that matches no layer is an error. Otherwise it is a
        warning: programs share such lists among architectures.
    """
    reasons = Reasons(model)
    found, used = Coverage(), _Patterns(include, exclude)
    places: dict[tuple[Hashable, tuple[int, int] | None], int] = {}
    for path, module in model.named_modules():
        for layer in _layers_in(path, module):
            identity = (identify(getattr(module, layer.attribute)), layer.part)
            if identity in places:
                owner = found.layers[places[identity]]
                found.layers[places[identity]] = replace(
                    owner,
                    users=(*owner.users, *layer.users),
                    by_products=owner.by_products or layer.by_products,
                )
                continue
            weight = getattr(module, layer.attribute)
            if weight.numel() == 0 and weight.dim() < 2:
                raise LayerError(
                    f"the weight of layer {layer.name!r} is empty: it is shared out over processes "
                    "(DeepSpeed ZeRO-3, FSDP); gather the weights first, or prune the model's "
                    "folder with `thresher prune`"
                )
            reason = "empty" if weight.numel() == 0 else reasons.of_layer(layer)
            if used.excludes(layer):
                reason = "excluded"
            elif reason is not None and used.includes(layer):
                reason = None
                if reasons.shares_embedding(layer):
                    _warn_of_tie(layer)
            if reason is None:
                places[identity] = len(found.layers)
                found.layers.append(layer)
            else:
                found.kept[layer.parameter] = reason
    _sort_the_rest(model, found)
    used.check(model, strict)
    if not found.layers:
        raise LayerError(_nothing(model, found, exclude))
    return found


def _warn_of_tie(layer: Layer) -> None:
    warnings.warn(
        f"{layer.name!r} shares its weight with an embedding, which loses the same entries; leave "
        "it out of include, or untie the two (tie_word_embeddings=False) and save the model first",
        stacklevel=4,
    )


class _Patterns:
    """The user's shell patterns, and which of them have matched anything."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        for option, patterns in (("include", include), ("exclude", exclude)):
            if isinstance(patterns, str):
                raise OptionError(f"{option}={patterns!r} is a text; pass a list: [{patterns!r}]")
        self._include, self._exclude = tuple(include), tuple(exclude)
        self._idle = {*self._include, *self._exclude}
        self._effective: set[str] = set()
        self._seen: list[str] = []

    def includes(self, layer: Layer) -> bool:
        """Return whether a layer that would stay dense is to be pruned."""
        hits = self._match(self._include, layer)
        self._effective.update(hits)
        return bool(hits)

    def excludes(self, layer: Layer) -> bool:
        self._seen.append(layer.name)
        # Asked of every layer, so that a pattern of either kind is known to match something.
        self._match(self._include, layer)
        return bool(self._match(self._exclude, layer))

    def _match(self, patterns: tuple[str, ...], layer: Layer) -> list[str]:
        names = {layer.name, layer.parameter, layer.parameter.rpartition(".")[0]}
        # A layer's own name matches, though the brackets of an expert's are a class in a pattern.
        hits = [p for p in patterns if any(p == n or fnmatch.fnmatchcase(n, p) for n in names)]
        self._idle.difference_update(hits)
        return hits

    def check(self, model: nn.Module, strict: bool) -> None:
        for pattern in (*self._include, *self._exclude):
            if pattern in self._idle:
                option = "include" if pattern in self._include else "exclude"
                kinds = {kind_of(name) for name in self._seen}
                hint = nearest(pattern.rpartition(".")[2].strip("*"), kinds)
                if len(self._seen) <= _FEW:
                    hint = nearest(pattern, set(self._seen))
                message = (
                    f"{option}={pattern!r} matches no layer of {type(model).__name__}; {hint}; "
                    "patterns are of whole names, such as '*.down_proj'"
                )
                if strict or option == "include":
                    raise OptionError(message)
                warnings.warn(message, stacklevel=4)
            elif pattern in self._include and pattern not in self._effective:
                warnings.warn(
                    f"include={pattern!r} changes nothing: what it matches is pruned anyway, or "
                    "excluded; to prune some layers alone, exclude the others",
                    stacklevel=4,
                )


def _layers_in(path: str, module: nn.Module) -> Iterator[Layer]:
    """Yield what a module's own parameters are, as layers."""
    if form_of(module) is not None:
        _check_plain(path, module)
        # A parametrised weight is computed from other tensors at every call.
        if isinstance(module._parameters.get("weight"), nn.Parameter):
            yield Layer(path, module, by_products=multiplies_its_own_way(module))
    elif isinstance(module, nn.MultiheadAttention):
        yield from _projections(path, module)
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 2:
                yield _bare(path, module, name)
    else:
        for name, parameter in module.named_parameters(recurse=False):
            if _are_experts(module, parameter):
                yield from _experts(path, module, name, parameter)


def _bare(path: str, module: nn.Module, name: str) -> Layer:
    full = f"{path}.{name}".strip(".")
    return Layer(full, module, name, Rows(), users=(), parameter=full)


def _projections(path: str, module: nn.MultiheadAttention) -> Iterator[Layer]:
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() != 2:
            continue
        whole = _bare(path, module, name)
        if name != "in_proj_weight":
            yield whole
            continue
        width = parameter.shape[0] // 3
        for index in range(3):
            part = (index * width, width)
            yield replace(whole, name=f"{whole.name}[{index}]", part=part)


def _are_experts(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Return whether a parameter stacks one matrix for each of a module's experts."""
    if parameter.dim() != 3 or parameter.shape[0] < 2 or min(parameter.shape[1:]) < 2:
        return False
    if "expert" in type(module).__name__.lower():
        return True
    counts = (v for k, v in vars(module).items() if "expert" in k and isinstance(v, int))
    return parameter.shape[0] in counts


def _experts(path: str, module: nn.Module, name: str, parameter: nn.Parameter) -> Iterator[Layer]:
    full = f"{path}.{name}".strip(".")
    form = Columns() if getattr(module, "is_transposed", False) else Rows()
    for index in range(parameter.shape[0]):
        part = (index, 1)
        yield Layer(f"{full}[{index}]", module, name, form, part, users=(), parameter=full)


def _check_plain(path: str, module: nn.Module) -> None:
    weight: Any = module.weight
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise LayerError(
            f"layer {path!r} ({type(module).__name__}) has no weight yet; run the model once on "
            "an input before pruning it"
        )
    if weight.dtype not in _FLOATS:
        raise LayerError(
            f"layer {path!r} ({type(module).__name__}) holds {weight.dtype}, the codes of a "
            "quantised weight; load the model without quantisation, prune it, and quantise last"
        )


def _sort_the_rest(model: nn.Module, found: Coverage) -> None:
    """Give every parameter that is no layer its reason."""
    pruned = {
        identify(getattr(layer.module, layer.attribute)): layer.parameter for layer in found.layers
    }
    seen: set[Hashable] = set()
    lazy_kinds = nn.parameter.UninitializedParameter
    shapes = [p.shape for p in model.parameters() if not isinstance(p, lazy_kinds)]
    longest = max((max(shape) for shape in shapes if len(shape) > 1), default=0)
    for full, parameter in model.named_parameters():
        # Counted once, under the name that it is pruned by or else its first one.
        identity = identify(parameter)
        if identity in seen:
            continue
        seen.add(identity)
        lazy = isinstance(parameter, lazy_kinds)
        found.sizes[pruned.get(identity, full)] = 0 if lazy else parameter.numel()
        if identity in pruned or full in found.kept:
            continue
        path, _, name = full.rpartition(".")
        module = model.get_submodule(path)
        reason = why_kept(module, name, parameter, longest)
        if reason is None:
            found.unknown[full] = type(module).__name__
        else:
            found.kept[full] = reason
    # A shared parameter is known by its first name alone.
    found.kept = {name: reason for name, reason in found.kept.items() if name in found.sizes}


def _nothing(model: nn.Module, found: Coverage, exclude: Sequence[str]) -> str:
    message = (
        f"{type(model).__name__} has no layer to prune: Linear, convolution, recurrent and "
        "attention layers, experts and Hugging Face Conv1D layers can be, outside embeddings and "
        "the output head"
    )
    if exclude:
        message += f" and outside exclude={list(exclude)}"
    if plainer := _made_plain(found.unknown):
        message += f". {plainer}"
    elif found.unknown:
        names = ", ".join(map(repr, list(found.unknown)[:3]))
        message += f". How {names} is used is not understood"
    return message


def _made_plain(unknown: Iterable[str]) -> str:
    """Return what to do about parametrised layers in what is not understood, empty of none."""
    halves = ("weight_g", "weight_v", "weight_orig")
    parametrised = [n for n in unknown if "parametrizations." in n or n.endswith(halves)]
    if not parametrised:
        return ""
    return (
        f"{parametrised[0]!r} belongs to a parametrised layer, whose weight is computed at "
        "every call: torch.nn.utils.parametrize.remove_parametrizations(module, 'weight'), or "
        "remove_weight_norm or prune.remove for the older kinds, makes it a plain one"
    )
