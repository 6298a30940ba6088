"""Holding the zeros of a pruned model in a training loop of the user's own."""

from __future__ import annotations

__all__ = ["Hold", "hold"]

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from ...core.errors import LayerError, OptionError
from ..record import PruneRecord
from ..tracking import record_in
from .zeros import Place, pruned_places

_SHOWN = 5


def hold(model: nn.Module, *optimizers: torch.optim.Optimizer) -> Hold:
    """Keep the zeros of a pruned model while optimizers train it.

    Neither weight decay nor momentum revives a zero: gradients are masked as soon as they are
    made, and weights after every step. Whatever pattern the zeros have, N:M or other, stays. With
    the first step, the record that the model has (see :func:`thresher.prune`) forgets what was
    measured of texts and tasks: the model is another one from there on.

    Parameters
    ----------
    model : nn.Module
        A pruned model, wrapped or not: its zeros are those of the layers that
        :func:`thresher.prune` has pruned, and of every layer that it would prune. A kept weight
        that happens to be zero stays zero too.
    *optimizers : torch.optim.Optimizer
        Those that train it. Without any, zeros are only remembered, for :meth:`Hold.apply`.

    Returns
    -------
    Hold
        It lasts until :meth:`Hold.remove`, or to the end of a ``with`` statement. The model may
        be moved to another device meanwhile.

    Raises
    ------
    LayerError
        If the model has no zeros, or its weights are packed.
    OptionError
        If something is no optimizer, or the optimizers lack pruned weights that are trained.

    Examples
    --------
    >>> import torch, thresher as th
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    >>> record = th.prune(model, "magnitude", density=0.5)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    >>> with th.hold(model, optimizer):
    ...     model(torch.ones(2, 8)).sum().backward()
    ...     optimizer.step()
    >>> int((model[0].weight == 0).sum())
    16
    """
    places = pruned_places(model)
    inner = [_unwrapped(optimizer) for optimizer in optimizers]
    if inner:
        _check_trained(places, inner)
    return Hold(places, inner, record_in(model))


class Hold:
    """The zeros of a model, kept where they are; made by :func:`hold`.

    Parameters
    ----------
    places : sequence of Place
        The parameters with zeros.
    optimizers : sequence of torch.optim.Optimizer
        What changes them.
    record : PruneRecord, optional
        Of the model.
    """

    def __init__(
        self,
        places: Sequence[Place],
        optimizers: Sequence[torch.optim.Optimizer],
        record: PruneRecord | None = None,
    ) -> None:
        self._held = [_Held(place) for place in places]
        self._record = record
        self._handles: list[Any] = []
        for optimizer in optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before))
            self._handles.append(optimizer.register_step_post_hook(self._after))
        for held in self._held if optimizers else ():
            if held.parameter.requires_grad:
                # At once, so that clipping does not count what is thrown away.
                hook: Any = held.parameter.register_post_accumulate_grad_hook
                self._handles.append(hook(held.mask_gradient))

    def remove(self) -> None:
        """Let go: from now on an optimizer may make the zeros anything."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def apply(self, model: nn.Module | None = None) -> int:
        """Put the zeros back, after something else has written to the weights.

        Such as the merge of a low-rank adapter, which fills the whole weight.

        Parameters
        ----------
        model : nn.Module, optional
            A merged copy with the parameter names of the model that is held; by default that
            model itself, also where its layers were given new parameters.

        Returns
        -------
        int
            How many weights were not zero, and are again.

        Raises
        ------
        LayerError
            If a weight is not there, or of another shape; nothing has then changed.
        """
        found = [(held, held.found_in(model)) for held in self._held]
        changed = sum(held.zero(parameter) for held, parameter in found)
        if changed:
            self._forget()
        return changed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _before(self, *_: Any) -> None:
        # Gradients that something has written since, such as the average over processes.
        for held in self._held:
            held.mask_gradient()

    def _after(self, *_: Any) -> None:
        for held in self._held:
            held.mask_weight()
        self._forget()

    def _forget(self) -> None:
        """Have the record forget what was measured of the model before."""
        if self._record is not None:
            self._record.forget_evaluation()
            self._record.tasks.clear()
            self._record = None


class _Held:
    """A parameter, known by itself: wrappers rename it and move it, and it stays this object."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.parameter = place.tensor
        self._mask = place.tensor.detach() == 0

    @torch.no_grad()
    def mask_gradient(self, *_: Any) -> None:
        gradient = self.parameter.grad
        if gradient is not None and not gradient.is_sparse:
            gradient.masked_fill_(self._removed(gradient), 0)

    @torch.no_grad()
    def mask_weight(self) -> None:
        self.parameter.masked_fill_(self._removed(self.parameter), 0)

    @torch.no_grad()
    def zero(self, parameter: torch.Tensor) -> int:
        removed = self._removed(parameter)
        changed = int(torch.count_nonzero(parameter[removed]))
        parameter.masked_fill_(removed, 0)
        return changed

    def found_in(self, model: nn.Module | None) -> torch.Tensor:
        name = self.place.name
        try:
            found = self.place.tensor if model is None else model.get_parameter(name)
        except AttributeError:
            raise LayerError(
                f"the model has no parameter {name!r}, whose zeros are held; pass apply() a model "
                "with the names of the one that was given to hold(), or none if that one was merged"
            ) from None
        if found.shape != self._mask.shape:
            raise LayerError(
                f"{name!r} has shape {tuple(found.shape)}, and zeros are held for "
                f"{tuple(self._mask.shape)}; hold the model after it was changed"
            )
        return found

    def _removed(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._mask.device != tensor.device:
            self._mask = self._mask.to(tensor.device)
        return self._mask


def _unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer that steps: accelerate's is a shell that has no hooks of its own."""
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):
        return _unwrapped(inner)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise OptionError(
            f"a {type(optimizer).__name__} is no torch.optim.Optimizer, whose steps could be "
            "followed; call hold(model).apply() after each of its steps"
        )
    return optimizer


def _check_trained(places: Sequence[Place], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Raise unless the optimizers have the pruned weights that are trained, and some at all."""
    inside = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
    absent = [place for place in places if id(place.tensor) not in inside]
    lacking = [place.name for place in absent if place.tensor.requires_grad]
    if lacking:
        raise OptionError(
            f"no optimizer has {_listed(lacking)}, which are pruned and have requires_grad; make "
            "the optimizer after the model was wrapped or moved, pass all optimizers, or freeze "
            "what is not trained"
        )
    if len(absent) == len(places):
        raise OptionError(
            f"the pruned weights {_listed([place.name for place in places])} are frozen and no "
            "optimizer has them, so that there is nothing to hold; to train an adapter, call "
            "zeros = hold(model) before and zeros.apply() after merging it"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more
