"""Seeing which inputs a weight multiplies where no module is called with them."""

from __future__ import annotations

__all__ = ["watching_products"]

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from ..parts.forms import Columns, Kernel, Rows, TransposedKernel, unfold
from ..parts.layers import Layer

Take = Callable[[Layer, Callable[[], torch.Tensor]], None]


@contextmanager
def watching_products(model: nn.Module, layers: Sequence[Layer], take: Take) -> Iterator[None]:
    """Call ``take(layer, rows)`` for every product with one of the layers' weights.

    A product is known by the memory that it reads, so that it does not matter which function,
    view or transposition of the parameter the model uses: experts chosen one by one, a
    projection cut from a larger one, a recurrent step. Fused kernels that hide their products
    are switched off meanwhile.

    Parameters
    ----------
    model : nn.Module
        Its experts are run one by one while the context lasts.
    layers : sequence of Layer
        Whose products to watch.
    take : callable
        Gets the layer, and a function that returns the rows of shape (..., tokens, columns)
        that its matrix multiplies.
    """
    if not layers:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(_experts_one_by_one(model))
        stack.enter_context(_without_fusion())
        products = stack.enter_context(_Products(layers, take))
        if any(layer.weight.is_meta for layer in layers):
            # Their modules are loaded one by one as they are called.
            handle = register_module_forward_pre_hook(lambda *_: products.look())
            stack.callback(handle.remove)
        yield


@contextmanager
def _without_fusion() -> Iterator[None]:
    """Have recurrent layers and attention multiply their weights one by one."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with warnings.catch_warnings():
        # torch speaks of graphics processors when these flags are touched.
        warnings.simplefilter("ignore")
        try:
            with torch.backends.mkldnn.flags(enabled=False):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _experts_one_by_one(model: nn.Module) -> Iterator[None]:
    """Choose transformers' plain loop over experts; its other ways copy or fuse the weights."""
    changed: list[tuple[Any, str]] = []
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        chosen = getattr(config, "_experts_implementation", None)
        if isinstance(chosen, str) and chosen != "eager":
            changed.append((config, chosen))
            config._experts_implementation = "eager"
    try:
        yield
    finally:
        for config, chosen in changed:
            config._experts_implementation = chosen


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, layers: Sequence[Layer], take: Take) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._take = take
        self._holders = _by_parameter(layers)
        self._layers: dict[int, list[tuple[Layer, torch.Tensor]]] = {}
        self._converted: dict[int, torch.Tensor] = {}
        self.look()

    def look(self) -> None:
        """See where the weights are now."""
        self._layers = {}
        seen: set[tuple[int, int]] = set()
        for (_, attribute), (holder, layers) in self._holders.items():
            whole = getattr(holder, attribute)
            memory = 0 if whole.is_meta else _memory(whole)
            fresh = [layer for layer in layers if (memory, id(layer)) not in seen]
            if memory:
                seen |= {(memory, id(layer)) for layer in fresh}
                known = self._layers.setdefault(memory, [])
                known += [(layer, layer.part_of(whole)) for layer in fresh]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "mv"):
            self._product(*args[:2])
        elif name in ("addmm", "baddbmm", "addmv"):
            self._product(*args[1:3])
        elif name == "convolution":
            self._convolution(*args)
        output = func(*args, **(kwargs or {}))
        if name == "_to_copy" and _memory(args[0]) in self._layers:
            self._follow(args[0], output)
        return output

    def _follow(self, weight: torch.Tensor, converted: torch.Tensor) -> None:
        """Know a weight that is converted to another dtype before it is used."""
        whole = weight.untyped_storage().nbytes() == weight.nbytes
        if whole and weight.stride() == converted.stride():
            source = _memory(weight)
            # Kept, or its memory could become another tensor's.
            before = self._converted.pop(source, None)
            self._layers.pop(_memory(before), None)
            self._converted[source] = converted
            self._layers[_memory(converted)] = self._layers[source]

    def _product(self, left: torch.Tensor, right: torch.Tensor) -> None:
        if right.dim() == 1:
            right = right.unsqueeze(-1)
        for layer, weight in self._layers.get(_memory(right), ()):
            self._matched(layer, weight, right.mT, left)
        for layer, weight in self._layers.get(_memory(left), ()):
            self._matched(layer, weight, left, right.mT)

    def _matched(
        self, layer: Layer, weight: torch.Tensor, used: torch.Tensor, inputs: torch.Tensor
    ) -> None:
        """Take the inputs if `used`, (outputs, inputs), reads from the layer's part."""
        if not isinstance(layer.form, Rows | Columns):
            return
        matrix = layer.form.matrix(weight)
        if used.dim() == 3 and used.shape[0] > 1 and used.stride(0) != 0:
            for one, rows in zip(used, inputs, strict=True):
                self._matched(layer, weight, one, rows)
            return
        used = used[0] if used.dim() == 3 else used
        # The stride of an axis of one entry says nothing.
        axes = zip(used.shape, matrix.shape, used.stride(), matrix.stride(), strict=True)
        alike = all(1 in (size, whole) or step == stride for size, whole, step, stride in axes)
        if not alike or used.shape[-1] != matrix.shape[-1]:
            return
        start, step = used.storage_offset() - matrix.storage_offset(), matrix.stride(0)
        if -used.shape[0] * step < start < matrix.shape[0] * step:
            self._take(layer, lambda: inputs.reshape(-1, inputs.shape[-1]))

    def _convolution(self, x: torch.Tensor, used: torch.Tensor, *options: Any) -> None:
        """Take the inputs of a convolution as it is computed, whatever its module says."""
        _, stride, padding, dilation, transposed, _, groups = options
        form = TransposedKernel if transposed else Kernel

        def rows(layer: Layer) -> torch.Tensor:
            if transposed:
                return layer.inputs(x)
            both = [amount for amount in reversed(padding) for _ in range(2)]
            padded = nn.functional.pad(x, both)
            return unfold(padded, used.shape[2:], stride, dilation, groups)

        for layer, weight in self._layers.get(_memory(used), ()):
            if isinstance(layer.form, form) and used.shape == weight.shape:
                self._take(layer, functools.partial(rows, layer))


def _by_parameter(
    layers: Sequence[Layer],
) -> dict[tuple[int, str], tuple[nn.Module, list[Layer]]]:
    """Return layers by the modules that hold their parameter, and by its name there.

    Loaded one by one, modules that share a parameter hold a copy each.
    """
    holders: dict[tuple[int, str], tuple[nn.Module, list[Layer]]] = {}
    for layer in layers:
        for holder in dict.fromkeys((layer.module, *layer.users)):
            key = (id(holder), layer.attribute)
            holders.setdefault(key, (holder, []))[1].append(layer)
    return holders


def _memory(tensor: Any) -> int:
    """Identify the memory that a tensor reads."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        return 0
    return tensor.untyped_storage().data_ptr()
