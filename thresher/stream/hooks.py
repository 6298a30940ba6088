"""Hooks: which of them were on a model's modules at some moment, and running without them."""

from __future__ import annotations

__all__ = ["Hooks", "Registered"]

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

_KINDS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
)


class Hooks:
    """The hooks that are on modules when this is made.

    Parameters
    ----------
    modules : iterable of nn.Module
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._known = [(hooks, frozenset(hooks)) for module in modules for hooks in _tables(module)]

    def changed(self) -> bool:
        """Return whether there are others now."""
        return any(hooks.keys() != known for hooks, known in self._known)

    def remove_others(self) -> None:
        """Remove those that were not there."""
        for hooks, known in self._known:
            for key in hooks.keys() - known:
                del hooks[key]

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Run without those that were there, while the context lasts; later ones stay."""
        held: list[tuple[dict[int, Any], dict[int, Any]]] = []
        try:
            for hooks, known in self._known:
                if known and hooks:
                    held.append((hooks, dict(hooks)))
                    for key in known & hooks.keys():
                        del hooks[key]
            yield
        finally:
            for hooks, before in held:
                later = {key: hook for key, hook in hooks.items() if key not in before}
                # In place, since whoever added a hook removes it from this very table.
                hooks.clear()
                hooks.update(before | later)


class Registered:
    """The hooks that are registered from the moment on in which this is made.

    torch numbers hooks in the order in which they come, so that a call in which none was
    registered costs nothing to know.
    """

    def __init__(self) -> None:
        self._first = RemovableHandle.next_id

    def remain(self, model: nn.Module) -> bool:
        """Return whether some of them are on a model's modules."""
        if RemovableHandle.next_id == self._first:
            return False
        return any(key >= self._first for hooks in _every_table(model) for key in hooks)

    def remove(self, model: nn.Module) -> None:
        """Remove those that are on a model's modules."""
        for hooks in _every_table(model):
            for key in [key for key in hooks if key >= self._first]:
                del hooks[key]


def _every_table(model: nn.Module) -> Iterator[dict[int, Any]]:
    for module in model.modules():
        yield from _tables(module)


def _tables(module: nn.Module) -> Iterator[dict[int, Any]]:
    for kind in _KINDS:
        hooks = module.__dict__.get(kind)
        if isinstance(hooks, dict):
            yield hooks
