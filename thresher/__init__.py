"""Sparsity for machine learning: choose what to keep, keep the model good, make zeros pay.

Names are imported when they are first used, so that ``import thresher`` is quick and loads
no torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

from .core.extras import naming_the_extra
from .core.versions import watch

if TYPE_CHECKING:
    from .prune.memory import prune as prune

#: The public face, and the one list that is written by hand: what users may rely on, and where
#: each name lives, a module or a name in a module.
_NAMES = {
    "Engine": "thresher.run.engine.engine:Engine",
    "ThresherError": "thresher.core.errors:ThresherError",
    "HoldZeros": "thresher.prune.heal.trainer:HoldZeros",
    "Recipe": "thresher.prune.recipe:Recipe",
    "budgets": "thresher.parts.budgets",
    "catalogue": "thresher.core.card:catalogue",
    "compare": "thresher.run.evaluate:compare",
    "compare_methods": "thresher.comparing:compare_methods",
    "export": "thresher.run.files.export:export",
    "heal": "thresher.prune.heal.memory:heal",
    "hold": "thresher.prune.heal.hold:hold",
    "perplexity": "thresher.run.evaluate:perplexity",
    "pack": "thresher.run.pack:pack",
    "patterns": "thresher.parts.patterns",
    "prox": "thresher.core.prox",
    "prune": "thresher.prune.memory:prune",
    "prune_gradually": "thresher.prune.gradual:prune_gradually",
    "rebuild": "thresher.run.files.shrunk:rebuild",
    "save": "thresher.run.files.export:save",
    "schedules": "thresher.parts.schedules",
    "scores": "thresher.parts.scores",
    "tokens": "thresher.parts.tokens",
    "updates": "thresher.parts.updates",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("thresher")
    if name not in _NAMES:
        raise AttributeError(f"module 'thresher' has no attribute {name!r}")
    path, _, attribute = _NAMES[name].partition(":")
    with naming_the_extra():
        module = importlib.import_module(path)
    return getattr(module, attribute) if attribute else module


class _Package(ModuleType):
    """Keeps the verb `prune` where an import of the room of that name would take its place."""

    @property
    def prune(self) -> Any:
        return vars(self).get("prune") or __getattr__("prune")

    @prune.setter
    def prune(self, value: Any) -> None:
        # Python sets the room when it is imported; whoever sets something else means it.
        if not isinstance(value, ModuleType):
            vars(self)["prune"] = value


def __dir__() -> list[str]:
    return __all__


@wrapt.when_imported("transformers.modeling_utils")
def _register_loader(module: ModuleType) -> None:
    """Teach ``from_pretrained`` the sparse format as soon as transformers can learn it."""
    importlib.import_module("thresher.run.files.loader")


sys.modules[__name__].__class__ = _Package
watch()
