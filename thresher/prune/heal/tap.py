"""A language model's pass with its last step, the vocabulary, left to be made in portions."""

from __future__ import annotations

__all__ = ["POSITIONS", "Tap", "observed_blocks"]

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ...core.errors import DataError, LayerError
from ...parts.coverage import cover
from ...parts.reasons import output_head
from ...stream.logits import shortened
from ...stream.precision import Precision
from ...stream.units import find_units
from ...stream.walk import tensors

#: Positions whose logits are in memory at a time; vocabularies are wide.
POSITIONS = 128
_BLOCKS = 4


class Tap:
    """What a causal language model has before its output head, and after some of its blocks.

    Logits of a whole window are made only where the model does something to what its head
    returns, such as capping it, which a first pass shows.

    Parameters
    ----------
    model : nn.Module
        With ``get_output_embeddings``; called as ``model(input_ids=...)``.
    precision : Precision
        Of its passes.

    Raises
    ------
    LayerError
        If it has no output head.
    """

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        head = output_head(model)
        if head is None:
            raise LayerError(
                f"{type(model).__name__} has no output head (get_output_embeddings), whose "
                "predictions could be compared; healing is for causal language models"
            )
        self.model, self._head, self._precision = model, head, precision
        self._split: bool | None = None

    @property
    def vocabulary(self) -> int:
        """How many tokens the model predicts."""
        weight = self._head.weight
        assert isinstance(weight, torch.Tensor)
        return weight.shape[0]

    def run(
        self, window: torch.Tensor, blocks: Sequence[str] = ()
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Send a window through the model.

        Parameters
        ----------
        window : Tensor of shape (positions,), int64
            Token ids.
        blocks : sequence of str
            Modules whose outputs are wanted.

        Returns
        -------
        final : Tensor of shape (positions, width)
            What :meth:`logits` takes, all of it or some positions.
        hidden : list of Tensor of shape (positions, width)
            Outputs of the blocks.
        """
        if self._split is None:
            self._split = self._leaves_logits_alone(window)
        hidden: list[torch.Tensor] = []
        with ExitStack() as stack:
            for name in blocks:
                stack.enter_context(_watching(self.model.get_submodule(name), hidden))
            if not self._split:
                return self._call(window).logits[0], hidden
            final = stack.enter_context(shortened(self._head))
            self._call(window)
        return final[0], hidden

    def logits(self, final: torch.Tensor) -> torch.Tensor:
        """Return the logits of some positions of what :meth:`run` returned."""
        if not self._split:
            return final
        with self._precision.rounding(final.device):
            found: torch.Tensor = self._head(final)
        return found

    def _call(self, window: torch.Tensor) -> Any:
        device = next(self.model.parameters()).device
        with self._precision.rounding(device):
            return self.model(input_ids=window[None].to(device), use_cache=False)

    @torch.no_grad()
    def _leaves_logits_alone(self, window: torch.Tensor) -> bool:
        with shortened(self._head) as final:
            found = self._call(window).logits
        if not final:
            raise LayerError(
                f"{type(self.model).__name__} does not call its output head, so that its "
                "predictions cannot be compared"
            )
        with self._precision.rounding(found.device):
            # Of the very shape that the model's own call had, so that rounding is the same.
            alone = self._head(final[0][None, -1:])
        return torch.equal(alone.to(found.dtype), found)


@torch.no_grad()
def observed_blocks(tap: Tap, window: torch.Tensor) -> list[str]:
    """Return the names of blocks whose outputs are compared, evenly over the depth.

    Parameters
    ----------
    tap : Tap
    window : Tensor of shape (positions,), int64
        Token ids. Blocks that they do not pass, such as those for images, are not compared.
    """
    layers = cover(tap.model).layers
    alone = {id(layer.module) for layer in layers}
    units = [unit for unit in find_units(tap.model, layers) if id(unit.module) not in alone]
    passed: set[str] = set()
    with ExitStack() as stack:
        for unit in units:
            note = partial(_note, passed, unit.name)
            stack.callback(unit.module.register_forward_hook(note).remove)
        tap.run(window)
    names = [unit.name for unit in units if unit.name in passed]
    chosen = {len(names) * (i + 1) // _BLOCKS - 1 for i in range(_BLOCKS)}
    return [names[i] for i in sorted(chosen) if i >= 0]


def _note(passed: set[str], name: str, *_: Any) -> None:
    passed.add(name)


@contextmanager
def _watching(module: nn.Module, found: list[torch.Tensor]) -> Iterator[None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        states = [t for t in tensors(output) if t.dim() == 3 and t.is_floating_point()]
        if not states:
            raise DataError(
                f"{type(module).__name__} returns no hidden states (batch, positions, width), so "
                "that they cannot be compared"
            )
        found.append(states[0][0])

    handle = module.register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()
