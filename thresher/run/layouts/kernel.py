"""Layouts whose products run in the compiled kernels."""

from __future__ import annotations

__all__ = ["KernelLayout", "buffer", "value_dtypes"]

import abc
import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from thresher.core.errors import LayerError

from ..layout import Layout

value_dtypes = (torch.bfloat16, torch.float32)


def buffer(tensors: Mapping[str, Tensor], name: str, *dtypes: torch.dtype) -> Tensor:
    """Return the buffer `name` of a packed matrix, contiguous and of an expected type.

    Raises
    ------
    LayerError
        If it is missing or of another type.
    """
    if name not in tensors:
        raise LayerError(f"tensor {name!r} of a packed layer is missing")
    found = tensors[name]
    if found.dtype not in dtypes:
        expected = " or ".join(str(d) for d in dtypes)
        raise LayerError(f"tensor {name!r} of a packed layer is {found.dtype}, expected {expected}")
    return found.detach().contiguous()


class KernelLayout(Layout):
    """A layout that keeps its buffers and a kernel object bound to them.

    A subclass defines :meth:`bind`, which hands the buffers to the compiled class. That class
    checks every length and index as it is built, so that no product ever reads outside them.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], shape: tuple[int, int], settings: Mapping[str, int]
    ) -> None:
        super().__init__(shape, torch.float32)
        self._settings = dict(settings)
        self._tensors = dict(tensors)
        try:
            self._matrix = self.bind()
        except (ValueError, TypeError) as error:
            if isinstance(error, LayerError):
                raise
            raise LayerError(f"{self.name} layer of {shape[0]} x {shape[1]}: {error}") from error

    @abc.abstractmethod
    def bind(self) -> Any:
        """Check ``self._tensors``, set ``self.dtype`` and return the kernel object."""

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], settings: Mapping[str, int]
    ) -> Self:
        """Bind stored buffers; see :meth:`thresher.run.layout.Layout.from_tensors`."""
        return cls(tensors, shape, settings)

    def tensors(self) -> dict[str, Tensor]:
        """Return the stored buffers by name."""
        return dict(self._tensors)

    @property
    def settings(self) -> dict[str, int]:
        """The numbers besides shape and buffers that define the layout."""
        return dict(self._settings)

    def take(self, name: str, *dtypes: torch.dtype) -> Tensor:
        """Return a checked buffer and keep that contiguous version of it."""
        self._tensors[name] = buffer(self._tensors, name, *dtypes)
        return self._tensors[name]

    def setting(self, key: str) -> int:
        """Return a setting, or raise LayerError when it is missing."""
        if key not in self._settings:
            raise LayerError(f"setting {key!r} of a packed layer is missing")
        return int(self._settings[key])

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias`` from the compiled kernel."""
        leading = x.shape[:-1]
        out = torch.empty(*leading, self.shape[0], dtype=self.dtype)
        bias_address = 0 if bias is None else bias.data_ptr()
        self._matrix.multiply(
            x.data_ptr(), math.prod(leading), out.data_ptr(), bias_address, torch.get_num_threads()
        )
        return out
