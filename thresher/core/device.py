"""Where work is done: the names of devices that users may give."""

from __future__ import annotations

__all__ = ["device_named", "free_memory"]

from typing import Any

from .errors import OptionError
from .machine import available_memory


def device_named(name: Any) -> Any:
    """Return the device of a name.

    Parameters
    ----------
    name : str or torch.device
        ``"auto"`` for the first CUDA device, or the CPU where there is none; ``"cpu"``, ``"cuda"``
        or ``"cuda:1"``.

    Returns
    -------
    torch.device

    Raises
    ------
    OptionError
        If there is no such device here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"device={name!r} is no device; use auto, cpu, cuda or cuda:N") from error
    known = {"cpu": 1, "cuda": torch.cuda.device_count()}
    if device.type not in known:
        raise OptionError(
            f"device={str(name)!r} is of a kind that nothing here was tried on; use auto, cpu, "
            "cuda or cuda:N"
        )
    if (device.index or 0) >= known[device.type]:
        raise OptionError(
            f"device={str(name)!r} is not here: this PyTorch sees {torch.cuda.device_count()} CUDA "
            "devices; use cpu or auto"
        )
    return device


def free_memory(device: Any) -> int:
    """Return the bytes that may still be taken on a device."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
