"""Floating-point dtypes by name."""

from __future__ import annotations

__all__ = ["dtype_named"]

from typing import Any

from .errors import OptionError


def dtype_named(value: Any) -> Any:
    """Return the floating-point dtype that is named, or None for ``"auto"``.

    Parameters
    ----------
    value : torch.dtype, str or None
        ``"auto"`` and None leave it to what it is for.

    Returns
    -------
    torch.dtype or None

    Raises
    ------
    OptionError
        If it is no floating-point dtype.
    """
    import torch

    found = getattr(torch, value, None) if isinstance(value, str) else value
    if value in (None, "auto"):
        return None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise OptionError(
            f"{value!r} is no floating-point dtype; pass 'auto', 'float32', 'bfloat16', 'float16' "
            "or a torch.dtype"
        )
    return found
