"""Running and storing sparse models: layouts, packing by measurement, checkpoints."""

__all__ = ["Layout", "PackedLinear", "choose_layouts", "known_layouts", "named_layout", "pack"]

from .layouts.base import Layout
from .layouts.registry import known_layouts, named_layout
from .pack import choose_layouts, pack
from .packed.linear import PackedLinear
