"""Why parameters stay dense: what a module is, or exact words of its name, never parts of them."""

from __future__ import annotations

__all__ = ["Reasons", "identify", "output_head", "why_kept"]

import re
from collections.abc import Hashable, Sequence

import torch
from torch import nn

from .forms import Kernel, form_of
from .layers import Layer

#: A depthwise kernel with so few inputs per output gains nothing from a zero.
_FEW_INPUTS = 4
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
_ROUTERS = ("router", "gate", "wg", "gating")
_EMBEDDINGS = ("embed", "embeds", "embedding", "embeddings", "token", "tokens")


def identify(parameter: torch.Tensor) -> Hashable:
    """Return what two parameters have in common that read the very same values.

    Parameters
    ----------
    parameter : nn.Parameter
        Two may be one object, or two on one memory.
    """
    plain = type(parameter) is nn.Parameter and parameter.layout == torch.strided
    if not plain or parameter.is_meta or not parameter.numel():
        return id(parameter)
    return (parameter.data_ptr(), parameter.dtype, parameter.shape, parameter.stride())


class Reasons:
    """Why layers of a model stay dense unless they are included.

    Parameters
    ----------
    model : nn.Module
        Its output heads, embeddings and adapters are looked up once.
    """

    def __init__(self, model: nn.Module) -> None:
        self._heads, self._adapters = _heads(model), _adapters(model)
        self._routers = _routers(model)
        kinds = nn.Embedding | nn.EmbeddingBag
        self._embeddings = {identify(m.weight) for m in model.modules() if isinstance(m, kinds)}

    def shares_embedding(self, layer: Layer) -> bool:
        """Return whether a layer's weight is an embedding's too."""
        return identify(getattr(layer.module, layer.attribute)) in self._embeddings

    def of_layer(self, layer: Layer) -> str | None:
        """Return why a layer stays dense; None to prune it."""
        if id(layer.module) in self._heads:
            return "output head"
        if self.shares_embedding(layer):
            return "shares an embedding"
        if id(layer.module) in self._adapters:
            return "adapter"
        if id(layer.module) in self._routers:
            return "router"
        if (
            isinstance(layer.form, Kernel)
            and 1 < layer.form.module.groups == layer.form.module.in_channels
        ):
            return "depthwise kernel" if layer.shape[-1] <= _FEW_INPUTS else None
        return None


def _heads(model: nn.Module) -> set[int]:
    """Identify output heads, also of models inside other modules."""
    heads = set()
    for module in model.modules():
        head = output_head(module)
        if head is not None:
            heads |= {id(part) for part in head.modules()}
        heads |= _classifiers(module)
    return heads


def _classifiers(model: nn.Module) -> set[int]:
    """Identify layers outside a model's base that have an output for each of its labels."""
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    base = getattr(model, "base_model", None)
    if type(labels) is not int or not isinstance(base, nn.Module):
        return set()
    inside = {id(part) for part in base.modules()}
    outside = [part for part in model.modules() if id(part) not in inside]
    return {id(part) for part in outside if getattr(part, "out_features", None) == labels}


def output_head(model: nn.Module) -> nn.Module | None:
    """Return what a language model makes its logits by, None where it has no such head."""
    ask = getattr(model, "get_output_embeddings", lambda: None)
    try:
        head = ask()
    except (NotImplementedError, AttributeError):
        return None
    return head if isinstance(head, nn.Module) else None


def _adapters(model: nn.Module) -> set[int]:
    """Identify what peft put beside the layers of a base model."""
    found: set[int] = set()
    for module in model.modules():
        for name in getattr(module, "adapter_layer_names", ()):
            part = getattr(module, name, None)
            if isinstance(part, nn.Module):
                found |= {id(inner) for inner in part.modules()}
    return found


def _routers(model: nn.Module) -> set[int]:
    """Identify linear layers that choose among experts: as many outputs as there are of those."""
    configs = [c for m in model.modules() if (c := getattr(m, "config", None)) is not None]
    counts = {
        value
        for config in {id(c): c for c in configs}.values()
        for key, value in vars(config).items()
        if "experts" in key.split("_") and type(value) is int and value > 1
    }
    found = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        last, *around = reversed(name.split("."))
        chooses = last in _ROUTERS or any(word in _ROUTERS for word in around[:1])
        shared = module.out_features == 1 and last == "shared_expert_gate" and counts
        if shared or (chooses and module.out_features in counts | _beside(model, around)):
            found.add(id(module))
    return found


def _beside(model: nn.Module, around: Sequence[str]) -> set[int]:
    """Return how many modules or matrices the lists and stacks near a router hold."""
    counts = set()
    # A router may lie in a module of its own beside the experts.
    for depth in range(min(len(around), 2) + 1):
        holder = model.get_submodule(".".join(reversed(around[depth:])))
        for part in (holder, *holder.children()):
            if isinstance(part, nn.ModuleList) and part is not holder:
                counts.add(len(part))
            if form_of(part) is None:
                counts |= {len(p) for p in part.parameters(recurse=False) if p.dim() == 3}
    return counts - {1}


def why_kept(module: nn.Module, name: str, parameter: torch.Tensor, longest: int) -> str | None:
    """Return why a parameter that is no layer stays dense; None where it is not understood.

    Parameters
    ----------
    module : nn.Module
        What holds it.
    name : str
        Its name there.
    parameter : Tensor
        The parameter.
    longest : int
        The most rows or columns of a matrix in the model.
    """
    kind = _words_of_class(type(module).__name__)
    words = name.lower().split("_")
    if isinstance(module, _NORMS) or kind[-1:] == ["norm"]:
        return "norms and biases"
    # One that is longer than anything it could be added to is a matrix laid flat.
    if parameter.dim() < 2 and parameter.numel() <= longest:
        return "norms and biases"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) or words[-1] in _EMBEDDINGS:
        return "embedding"
    if "router" in kind or kind[-1:] == ["gate"]:
        return "router"
    # Tables of them, and pairs such as those of Transformer-XL, are biases too.
    while len(words) > 1 and (words[-1] == "table" or len(words[-1]) == 1):
        words.pop()
    return "norms and biases" if words[-1] in ("bias", "biases") else None


def _words_of_class(name: str) -> list[str]:
    """Part a name such as ``MixtralRMSNorm2d`` into lower-case words, without dimensions."""
    name = re.sub(r"[1-3]d$", "", name)
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
