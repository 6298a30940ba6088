"""Running and storing sparse models.

A *layout* (``layouts/``) is how one matrix is stored and multiplied. *Packed* layers (``packed/``)
are modules that hold their weight in one: ``PackedLinear`` and ``PackedConv2d`` in any layout, for
inference; ``SparseLinear`` and ``SparseConv2d`` as the values on a support, for training. To *pack*
(``pack.py``) is to give a model such layers: ``measure/`` finds its weights, makes *candidates* of
those that could be packed, times them and makes the *choices*; it also compares whole models.
``files/`` writes and reads checkpoints, and ``cuda/`` has the kernels of CUDA devices.
"""

__all__ = ["Layout", "PackedLinear", "choose_layouts", "pack"]

from .layouts.base import Layout
from .pack import choose_layouts, pack
from .packed.linear import PackedLinear
