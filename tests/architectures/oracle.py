"""Wanda's masks, recomputed with nothing but plain forward passes.

Nothing here is Thresher's. A model is run as its user would run it, one sample at a time,
while a dispatch mode looks at every matrix product and convolution below it: where one operand
is a parameter, or a slice or transpose of one, the other holds the parameter's inputs. This
sees modules, stacked experts and weights that are used without a call alike.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
#: Position of the two factors among the arguments of a matrix product.
_PRODUCTS = {
    _ATEN.mm.default: 0,
    _ATEN.bmm.default: 0,
    _ATEN.mv.default: 0,
    _ATEN.addmm.default: 1,
    _ATEN.baddbmm.default: 1,
    _ATEN.addmv.default: 1,
}


@dataclass
class Use:
    """A matrix that a parameter, or a part of it, is used as.

    Parameters
    ----------
    view : Tensor of shape (inputs, ...)
        The parameter's own memory; every index of the other dimensions is an output row.
    squares : Tensor, float64
        Sum over all tokens of the squares of the inputs; broadcasts with `view`.
    """

    view: torch.Tensor
    squares: torch.Tensor


@dataclass
class Seen:
    """What passes have shown of a model's parameters, in the order in which they were used."""

    uses: dict[str, dict[tuple[Any, ...], Use]] = field(default_factory=dict)

    def add(self, name: str, view: torch.Tensor, squares: torch.Tensor) -> None:
        """Add the inputs of one product."""
        key = (view.data_ptr(), tuple(view.shape), view.stride())
        parts = self.uses.setdefault(name, {})
        if key in parts:
            parts[key].squares += squares
        else:
            parts[key] = Use(view, squares)


class _Watch(TorchDispatchMode):
    """Notes the inputs of every parameter while it is active."""

    def __init__(self, model: nn.Module, only: Collection[str] | None) -> None:
        super().__init__()
        self.seen = Seen()
        self._names: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if only is not None and name not in only:
                continue
            start = parameter.data_ptr()
            end = start + parameter.numel() * parameter.element_size()
            self._names[_memory(parameter)].append((start, end, name))

    def _name(self, tensor: torch.Tensor) -> str | None:
        for start, end, name in self._names.get(_memory(tensor), ()):
            if start <= tensor.data_ptr() < end:
                return name
        return None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS:
            left, right = args[_PRODUCTS[func] :][:2]
            self._product(left, right)
        elif func is _ATEN.convolution.default:
            self._convolution(args)
        return func(*args, **(kwargs or {}))

    def _product(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Look at ``left @ right``, each a matrix or a batch of them."""
        name = self._name(right)
        if name is not None and right.dim() > 1:
            self._matrices(name, left.mT, right)
            return
        name = self._name(left)
        if name is not None:
            right = right.unsqueeze(-1) if right.dim() == 1 else right
            self._matrices(name, right, left.mT)

    def _matrices(self, name: str, inputs: torch.Tensor, weight: torch.Tensor) -> None:
        """Add inputs of shape (..., inputs, tokens) of weights of shape (..., inputs, outputs)."""
        squares = inputs.double().square().sum(-1)
        if weight.dim() == 2:
            self.seen.add(name, weight, squares.unsqueeze(-1))
            return
        for matrix, sums in zip(weight, squares, strict=True):
            self.seen.add(name, matrix, sums.unsqueeze(-1))

    def _convolution(self, args: Sequence[Any]) -> None:
        inputs, weight, _, stride, padding, dilation, transposed, output_padding, groups = args
        name = self._name(weight)
        if name is None:
            return
        if transposed:
            raise NotImplementedError(f"the oracle does not know transposed convolutions: {name}")
        squares, kernel = inputs.double().square(), weight.double()
        common = (stride, padding, dilation, transposed, output_padding, groups)
        outputs = _ATEN.convolution(squares, kernel, None, *common)
        # The derivative of the sum of all outputs by a weight is the sum of what it multiplies.
        _, sums, _ = _ATEN.convolution_backward(
            torch.ones_like(outputs), squares, kernel, None, *common, [False, True, False]
        )
        self.seen.add(name, weight.movedim(0, -1), sums.movedim(0, -1))


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def watch(
    model: nn.Module,
    samples: Iterable[Mapping[str, torch.Tensor]],
    only: Collection[str] | None = None,
) -> Seen:
    """Run a model on samples, each alone, and return what its parameters were given."""
    with torch.no_grad(), _Watch(model, only) as mode:
        for sample in samples:
            model(**sample)
    return mode.seen


_CLASSIFIER = re.compile(r"(classifier|score)(\.\d+)?\.weight")


def matrices(model: nn.Module, seen: Seen) -> list[str]:
    """Return the parameters used as matrices, but embeddings and output heads.

    Those of classifiers have the names that the architectures in the table give them.
    """
    dense = set()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            dense.add(id(module.weight))
        head = getattr(module, "get_output_embeddings", lambda: None)()
        if head is not None:
            dense.add(id(head.weight))
    parameters = dict(model.named_parameters())
    return [
        name
        for name in seen.uses
        if id(parameters[name]) not in dense and not _CLASSIFIER.fullmatch(name)
    ]


@dataclass(frozen=True)
class Choice:
    """What a run had decided of a parameter before it looked at any input.

    Parameters
    ----------
    part : int
        Which others it is pruned with at once.
    density : float, default 0.5
        Share of every row that is kept.
    """

    part: int
    density: float = 0.5


def units(
    model: nn.Module, names: Iterable[str], choices: Mapping[str, Choice] | None = None
) -> list[list[str]]:
    """Part parameters, given in the order in which they run, into what is pruned at once.

    A child of the outermost list of modules is a unit; a layer outside all lists is one of its
    own, the projections of torch's attention being one layer.

    Parameters
    ----------
    model : nn.Module
        What the parameters are of.
    names : iterable of str
        The parameters.
    choices : dict of str to Choice, optional
        By parameter, where units are pruned in parts.
    """
    modules = dict(model.named_modules())
    lists = [n for n, m in modules.items() if isinstance(m, nn.ModuleList | nn.Sequential)]
    found: dict[Any, list[str]] = {}
    homes: dict[int, str] = {}
    for name in names:
        # Outermost first, which is how named_modules yields them.
        outer = next((f"{n}.".lstrip(".") for n in lists if _within(name, n)), None)
        if outer is not None:
            unit = outer + name.removeprefix(outer).partition(".")[0]
        else:
            unit = name.rpartition(".")[0]
            above = unit.rpartition(".")[0]
            unit = above if isinstance(modules.get(above), nn.MultiheadAttention) else unit
        part = None if choices is None else choices[name].part
        if part is not None and homes.setdefault(part, unit) != unit:
            raise AssertionError(f"pruned at once, but of several blocks: {homes[part]}, {unit}")
        found.setdefault((unit, part), []).append(name)
    return list(found.values())


def _within(name: str, module: str) -> bool:
    return name.startswith(f"{module}.".lstrip("."))


@torch.no_grad()
def prune_rows(
    seen: Seen, names: Iterable[str], choices: Mapping[str, Choice] | None = None
) -> dict[str, list[torch.Tensor]]:
    """Set half of every row, or what was chosen, to zero: those of the least score by Wanda.

    Returns
    -------
    dict of str to list of Tensor
        By parameter, the views of it that were pruned.
    """
    pruned = {}
    for name in names:
        density = 0.5 if choices is None else choices[name].density
        for use in seen.uses[name].values():
            score = (use.view.double().abs() * use.squares.sqrt()).flatten(0, -2)
            count = round((1 - density) * score.shape[0])
            drop = score.argsort(dim=0, stable=True)[:count]
            keep = torch.ones_like(score, dtype=torch.bool).scatter_(0, drop, False)
            use.view.mul_(keep.view(use.view.shape))
        pruned[name] = [use.view for use in seen.uses[name].values()]
    return pruned


@dataclass
class Wanda:
    """What the oracle made of a model.

    Parameters
    ----------
    masks : dict of str to Tensor of bool
        By parameter: which weights survive.
    covered : dict of str to Tensor of bool
        By parameter: which weights met an input, and so have a score.
    units : list of list of str
        The parameters in the order in which they were pruned.
    """

    masks: dict[str, torch.Tensor]
    covered: dict[str, torch.Tensor]
    units: list[list[str]]

    def agreement(self, pruned: nn.Module) -> dict[str, float]:
        """Return by parameter the share of scored weights on which a pruned model agrees."""
        parameters = dict(pruned.named_parameters())
        shares = {}
        for name, mask in self.masks.items():
            same = (parameters[name].detach() != 0) == mask
            shares[name] = float(same[self.covered[name]].double().mean())
        return shares

    def total(self, pruned: nn.Module) -> float:
        """Return the share of all scored weights on which a pruned model agrees."""
        sizes = {name: int(covered.sum()) for name, covered in self.covered.items()}
        shares = self.agreement(pruned)
        return sum(shares[name] * size for name, size in sizes.items()) / sum(sizes.values())


def wanda(
    model: nn.Module,
    samples: Sequence[Mapping[str, torch.Tensor]],
    *,
    cache: bool = True,
    choices: Mapping[str, Choice] | None = None,
) -> Wanda:
    """Prune a copy of a model, unit by unit, and return the masks.

    Parameters
    ----------
    model : nn.Module
        Any model of transformers; it is left as it is.
    samples : sequence of dict
        Inputs, each run alone through the whole model.
    cache : bool, default True
        Whether the model may keep keys and values, as it does by default.
    choices : dict of str to Choice, optional
        Prune these parameters alone; by default half of all that are used as matrices.
    """
    model = working_copy(model, cache)
    seen = watch(model, samples)
    wanted = set(matrices(model, seen) if choices is None else choices)
    masks, covered = {}, {}
    order = units(model, [name for name in seen.uses if name in wanted], choices)
    for unit in order:
        views = prune_rows(watch(model, samples, unit), unit, choices)
        for name in unit:
            parameter = model.get_parameter(name)
            masks[name] = parameter.detach() != 0
            covered[name] = _covered(parameter, views[name])
    return Wanda(masks, covered, order)


@torch.no_grad()
def _covered(parameter: nn.Parameter, views: Sequence[torch.Tensor]) -> torch.Tensor:
    mark = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    for view in views:
        offset = view.storage_offset() - parameter.storage_offset()
        mark.as_strided(view.shape, view.stride(), offset).fill_(1)
    return mark.bool()


def working_copy(model: nn.Module, cache: bool) -> nn.Module:
    """Return a copy that keeps a cache, as is the default, or not, and runs plain experts."""
    model = copy.deepcopy(model).eval()
    if hasattr(model, "set_experts_implementation"):
        # Each expert is then a product with its own slice of the stacked weights.
        model.set_experts_implementation("eager")
    if not cache:
        forbid_cache(model)
    return model


def forbid_cache(model: nn.Module) -> None:
    """Make a model keep no keys, values or states after a pass."""
    for module in model.modules():
        if hasattr(getattr(module, "config", None), "use_cache"):
            module.config.use_cache = False
