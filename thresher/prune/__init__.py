"""Pruning after training: ``thresher.prune(model, "sparsegpt", density=0.5)``.

The room has the name of its main verb: ``thresher.prune`` is :func:`thresher.prune.memory.prune`,
through which the modules of the room are reached all the same.
"""

from .memory import prune
from .recipe import Recipe
from .record import LayerRecord, PruneRecord

__all__ = ["LayerRecord", "PruneRecord", "Recipe", "prune"]

# `thresher.prune.recipe` is then the module, though `thresher.prune` is the function.
prune.__dict__ = globals()
