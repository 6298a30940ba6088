"""Hidden states between blocks: one set at a time, in memory or on disk."""

from __future__ import annotations

__all__ = ["HiddenStates"]

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..run.files.writer import save_tensors


class HiddenStates:
    """The input of the next block, for every calibration sample.

    Parameters
    ----------
    states : sequence of Tensor, or None
        One per sample; None reads those that an earlier run left in `folder`.
    folder : Path, optional
        Where to keep a copy of every generation, so that a killed run can go on.
    generation : int, default 0
        Index of the block whose input these are.
    spill : bool, default False
        Keep them in `folder` alone, not in memory.
    """

    def __init__(
        self,
        states: Sequence[torch.Tensor] | None,
        folder: Path | None = None,
        *,
        generation: int = 0,
        spill: bool = False,
    ) -> None:
        self._folder = folder
        self._generation = generation
        self._spill = spill
        if states is not None and folder is not None:
            for index, state in enumerate(states):
                self._write(generation, index, state)
        self._count = len(states) if states is not None else self._stored()
        self._states = None if spill else list(states) if states is not None else list(self._read())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._states) if self._states is not None else self._read()

    def advance(self, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace every state by what `run` makes of it, and name the next generation.

        The previous generation stays on disk until :meth:`drop_before` is called, so that a
        run killed in between finds a complete one.
        """
        following = self._generation + 1
        for index, state in enumerate(self):
            after = run(state)
            if self._states is not None:
                self._states[index] = after
            if self._folder is not None:
                self._write(following, index, after)
        self._generation = following

    def drop_before(self) -> None:
        """Delete the files of earlier generations."""
        if self._folder is not None:
            for old in self._folder.glob("hidden-*"):
                if old != self._directory(self._generation):
                    shutil.rmtree(old)

    def _directory(self, generation: int) -> Path:
        assert self._folder is not None
        return self._folder / f"hidden-{generation:05d}"

    def _stored(self) -> int:
        return len(list(self._directory(self._generation).glob("*.safetensors")))

    def _read(self) -> Iterator[torch.Tensor]:
        for index in range(self._count):
            yield load_file(self._directory(self._generation) / f"{index:06d}.safetensors")["x"]

    def _write(self, generation: int, index: int, state: torch.Tensor) -> None:
        directory = self._directory(generation)
        directory.mkdir(parents=True, exist_ok=True)
        save_tensors({"x": state}, directory / f"{index:06d}.safetensors")
