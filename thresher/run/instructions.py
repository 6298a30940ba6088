"""The instruction set that kernels use, which the environment variable THRESHER_ISA may name."""

from __future__ import annotations

__all__ = ["check_instruction_set"]

from ..core.errors import OptionError
from . import _run


def check_instruction_set() -> None:
    """Resolve the instruction set, so that a wrong name is no matter of the first product.

    Raises
    ------
    OptionError
        If ``THRESHER_ISA`` names none, or one that this processor lacks; it lists those there are.
    """
    try:
        _run.active_isa()
    except ValueError as error:
        raise OptionError(str(error)) from error
