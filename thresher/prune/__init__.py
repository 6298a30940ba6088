"""Pruning after training: ``thresher.prune(model, "sparsegpt", density=0.5)``.

The room is also its main verb: calling the module calls :func:`thresher.prune.memory.prune`.
"""

import sys
from types import ModuleType
from typing import Any

from .memory import prune
from .recipe import Recipe
from .record import LayerRecord, PruneRecord

__all__ = ["LayerRecord", "PruneRecord", "Recipe", "prune"]


class _CallableRoom(ModuleType):
    def __call__(self, *args: Any, **keywords: Any) -> PruneRecord:
        return prune(*args, **keywords)


sys.modules[__name__].__class__ = _CallableRoom
