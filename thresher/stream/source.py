"""Where a model's weights are: all in memory, or in a folder and loaded unit by unit."""

from __future__ import annotations

__all__ = ["Folder", "InMemory", "Source"]

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn

from ..core.machine import trim_memory
from ..parts.reasons import output_head
from ..run.skeleton import Skeleton
from .calls import Forward, forward_within
from .precision import Precision
from .units import Unit


class Source(Protocol):
    """A model whose units have their weights when they are asked for.

    Attributes
    ----------
    model : nn.Module
        The whole model.
    """

    model: nn.Module

    def opened(self, units: Sequence[Unit]) -> AbstractContextManager[None]:
        """Have the weights of all that is in none of `units` but the output head."""

    def loaded(self, unit: Unit) -> AbstractContextManager[None]:
        """Have the weights of one unit."""

    def as_found(self, unit: Unit) -> AbstractContextManager[None]:
        """Have the weights that one unit came with, whatever was written for it since."""

    def on_demand(self, units: Sequence[Unit]) -> AbstractContextManager[None]:
        """Have the weights of each unit, and of the output head, while it runs."""


class InMemory:
    """A model that has all its weights.

    Parameters
    ----------
    model : nn.Module
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def opened(self, units: Sequence[Unit]) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def loaded(self, unit: Unit) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def as_found(self, unit: Unit) -> AbstractContextManager[None]:
        """Do nothing: in memory no run is gone on with."""
        return nullcontext()

    def on_demand(self, units: Sequence[Unit]) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


class Folder:
    """A Hugging Face folder whose weights are loaded when they are needed.

    Parameters
    ----------
    skeleton : Skeleton
        The model without weights.
    precision : Precision
        Weights are held in that of forward passes while they are loaded, where it is longer
        than what they are stored in.
    device : torch.device, optional
        Where they are held meanwhile, and the model runs; by default the CPU.
    """

    def __init__(
        self, skeleton: Skeleton, precision: Precision, device: torch.device | None = None
    ) -> None:
        self.skeleton = skeleton
        self.model = skeleton.model
        self._precision = precision
        self._device = device or torch.device("cpu")
        _move_buffers(self.model, self._device)
        kinds = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
        #: What transformers keeps in float32, whatever the rest is in.
        self._apart = {word for kind in kinds for word in getattr(self.model, kind, None) or ()}

    @contextmanager
    def opened(self, units: Sequence[Unit]) -> Iterator[None]:
        """Load embeddings, norms and whatever else runs between the units."""
        head = output_head(self.model)
        inside = {id(m) for unit in units for m in unit.module.modules()}
        with ExitStack() as stack:
            for name, module in self.model.named_modules():
                own = any(True for _ in module.parameters(recurse=False))
                if own and module is not head and id(module) not in inside:
                    stack.enter_context(self._having(module, name))
            yield

    def loaded(self, unit: Unit) -> AbstractContextManager[None]:
        """Load one unit, and drop it afterwards."""
        return self._having(unit.module, unit.name)

    @contextmanager
    def as_found(self, unit: Unit) -> Iterator[None]:
        """Load one unit from the folder alone, and drop it afterwards."""
        with self.skeleton.without_overlays(), self.loaded(unit):
            yield

    @contextmanager
    def on_demand(self, units: Sequence[Unit]) -> Iterator[None]:
        """Load a unit when it is called, and drop it afterwards."""
        places = {unit.name: unit.module for unit in units}
        places |= self._head()
        with ExitStack() as stack:
            for name, module in places.items():
                wrap = functools.partial(self._loading_forward, module, name)
                stack.enter_context(forward_within(module, wrap))
            yield

    @contextmanager
    def head_loaded(self) -> Iterator[None]:
        """Load the output head, where there is one, and drop it afterwards."""
        with ExitStack() as stack:
            for name, module in self._head().items():
                stack.enter_context(self._having(module, name))
            yield

    def _head(self) -> dict[str, nn.Module]:
        head = output_head(self.model)
        return {name: m for name, m in self.model.named_modules() if head is not None and m is head}

    def _loading_forward(self, module: nn.Module, name: str, forward: Forward) -> Forward:
        def load(*args: Any, **keywords: Any) -> Any:
            with self._having(module, name):
                return forward(*args, **keywords)

        return load

    @contextmanager
    def _having(self, module: nn.Module, name: str) -> Iterator[None]:
        absent = [p for p in module.parameters() if p.is_meta]
        if not absent:
            yield
            return
        # What another unit, or this one already, has loaded is not this call's to drop.
        present = [
            (owner, leaf, parameter)
            for owner in module.modules()
            for leaf, parameter in owner._parameters.items()
            if parameter is not None and not parameter.is_meta
        ]
        with self.skeleton.loaded(module, name):
            for leaf, parameter in module.named_parameters():
                dtype = self._held(f"{name}.{leaf}", parameter.dtype)
                parameter.data = parameter.data.to(self._device, dtype)
            _move_buffers(module, self._device)
            yield
        for owner, leaf, parameter in present:
            owner._parameters[leaf] = parameter
        # Loaded and dropped unit by unit, weights otherwise add up to the model's size.
        trim_memory()

    def _held(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype to hold a parameter in: one for all, as transformers loads them.

        Those of a folder may differ, such as norms in float32 among weights in bfloat16.
        """
        if not dtype.is_floating_point or any(word in name for word in self._apart):
            return dtype
        return self._precision.passes if self._precision.widens else self._precision.stored


def _move_buffers(module: nn.Module, device: torch.device) -> None:
    for buffer in module.buffers():
        if not buffer.is_meta:
            buffer.data = buffer.data.to(device)
