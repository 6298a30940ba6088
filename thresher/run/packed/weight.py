"""The dense weight of a packed layer, made when something computes with it."""

from __future__ import annotations

__all__ = ["WeightOnDemand", "refusal"]

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ...core.errors import LayerError

refusal = (
    "the weight of a packed layer cannot be written, replaced or trained: what `weight` gives is a "
    "copy, which the layer does not read. Change the dense layer and pack it again, or train with "
    "thresher.run.packed.sparse_linear.SparseLinear"
)


_LEAVE_TORCH = (Tensor.numpy, Tensor.tolist, Tensor.__array__)


class WeightOnDemand(Tensor):
    """A copy of a packed weight that takes no memory until an operator needs its entries.

    Shape, dtype and device are there at once, so that code which only asks for those costs
    nothing. Operators see the dense weight and return ordinary tensors. Writing raises, because
    the layer would not notice.

    Parameters
    ----------
    unpack : callable
        Returns the dense weight.
    shape, dtype, device
        Of that weight.

    Raises
    ------
    LayerError
        When it is written to, or asked to require a gradient.
    """

    _unpack: Callable[[], Tensor]

    @staticmethod
    def __new__(
        cls,
        unpack: Callable[[], Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Self:
        """Make the tensor without its entries."""
        made: Self = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
        made._unpack = unpack
        return made

    def dense(self) -> Tensor:
        """Return the weight as an ordinary tensor."""
        return self._unpack()

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Refuse to set attributes; results of operators are ordinary tensors."""
        if args and isinstance(args[0], cls):
            if func is Tensor.requires_grad_ or getattr(func, "__name__", "") == "__set__":
                raise LayerError(refusal)
            if func == Tensor.is_leaf.__get__:  # type: ignore[attr-defined]
                return False  # computed from what the layer holds: optimizers refuse it
            if func in _LEAVE_TORCH:
                return func(args[0].dense(), *args[1:], **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator on the dense weight."""
        given = kwargs or {}
        schema = func._schema
        values = [*zip(schema.arguments, args, strict=False)]
        values += [(argument, given.get(argument.name)) for argument in schema.arguments]
        for argument, value in values:
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and any(isinstance(item, cls) for item in tree_flatten(value)[0]):
                raise LayerError(refusal)

        def dense(item: Any) -> Any:
            return item.dense() if isinstance(item, cls) else item

        out = func(*tree_map(dense, args), **tree_map(dense, given))
        is_view = any(result.alias_info is not None for result in schema.returns)
        return tree_map(cls._of_view, out) if is_view else out

    @classmethod
    def _of_view(cls, view: Any) -> Any:
        """Return a view of the dense weight, to which writing would be lost as well."""
        if not isinstance(view, Tensor):
            return view
        return cls(lambda: view, tuple(view.shape), view.dtype, view.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.dense().clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense().__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({tuple(self.shape)}, {self.dtype}, {self.device})"
