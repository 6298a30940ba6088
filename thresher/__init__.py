"""Sparsity for machine learning: choose what to keep, keep the model good, make zeros pay.

Names are imported when they are first used, so that ``import thresher`` is quick and loads
no torch.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import wrapt

#: Where each public name lives.
_NAMES = {
    "Recipe": "thresher.prune.recipe",
    "budgets": "thresher.core.budgets",
    "catalogue": "thresher.core.card",
    "compare": "thresher.run.evaluate",
    "export": "thresher.run.export",
    "perplexity": "thresher.run.evaluate",
    "patterns": "thresher.core.patterns",
    "prox": "thresher.core.prox",
    "prune": "thresher.prune",
    "save": "thresher.run.export",
    "schedules": "thresher.core.schedules",
    "scores": "thresher.core.scores",
    "updates": "thresher.core.updates",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'thresher' has no attribute {name!r}")
    module = importlib.import_module(_NAMES[name])
    whole = _NAMES[name].rpartition(".")[2] == name
    return module if whole else getattr(module, name)


def __dir__() -> list[str]:
    return __all__


@wrapt.when_imported("transformers.quantizers.auto")
def _register_loader(module: ModuleType) -> None:
    """Teach ``from_pretrained`` the sparse format as soon as transformers can learn it."""
    importlib.import_module("thresher.run.transformers_loader")
