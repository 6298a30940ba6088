"""What the dense path gives the layers of a unit, noted once for all that compare with it."""

from __future__ import annotations

__all__ = ["DenseNotes"]

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import DataError
from ..parts.layers import Layer
from .calls import input_of, version_of, watching_calls
from .current import running_index
from .units import Unit


@dataclass(frozen=True)
class _Place:
    """Where an input lies in the file, and what it was."""

    offset: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


class DenseNotes:
    """Inputs of a unit's layers on the dense path, in a file that is gone with them.

    The inputs of a block's layers take several times the memory of its hidden states.

    Parameters
    ----------
    folder : Path, optional
        Where the file is made, by default where the system has its temporary ones.

    Attributes
    ----------
    received : dict of int to Tensor of shape (batch, tokens)
        By the index of a sample: the attention that its tokens receive, where it was watched.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.received: dict[int, torch.Tensor] = {}
        self._where = str(folder or tempfile.gettempdir())
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - until it is closed
        self._places: defaultdict[tuple[str, int], list[_Place]] = defaultdict(list)
        self._last: tuple[torch.Tensor, int, _Place] | None = None

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    @contextmanager
    def noting(self, unit: Unit) -> Iterator[None]:
        """Note what the unit's layers are called with while the context lasts."""
        with watching_calls([layer for layer in unit.layers if layer.is_called], self._note):
            yield
        self._last = None

    def get(self, layer: Layer, index: int, call: int) -> torch.Tensor | None:
        """Return what a layer was given, or None where it was not called so often.

        Parameters
        ----------
        layer : Layer
            One of the unit.
        index : int
            Of the sample.
        call : int
            Which of the layer's calls in the pass of the sample, from 0 on.
        """
        places = self._places.get((layer.name, index), ())
        if call >= len(places):
            return None
        place = places[call]
        value = torch.empty(place.shape, dtype=place.dtype)
        held = _bytes(value)
        self._file.seek(place.offset)
        if self._file.readinto(held) != held.nbytes:
            raise DataError(
                f"the dense model's inputs of layer {layer.name!r} cannot be read back from "
                f"{self._where}; run again with another disk there"
            )
        return value.to(place.device)

    def _note(self, layer: Layer, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = input_of(layer, args, keywords)
        known, version = self._last, version_of(given)
        if known is not None and known[0] is given and known[1] == version:
            # Query, key and value are given the same.
            place = known[2]
        else:
            place = self._write(given.detach())
        self._last = given, version, place
        self._places[layer.name, running_index()].append(place)

    def _write(self, value: torch.Tensor) -> _Place:
        try:
            place = _Place(self._file.seek(0, 2), value.shape, value.dtype, value.device)
            self._file.write(_bytes(value.cpu().contiguous()))
            # A full disk is told of here, and not where something else is read.
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"the dense model's inputs could not be kept in {self._where}: {error}; make room "
                "there, or use fewer or shorter windows"
            ) from error
        return place


def _bytes(value: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU."""
    return value.flatten().view(torch.uint8).numpy().data
