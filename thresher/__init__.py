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
    from .activate.memory import activate as activate
    from .prune.memory import prune as prune

#: The public face, and the one list that is written by hand: what users may rely on, and where
#: each name lives, a module or a name in a module.
_NAMES = {
    "Engine": "thresher.run.engine.engine:Engine",
    "ActivationRecipe": "thresher.activate.recipe:ActivationRecipe",
    "ThresherError": "thresher.core.errors:ThresherError",
    "HoldZeros": "thresher.prune.heal.trainer:HoldZeros",
    "Recipe": "thresher.prune.recipe:Recipe",
    "activate": "thresher.activate.memory:activate",
    "activation_record": "thresher.activate.memory:record_of",
    "budgets": "thresher.parts.budgets",
    "catalogue": "thresher.core.card:catalogue",
    "compare": "thresher.run.evaluate:compare",
    "compare_methods": "thresher.comparing:compare_methods",
    "export": "thresher.run.files.export:export",
    "export_onnx": "thresher.run.files.onnx:export_onnx",
    "heal": "thresher.prune.heal.memory:heal",
    "hold": "thresher.prune.heal.hold:hold",
    "hold_in_lightning": "thresher.prune.heal.lightning:hold_in_lightning",
    "log_record": "thresher.prune.tracking:log_record",
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
    """Keeps the verbs where imports of the rooms of their names would take their place."""

    def __reduce__(self) -> tuple[Any, ...]:
        # What sends functions that mention the package to other processes (joblib, Dask, Ray) knows
        # plain modules alone.
        return importlib.import_module, (self.__name__,)


def _verb(name: str) -> property:
    """Return the attribute of the package that is a verb, and the name of the verb's room."""

    def get(package: ModuleType) -> Any:
        return vars(package).get(name) or __getattr__(name)

    def set_(package: ModuleType, value: Any) -> None:
        # Python sets the room when it is imported; whoever sets something else means it.
        if not isinstance(value, ModuleType):
            vars(package)[name] = value

    return property(get, set_)


for _name in ("activate", "prune"):
    setattr(_Package, _name, _verb(_name))


def __dir__() -> list[str]:
    return __all__


@wrapt.when_imported("transformers.modeling_utils")
def _register_loader(module: ModuleType) -> None:
    """Teach ``from_pretrained`` the sparse format as soon as transformers can learn it."""
    importlib.import_module("thresher.run.files.loader")


sys.modules[__name__].__class__ = _Package
watch()
