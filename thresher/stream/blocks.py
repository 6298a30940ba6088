"""Blocks: the chain of modules through which a model passes its hidden states."""

from __future__ import annotations

__all__ = ["BlockChain", "find_blocks", "first_output"]

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError
from ..parts.layers import Layer, is_prunable


class _StopForwardError(Exception):
    """Ends a forward pass whose remainder is not needed."""


@dataclass
class BlockChain:
    """Modules of which each takes the previous one's output as its first argument.

    Parameters
    ----------
    model : nn.Module
        The whole model.
    names : list of str
        Paths of the blocks in the order in which they run. A last name ``""`` stands for the
        whole model, whose inputs are the samples themselves: it is the only one of a model
        without a chain, and follows the blocks when layers outside them are pruned too.

    Attributes
    ----------
    arguments : list of tuple
        Remaining positional and keyword arguments of each block (masks, positions), which
        are taken to be the same for every sample; filled by :meth:`enter`.
    """

    model: nn.Module
    names: list[str]
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def module(self, index: int) -> nn.Module:
        """Return the block at `index`."""
        return self.model.get_submodule(self.names[index])

    def run(self, index: int, hidden: Any) -> Any:
        """Run one block on one sample's hidden state and return the next hidden state."""
        if not self.names[index]:
            return call(self.model, hidden)
        rest, keywords = self.arguments[index]
        return first_output(self.module(index)(hidden, *rest, **keywords))

    def enter(self, samples: Sequence[Any]) -> list[Any]:
        """Return every sample's input to the first block, and record the other arguments.

        Parameters
        ----------
        samples : sequence
            Model inputs: tensors, or dicts of keyword arguments.

        Returns
        -------
        list
            Hidden states; the samples themselves when the model is one block.

        Raises
        ------
        DataError
            If a sample gives the first block another mask or other positions than the first.
        """
        if self.names == [""]:
            return list(samples)
        self._record_arguments(samples[0])
        first = self.module(0)
        caught: list[Any] = []

        def stop(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if not _same(_arguments(args, keywords), self.arguments[0]):
                raise DataError(
                    f"sample {len(caught)} gives the blocks of {type(self.model).__name__} other "
                    "arguments (a mask or positions) than the first sample; calibrate with samples "
                    "of one length and without padding"
                )
            caught.append(args[0] if args else keywords["hidden_states"])
            raise _StopForwardError

        handle = first.register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
        try:
            for sample in samples:
                with contextlib.suppress(_StopForwardError):
                    call(self.model, sample)
        finally:
            handle.remove()
        return caught

    def _record_arguments(self, sample: Any) -> None:
        """Send a sample around the blocks to see what else each is given.

        The blocks themselves are skipped where a skip keeps the shape, so that this works
        before their weights are loaded.
        """
        blocks = [index for index, name in enumerate(self.names) if name]
        self.arguments = [((), {}) for _ in blocks]
        skip = all(p.is_meta for p in self.module(0).parameters())
        restore: list[tuple[nn.Module, Callable[..., Any]]] = []
        handles = []
        try:
            for index in blocks:
                block = self.module(index)

                def note(
                    module: nn.Module,
                    args: tuple[Any, ...],
                    keywords: dict[str, Any],
                    i: int = index,
                ) -> None:
                    self.arguments[i] = _arguments(args, keywords)

                handles.append(block.register_forward_pre_hook(note, with_kwargs=True))
                if skip:
                    restore.append((block, block.forward))
                    block.forward = _pass_through
            with contextlib.suppress(_StopForwardError):
                call(self.model, sample)
        finally:
            for handle in handles:
                handle.remove()
            for block, _ in restore:
                del block.__dict__["forward"]


def _pass_through(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden_states


def _arguments(
    args: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a block is given besides the hidden state."""
    rest = {k: v for k, v in keywords.items() if k != "hidden_states"}
    return tuple(args[1:]), _without_cache(rest)


def _same(left: Any, right: Any) -> bool:
    """Compare arguments by the tensors they hold; other objects count as the same."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.shape == right.shape and (left is right or bool((left == right).all()))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, tuple | list) and isinstance(right, tuple | list):
        return len(left) == len(right) and all(map(_same, left, right))
    return (left is None) == (right is None)


def _without_cache(keywords: dict[str, Any]) -> dict[str, Any]:
    # A key-value cache would carry one sample's tokens into the next.
    emptied = {"past_key_values": None, "past_key_value": None, "use_cache": False}
    return {k: emptied.get(k, v) for k, v in keywords.items()}


def call(model: nn.Module, sample: Any) -> Any:
    """Call a model on a sample: a tensor, a tuple of arguments or a mapping of keywords."""
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


def first_output(output: Any) -> Any:
    """Return the hidden state of a block's output, which may be a tuple that starts with it."""
    return output[0] if isinstance(output, tuple | list) else output


def find_blocks(model: nn.Module, sample: Any | None = None) -> BlockChain:
    """Find the chain of blocks that holds most prunable weights.

    Parameters
    ----------
    model : nn.Module
        Any model; transformers' decoders and encoders, ``nn.Sequential`` models and lists of
        residual blocks have chains.
    sample : optional
        A model input. With it the chain is verified: every block must be fed the previous
        one's output. Without it the chain is taken on trust, which is right for
        transformers' decoder layers.

    Returns
    -------
    BlockChain
        The whole model as one block when no chain is found.
    """
    candidates = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1:
            weights = sum(Layer("", m).weight.numel() for m in module.modules() if is_prunable(m))
            candidates.append((weights, name, module))
    # The largest first; of equals the outermost, which named_modules yields first.
    candidates.sort(key=lambda c: -c[0])
    for weights, name, module in candidates:
        names = [f"{name}.{child}".strip(".") for child, _ in module.named_children()]
        if weights and (sample is None or _is_chain(model, names, sample)):
            return BlockChain(model, names)
    return BlockChain(model, [""])


@torch.no_grad()
def _is_chain(model: nn.Module, names: Sequence[str], sample: Any) -> bool:
    inputs: list[Any] = []
    outputs: list[Any] = []

    def before(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        inputs.append(args[0] if args else keywords.get("hidden_states"))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(first_output(output))

    handles = []
    for name in names:
        block = model.get_submodule(name)
        handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(block.register_forward_hook(after))
    try:
        call(model, sample)
    finally:
        for handle in handles:
            handle.remove()
    if len(inputs) != len(names) or len(outputs) != len(names):
        return False
    return all(
        isinstance(given, torch.Tensor)
        and isinstance(made, torch.Tensor)
        and given.data_ptr() == made.data_ptr()
        and given.shape == made.shape
        for given, made in zip(inputs[1:], outputs[:-1], strict=True)
    )
