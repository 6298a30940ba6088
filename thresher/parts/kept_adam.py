"""AdamW for pruned weights: zeros stay zeros, and have neither moments nor gradients."""

from __future__ import annotations

__all__ = ["KeptAdamW"]

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import distributed

from ..core.errors import NumericalError
from ..core.options import check_number
from .kept import Kept


class KeptAdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay whose state is as long as the kept weights are many.

    Gradients are gathered at the kept places, and dropped, as soon as backward has made them:
    one dense gradient at a time is in memory, and ``parameter.grad`` is None afterwards, so that
    gradients are clipped by `max_norm` here. Backward passes before a step add up.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them. What is zero in them now stays zero.
    lr : float, default 1e-3
        Step size; at least 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the running means of gradient and square, in [0, 1).
    eps : float, default 1e-8
        Added to the root of the mean square.
    weight_decay : float, default 1e-2
        Times `lr`: share of a weight that is taken off at each step.
    max_norm : float, optional
        Norm of all kept gradients together beyond which they are scaled down to it.

    Raises
    ------
    OptionError
        If a number is out of its range.
    LayerError
        If a parameter is not contiguous.
    NumericalError
        At a step, if a gradient holds NaN or infinite values; no weight has then changed.

    References
    ----------
    Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        max_norm: float | None = None,
    ) -> None:
        check_number("lr", lr)
        check_number("eps", eps)
        check_number("weight_decay", weight_decay)
        for beta in betas:
            check_number("betas", beta, below=1.0)
        if max_norm is not None:
            check_number("max_norm", max_norm, above=0.0)
        self._max_norm = max_norm
        self._gradients: dict[torch.Tensor, torch.Tensor] = {}
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        #: The kept places of every parameter; of vectors, such as biases, nothing is removed.
        self.kept = {
            p: Kept(p, torch.ones_like(p, dtype=torch.bool) if p.dim() < 2 else None)
            for p in self._parameters()
        }
        self._handles = [_hook(p, self._take) for p in self.kept]

    def close(self) -> None:
        """Leave the parameters' gradients alone from now on."""
        for handle in self._handles:
            handle.remove()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients that were gathered."""
        self._gradients.clear()
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Change the kept weights by the gradients gathered since the last step.

        Parameters
        ----------
        closure : callable, optional
            Called first, to make the gradients; returns the loss, which is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = self._clipping()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = self._gradients.pop(parameter, None)
                if gradient is not None:
                    self._change(parameter, gradient.mul_(scale), group)
        return loss

    def average(self) -> None:
        """Average what was gathered over all processes of ``torch.distributed``."""
        many = distributed.get_world_size()
        for parameter in self._parameters():
            kept = self.kept[parameter]
            if parameter not in self._gradients:
                self._gradients[parameter] = parameter.new_zeros(len(kept))
            distributed.all_reduce(self._gradients[parameter])
            self._gradients[parameter] /= many

    def _parameters(self) -> Iterator[torch.Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def _take(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        found = self.kept[parameter].gather(parameter.grad)
        parameter.grad = None
        held = self._gradients.get(parameter)
        self._gradients[parameter] = found if held is None else held.add_(found)

    def _clipping(self) -> float:
        """Return what to scale gradients by."""
        norm = _norm(self._gradients.values())
        if not math.isfinite(norm):
            self._gradients.clear()
            raise NumericalError(
                "the gradient holds NaN or infinite values; lower the learning rate"
            )
        if self._max_norm is None or norm <= self._max_norm:
            return 1.0
        return self._max_norm / norm

    def _change(
        self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(gradient)
            state["exp_avg_sq"] = torch.zeros_like(gradient)
        state["step"] += 1
        count, lr = int(state["step"]), group["lr"]
        mean = state["exp_avg"].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = square.sqrt().div_(math.sqrt(1 - second**count)).add_(group["eps"])
        parameter.mul_(1 - lr * group["weight_decay"])
        self.kept[parameter].add(parameter, mean / root, -lr / (1 - first**count))


def _hook(parameter: Any, function: Callable[[torch.Tensor], None]) -> Any:
    return parameter.register_post_accumulate_grad_hook(function)


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))
