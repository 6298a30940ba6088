"""The shelf: where the states of waiting samples are kept when memory is short."""

from __future__ import annotations

__all__ = ["Shelf"]

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ..run.files.writer import save_tensors
from .walk import Walk, memories, tensors

#: What is smaller stays in memory.
_SMALL = 1 << 16


class Shelf:
    """Puts the states that walks wait with on disk, and back into the very same tensors.

    A tensor's memory is given up and taken again, while the tensor itself stays where the
    suspended forward pass holds it. Only what the unit before returned is put away, or what the
    first unit is given first: other arguments may be the model's own, or another sample's too.

    Parameters
    ----------
    folder : Path or None
        Where to; None keeps everything in memory.
    model : nn.Module
        Its parameters and buffers are never put away.
    """

    def __init__(self, folder: Path | None, model: nn.Module) -> None:
        self._folder = folder
        self._model = model
        self._put: dict[int, list[tuple[torch.UntypedStorage, int]]] = {}

    @property
    def on_disk(self) -> bool:
        """Whether states are put away at all."""
        return self._folder is not None

    def put(self, walk: Walk) -> None:
        """Put away what a walk waits with."""
        if self._folder is None:
            return
        large = list(self._states(walk))
        if not large:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        bytes_of = {str(n): _bytes(storage) for n, storage in enumerate(large)}
        save_tensors(bytes_of, self._file(walk))
        del bytes_of
        self._put[id(walk)] = [(storage, storage.nbytes()) for storage in large]
        for storage in large:
            storage.resize_(0)

    def _states(self, walk: Walk) -> Iterator[torch.UntypedStorage]:
        assert walk.halt is not None
        given = [t for t in tensors((walk.halt.args, walk.halt.keywords)) if t.is_floating_point()]
        own = set(memories([*self._model.parameters(), *self._model.buffers()]))
        fresh = set(memories(given[:1])) if walk.made is None else walk.made
        storages = {s.data_ptr(): s for s in (t.untyped_storage() for t in given)}
        for memory in (fresh - own) & storages.keys():
            if storages[memory].nbytes() >= _SMALL and storages[memory].resizable():
                yield storages[memory]

    def restore(self, walk: Walk) -> None:
        """Bring back what a walk waits with."""
        if id(walk) not in self._put:
            return
        stored = load_file(self._file(walk))
        for number, (storage, size) in enumerate(self._put.pop(id(walk))):
            storage.resize_(size)
            _bytes(storage).copy_(stored[str(number)])

    def clear(self) -> None:
        """Forget what was put away, and delete the files."""
        self._put.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, walk: Walk) -> Path:
        assert self._folder is not None
        return self._folder / f"{id(walk):x}.safetensors"


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload,no-any-return]
