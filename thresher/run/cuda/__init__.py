"""Products on CUDA devices: Triton kernels that multiply with the buffers of a layout.

A module of kernels has one function for the layout, ``multiply``, and is imported when the first
CUDA tensor is multiplied: Triton is not needed before, and takes seconds to import.
"""

from __future__ import annotations

__all__ = ["kernels", "refusal"]

import importlib
import importlib.util
from types import ModuleType

import torch

from thresher.core.errors import LayerError


def refusal(device: torch.device) -> str | None:
    """Return why a layout with a Triton kernel should not be tried on `device`, or None.

    Parameters
    ----------
    device : torch.device
        Where the layer is.
    """
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"no kernel for {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "its CUDA kernel needs Triton (pip install triton)"
    return None


def kernels(layout: str) -> ModuleType:
    """Return the module of kernels for a layout.

    Parameters
    ----------
    layout : str
        ``"bitmask"`` or ``"blocks"``.

    Raises
    ------
    LayerError
        If Triton is not installed.
    """
    try:
        return importlib.import_module(f"{__name__}._{layout}")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise LayerError(
            f"layout {layout!r} multiplies on CUDA devices with Triton, which is not installed: "
            "pip install triton, or move the layer to the CPU"
        ) from error
