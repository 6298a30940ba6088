"""Putting ReLUs in the place of a model's activations."""

from __future__ import annotations

__all__ = ["substitute"]

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..core.errors import LayerError
from ..parts.elementwise import name_of
from ..stream.feedforward import FeedForward
from .networks import Networks, find_networks


def substitute(networks: Networks) -> Networks:
    """Have every feed-forward network of a model activate by ReLU, in place.

    Parameters
    ----------
    networks : Networks
        Of a model that applies its activations by modules of their own, as those of transformers
        do: the module that is given what a gate's layer returned.

    Returns
    -------
    Networks
        The same ones, with ReLUs.

    Warns
    -----
    UserWarning
        If the model has a configuration in which no ReLUs could be said for these places; where one
        entry of it says so, it is changed, so that a saved model loads with them.

    Raises
    ------
    LayerError
        If a network's activation is no module that could be exchanged, or one that is used
        elsewhere too; the model is then as it was.
    """
    model = networks.model
    waiting = {
        id(_opening(n).module): n for n in networks.networks if name_of(n.activation) != "relu"
    }
    found: dict[int, nn.Module] = {}
    elsewhere: set[int] = set()
    with _watching(model, waiting, found, elsewhere):
        Networks(model, networks.networks, networks.samples[:1]).run()
    for key, network in waiting.items():
        if key not in found:
            raise LayerError(
                f"what activates layer {_opening(network).name!r} "
                f"({name_of(network.activation)!r}) is no module of its own, so that no ReLU can "
                "take its place; make it one, such as torch.nn.SiLU(), in the model's class"
            )
        if id(found[key]) in elsewhere:
            raise LayerError(
                f"the module that activates layer {_opening(network).name!r} activates something "
                "else as well; give each a module of its own in the model's class"
            )
    replaced = {id(module) for module in found.values()}
    holders = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child is not None and id(child) in replaced
    ]
    for parent, name, _ in holders:
        setattr(parent, name, nn.ReLU())
    after = find_networks(model, networks.samples)
    wrong = [network for network in after.networks if name_of(network.activation) != "relu"]
    if wrong or len(after.networks) != len(networks.networks):
        for parent, name, child in holders:
            setattr(parent, name, child)
        raise LayerError(
            f"{type(model).__name__} does more to its gates than to activate them; its networks "
            "cannot be given ReLUs"
        )
    if holders and hasattr(model, "config"):
        _say(model, [child for _, _, child in holders])
    return after


def _say(model: Any, before: Sequence[nn.Module]) -> None:
    """Have a model's configuration say what it has now in the place of modules that it had."""
    config = model.config
    places = {name for name, module in model.named_modules() if type(module) is nn.ReLU}
    for entry in _entries(config, before):
        changed = copy.deepcopy(config)
        setattr(changed, entry, "relu")
        if _relus(type(model), changed) == places:
            setattr(config, entry, "relu")
            return
    warnings.warn(
        f"the configuration of {type(model).__name__} still names the activations that it had, and "
        'a saved model would load with those; say "relu" there before it is saved, such as '
        'model.config.hidden_act = "relu"',
        stacklevel=4,
    )


def _entries(config: Any, before: Sequence[nn.Module]) -> list[str]:
    """Return the entries of a configuration that name activations of these modules' types."""
    from transformers.activations import ACT2FN

    names = {
        name for name in ACT2FN if any(type(ACT2FN[name]) is type(module) for module in before)
    }
    said = config.to_dict() if hasattr(config, "to_dict") else {}
    return [entry for entry, value in said.items() if isinstance(value, str) and value in names]


def _relus(kind: type[nn.Module], config: Any) -> set[str]:
    """Return where a new model of a configuration has ReLUs; nowhere if there can be none."""
    try:
        with torch.device("meta"):
            model = kind(config)
    except Exception:  # whatever a class of the user's own does with it
        return set()
    return {name for name, module in model.named_modules() if type(module) is nn.ReLU}


def _opening(network: FeedForward) -> Any:
    """Return the layer whose outputs are activated."""
    return network.gate or network.up


@contextmanager
def _watching(
    model: nn.Module,
    waiting: dict[int, FeedForward],
    found: dict[int, nn.Module],
    elsewhere: set[int],
) -> Iterator[None]:
    """Note the modules without children or weights that are given what layers returned.

    Those that are given something else, at some other time, are noted beside.
    """
    given: dict[int, int] = {}

    def note_output(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            given[id(output)] = id(module)
            kept.append(output)

    def note_input(module: nn.Module, args: Any) -> None:
        if args and id(args[0]) in given:
            found.setdefault(given[id(args[0])], module)
        else:
            elsewhere.add(id(module))

    kept: list[torch.Tensor] = []  # or another tensor could come to have one's identity
    handles = [
        (module.register_forward_hook(note_output) if id(module) in waiting
         else module.register_forward_pre_hook(note_input))
        for module in model.modules()
        if id(module) in waiting
        or not (any(True for _ in module.children()) or any(True for _ in module.parameters()))
    ]  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
