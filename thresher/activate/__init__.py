"""Activation sparsity: ``thresher.activate(model, "teal", sparsity=0.5)``.

The room has the name of its main verb: ``thresher.activate`` is
:func:`thresher.activate.memory.activate`, through which the modules of the room are reached all the
same.
"""

from .memory import activate, record_of
from .recipe import ActivationRecipe
from .record import ActivationRecord, SiteRecord

__all__ = ["ActivationRecipe", "ActivationRecord", "SiteRecord", "activate", "record_of"]

# `thresher.activate.recipe` is then the module, though `thresher.activate` is the function.
activate.__dict__ = globals()
