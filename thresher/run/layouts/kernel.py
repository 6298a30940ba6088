"""Layouts whose products run in the compiled kernels."""

from __future__ import annotations

__all__ = ["KernelLayout", "buffer", "readable_bias", "refuse_outside", "value_dtypes"]

import abc
import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from thresher.core.errors import LayerError

from .base import Layout, multiply
from .buffers import outlines

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


def readable_bias(bias: Tensor | None, rows: int) -> Tensor | None:
    """Return a bias as kernels read its memory: float32 numbers one after another.

    Raises
    ------
    LayerError
        If there is not one for each row.
    """
    if bias is None:
        return None
    if bias.numel() != rows:
        raise LayerError(f"a bias of shape {tuple(bias.shape)} does not fit {rows} outputs")
    if bias.dtype == torch.float32 and bias.is_contiguous():
        return bias
    return bias.detach().float().contiguous()


def refuse_outside(entries: Tensor, name: str) -> None:
    """Raise LayerError unless what a buffer stores outside the matrix is zero.

    Blocks and groups at the edges reach over it. A dense matrix does not have these entries, and a
    kernel may multiply them with zeros, which is not zero if they are infinite.
    """
    if bool((entries != 0).any()):
        raise LayerError(f"tensor {name!r} of a packed layer holds weights outside the matrix")


class KernelLayout(Layout):
    """A layout that keeps its buffers and a kernel object bound to them.

    A subclass defines :meth:`bind`, which hands the buffers to the compiled class, and
    ``expected``, their shapes. These are checked first; the compiled class checks every length
    and index as it is built, so that no product ever reads outside them.
    Buffers on another device than the CPU are checked by binding a copy on the CPU; products
    there are dense unless :meth:`multiply_on_cuda` says otherwise.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], shape: tuple[int, int], settings: Mapping[str, int]
    ) -> None:
        super().__init__(shape, torch.float32)
        try:
            self.check(outlines(tensors), shape, settings)
        except LayerError as error:
            raise LayerError(f"{self.name} layer of {shape[0]} x {shape[1]}: {error}") from error
        self._settings = dict(settings)
        self._tensors = dict(tensors)
        self._device = _one_device(self._tensors)
        if self._device.type != "cpu":
            self._check_on_cpu()
            return
        try:
            self._matrix = self.bind()
        except (ValueError, TypeError, MemoryError) as error:
            if isinstance(error, LayerError):
                raise
            raise LayerError(f"{self.name} layer of {shape[0]} x {shape[1]}: {error}") from error

    def _check_on_cpu(self) -> None:
        copies = {name: tensor.detach().cpu() for name, tensor in self._tensors.items()}
        self.dtype = self.from_tensors(copies, self.shape, self._settings).dtype
        self._tensors = {n: tensor.detach().contiguous() for n, tensor in self._tensors.items()}

    @abc.abstractmethod
    def bind(self) -> Any:
        """Check ``self._tensors``, set ``self.dtype`` and return the kernel object."""

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], settings: Mapping[str, int]
    ) -> Self:
        """Bind stored buffers; see :meth:`thresher.run.layouts.base.Layout.from_tensors`."""
        return cls(tensors, shape, settings)

    def tensors(self) -> dict[str, Tensor]:
        """Return the stored buffers by name."""
        return dict(self._tensors)

    @property
    def device(self) -> torch.device:
        """Where the buffers are, and where inputs must be."""
        return self._device

    @property
    def nbytes(self) -> int:
        """Bytes of all stored buffers."""
        return sum(t.numel() * t.element_size() for t in self._tensors.values())

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
        if self._device.type == "cuda":
            flat = x.reshape(math.prod(leading), self.shape[1])
            return self.multiply_on_cuda(flat, bias).reshape(*leading, self.shape[0])
        if self._device.type != "cpu":
            return super().multiply(x, bias)
        bias = readable_bias(bias, self.shape[0])
        try:
            x_address = x.data_ptr()
        except RuntimeError:
            # A tensor that stands for others, in a transform of torch.func, has no memory itself.
            return multiply(x, bias, self.handle, self.shape[0])
        out = torch.empty(*leading, self.shape[0], dtype=self.dtype)
        bias_address = 0 if bias is None else bias.data_ptr()
        self._matrix.multiply(
            x_address, math.prod(leading), out.data_ptr(), bias_address, torch.get_num_threads()
        )
        return out

    def multiply_on_cuda(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias`` on a CUDA device, for an `x` of shape (batch, columns).

        The default converts to dense; layouts with kernels for such devices override it.
        """
        return super().multiply(x, bias)


def _one_device(tensors: Mapping[str, Tensor]) -> torch.device:
    """Return where all buffers are, LayerError when they are apart."""
    devices = {tensor.device for tensor in tensors.values()}
    if len(devices) > 1:
        places = ", ".join(f"{name!r} on {tensor.device}" for name, tensor in tensors.items())
        raise LayerError(f"tensors of a packed layer are apart: {places}; move them together")
    return devices.pop() if devices else torch.device("cpu")
