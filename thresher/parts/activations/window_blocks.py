"""Blocks that attend within windows, and how they are had to compute some windows alone.

A block is not changed and none of its names is used: its children that have parameters are taken in
the order in which they run. The first one normalises every token; the second attends within
windows, and is given those that are kept; the third is given the tokens of these, and the last
gives them back. What is left out adds nothing to what the block was given. All of that is proved on
what the blocks are given, and blocks that do otherwise are refused.
"""

from __future__ import annotations

__all__ = ["blocks_of", "choose_windows", "map_of", "release_windows", "tokens_of"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...core.errors import LayerError
from .windows import Windows, window_norms, window_tokens

#: Normalisation, attention, normalisation and feed-forward layers.
_PARTS = 4
_SIZES = ("window_size", "shift_size")


def blocks_of(stage: nn.Module) -> list[nn.Module]:
    """Return the blocks of a stage that attend within windows, none of another module."""
    lists = [child for child in stage.children() if isinstance(child, nn.ModuleList)]
    blocks = [block for each in lists for block in each]
    known = all(isinstance(getattr(block, name, None), int) for block in blocks for name in _SIZES)
    return blocks if known else []


def map_of(args: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
    """Return the tokens that a stage is called with, and the height and width of their map.

    Raises
    ------
    LayerError
        If they are not among the arguments.
    """
    given = (*args, *keywords.values())
    x = next((each for each in given if isinstance(each, torch.Tensor) and each.dim() == 3), None)
    size = next((each for each in given if isinstance(each, tuple | list) and len(each) == 2), None)
    if x is None or size is None or size[0] * size[1] != x.shape[1]:
        raise LayerError(
            "a stage of windows is called without its tokens or the height and width of their map; "
            "take its selection away, or use a model of transformers such as SwinModel"
        )
    return x, (int(size[0]), int(size[1]))


def tokens_of(block: Any, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return which tokens are in the windows of a block, see :func:`window_tokens`.

    A map that is no larger than a window is not shifted, and its shorter side is the window.
    """
    window, shift = block.window_size, block.shift_size
    if min(size) <= window:
        window, shift = min(size), 0
    return window_tokens(size, window, shift, device)


def choose_windows(stage: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Have the blocks of a stage compute what its selection keeps; a hook before the call."""
    selection: Windows = stage.sparse_inputs
    if not bool(selection.shares.any()):
        return
    x, size = map_of(args, keywords)
    blocks = blocks_of(stage)
    _check_no_recomputation(blocks, selection)
    tokens = [tokens_of(block, size, x.device) for block in blocks]
    if size not in selection.proved and not stage.training:
        _prove(blocks, tokens, x[:1], size, selection.place)
        selection.proved.add(size)
    kept = selection(torch.stack([window_norms(x, each) for each in tokens]))
    for block, each, mask in zip(blocks, tokens, kept, strict=True):
        if not bool(mask.all()):
            check = size not in selection.proved
            partial = _Partial(block, each, mask, x.shape[1], selection.place, check)
            selection.running.append(partial)


def release_windows(stage: Any, args: tuple[Any, ...], output: Any) -> None:
    """Have the blocks compute everything again; a hook after the call, also of one that failed."""
    running = stage.sparse_inputs.running
    while running:
        running.pop().remove()


class _Partial:
    """Has a block compute some of its windows until it is removed.

    Parameters
    ----------
    block : nn.Module
    tokens : Tensor of shape (windows, places)
        See :func:`window_tokens`.
    kept : Tensor of bool, shape (images, windows)
    length : int
        Tokens of an image.
    place : str
        For messages.
    check : bool
        Whether to see that attention is given these windows.
    """

    def __init__(
        self,
        block: nn.Module,
        tokens: torch.Tensor,
        kept: torch.Tensor,
        length: int,
        place: str,
        check: bool,
    ) -> None:
        self.tokens, self.images, self.length, self.place = tokens, len(kept), length, place
        self.windows = kept.flatten().nonzero().flatten()
        self.within = self.windows % len(tokens)
        inside = tokens[self.within]
        first = (self.windows // len(tokens) * length)[:, None]
        self.rows = (inside + first)[inside >= 0]
        parts = [part for part in block.children() if any(True for _ in part.parameters())]
        self.parts, self.called, self.check = len(parts), 0, check
        self.normed: torch.Tensor | None = None
        if self.parts < _PARTS:
            raise self._odd(f"a block of {self.parts} parts, and not {_PARTS} at least")
        self.handles = [
            *(part.register_forward_pre_hook(self._before, with_kwargs=True) for part in parts),
            *(part.register_forward_hook(self._after) for part in parts),
        ]

    def remove(self) -> None:
        """Have the block compute all windows again."""
        for handle in self.handles:
            handle.remove()

    def _before(
        self, part: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self.called += 1
        if self.called == 2:
            if self.check:
                self._check_windows(args)
            return (
                (args[0][self.windows], *map(self._of_windows, args[1:])),
                {name: self._of_windows(value) for name, value in keywords.items()},
            )
        if self.called == 3:
            if not args or args[0].shape[:2] != (self.images, self.length):
                raise self._odd("after attention, something else than the tokens of the map")
            return (args[0].flatten(0, 1)[self.rows][None], *args[1:]), keywords
        return None

    def _after(self, part: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self.called == 1:
            self.normed = output if self.check else None
        elif self.called == 2:
            first = output[0] if isinstance(output, tuple) else output
            whole = _spread(first, self.windows, self.images * len(self.tokens))
            return (whole, *output[1:]) if isinstance(output, tuple) else whole
        elif self.called == self.parts:
            whole = _spread(output[0], self.rows, self.images * self.length)
            return whole.reshape(self.images, self.length, -1)
        elif self.called > self.parts:
            raise self._odd("a part twice")
        return None

    def _of_windows(self, value: Any) -> Any:
        """Return of a mask, which has an entry per window of an image, those that are kept."""
        mask = isinstance(value, torch.Tensor) and value.dim() == 3
        return value[self.within] if mask and len(value) == len(self.tokens) else value

    def _check_windows(self, args: tuple[Any, ...]) -> None:
        """Raise unless attention is given the windows that the map was thought to be cut into."""
        expected, self.normed = self.normed, None
        if isinstance(expected, torch.Tensor) and args and isinstance(args[0], torch.Tensor):
            filled = nn.functional.pad(expected, (0, 0, 0, 1))
            if torch.equal(filled[:, self.tokens].flatten(0, 1), args[0]):
                return
        raise self._odd("its attention windows other than those that the map is cut into")

    def _odd(self, what: str) -> LayerError:
        return LayerError(
            f"{self.place!r} gives {what}, so that no windows can be left out; take the selection "
            "away, or use a model whose blocks are those of a Swin, such as SwinModel of "
            "transformers, with images larger than its windows"
        )


def _spread(rows: torch.Tensor, places: torch.Tensor, length: int) -> torch.Tensor:
    """Return zeros with rows at some places."""
    return rows.new_zeros(length, *rows.shape[1:]).index_copy(0, places, rows)


def _check_no_recomputation(blocks: Sequence[nn.Module], selection: Windows) -> None:
    """Raise where a block would be run again in the backward pass, after the stage's call."""
    if selection.training and any(getattr(b, "gradient_checkpointing", False) for b in blocks):
        raise LayerError(
            f"{selection.place!r} leaves windows out, and gradient checkpointing would compute all "
            "of them when it runs blocks again; call model.gradient_checkpointing_disable()"
        )


@torch.no_grad()
def _prove(
    blocks: Sequence[Any],
    tokens: Sequence[torch.Tensor],
    x: torch.Tensor,
    size: tuple[int, int],
    place: str,
) -> None:
    """Raise unless blocks give of some windows what they give of them among all.

    And of the others what they were given, bit for bit.
    """
    for index, (block, each) in enumerate(zip(blocks, tokens, strict=True)):
        dense = _first(block(x, size))
        half = torch.arange(len(each), device=x.device) % 2 == 0
        partial = _Partial(block, each, half[None], x.shape[1], place, check=True)
        try:
            sparse = _first(block(x, size))
        finally:
            partial.remove()
        kept = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
        kept[partial.rows] = True
        allowed = torch.finfo(x.dtype).eps ** 0.5 * (dense - x).abs().max()
        wrong = (sparse - dense)[:, kept].abs().max() > allowed
        if bool(wrong) or not torch.equal(sparse[:, ~kept], x[:, ~kept]):
            raise partial._odd(f"in block {index} another result where windows are left out")
        x = dense


def _first(output: Any) -> torch.Tensor:
    first: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return first
