"""Forward passes for calibration: how a model is called, and in which state."""

from __future__ import annotations

__all__ = [
    "EnoughSeenError",
    "HeadReachedError",
    "as_written",
    "calibrating",
    "call",
    "ending_before_the_head",
    "first_output",
    "placed",
    "settled",
    "watched_call",
]

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..core.device import device_named
from ..core.errors import DataError
from ..parts.reasons import output_head


def call(model: nn.Module, sample: Any) -> Any:
    """Call a model on a sample: a tensor, a tuple of arguments or a mapping of keywords.

    Raises
    ------
    DataError
        If the sample is none of these.
    """
    if isinstance(sample, Mapping):
        return model(**sample)
    if isinstance(sample, tuple | list):
        return model(*sample)
    if isinstance(sample, torch.Tensor):
        return model(sample)
    raise DataError(
        f"a sample must be a tensor, a tuple of arguments or a dict of keywords, "
        f"not {type(sample).__name__}"
    )


def watched_call(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    sample: Any,
    note: Callable[[str, Any, Any], None],
) -> None:
    """Call a model on a sample as for calibration, and note what modules are given and give.

    Parameters
    ----------
    model : nn.Module
    modules : mapping of str to nn.Module
        Those to watch, by what they are called.
    sample : Any
        See :func:`call`.
    note : callable
        ``note(name, arguments, output)``, after every call of a module.
    """
    handles = [
        module.register_forward_hook(lambda _, args, output, name=name: note(name, args, output))
        for name, module in modules.items()
    ]
    try:
        with calibrating(model), torch.no_grad():
            call(model, sample)
    finally:
        for handle in handles:
            handle.remove()


def first_output(output: Any) -> Any:
    """Return the first of a module's outputs, which may be a tuple or a dataclass of several."""
    if hasattr(output, "to_tuple"):
        output = output.to_tuple()
    return output[0] if isinstance(output, tuple | list) else output


@contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """Put a model in the state to calibrate it in, and back as it was.

    Both :func:`settled` and :func:`as_written`.
    """
    with settled(model), as_written():
        yield


@contextmanager
def settled(model: nn.Module) -> Iterator[None]:
    """Have every module in evaluation mode, and no key-value cache kept, while it lasts."""
    with _evaluating(model), _without_cache(model):
        yield


@contextmanager
def as_written() -> Iterator[None]:
    """Run compiled and fused parts as they are written, and take no gradient.

    Hooks see nothing of a compiled part, nor of torch's fused encoder layers, which also hand each
    other nested tensors, without padding.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Module by module, since some may be frozen in evaluation mode while others train.
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    caching = [c for c in configs.values() if getattr(c, "use_cache", None) is True]
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for config in caching:
            config.use_cache = True


class EnoughSeenError(Exception):
    """Ends the rehearsal of a unit for a sample of which nothing more is to be seen."""


class HeadReachedError(Exception):
    """Ends a pass whose remainder holds no unit."""


@contextmanager
def ending_before_the_head(
    model: nn.Module, seen: Iterable[nn.Module], unless: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Spare passes the output head, whose result is as wide as the vocabulary.

    They end with :class:`HeadReachedError`, unless the head or a part of it is to be seen, or
    `unless` returns True when it is reached.
    """
    head = output_head(model)
    inside = {id(module) for module in seen}
    if head is None or any(id(part) in inside for part in head.modules()):
        yield
        return

    def stop(*_: Any) -> None:
        if not unless():
            raise HeadReachedError

    handle = head.register_forward_pre_hook(stop, prepend=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def placed(model: nn.Module, device: str | torch.device | None) -> Iterator[None]:
    """Have a model on a device while the context lasts, and where it was afterwards."""
    if device is None:
        yield
        return
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.device for tensor in tensors]
    model.to(device_named(device))
    try:
        yield
    finally:
        for tensor, where in zip(tensors, before, strict=True):
            tensor.data = tensor.data.to(where)
