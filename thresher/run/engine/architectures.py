"""Which architectures the engine runs, and what tells them apart."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "FIXED_ROTARY", "Architecture", "activation_of", "architecture_of"]

from dataclasses import dataclass, replace
from typing import Any

from ...core.errors import LayerError, nearest
from ...parts.groups.sizes import SIZES_KEY


@dataclass(frozen=True)
class Architecture:
    """What an architecture adds to Llama's blocks.

    Parameters
    ----------
    head_norms : bool, default False
        Whether queries and keys are normalised, head by head, before they are turned.
    windows : {"none", "all", "by layer"}, default "none"
        Which layers see the last ``sliding_window`` tokens alone: none, all where the
        configuration sets a window, or those that it lists as ``"sliding_attention"``.
    unturned : str, optional
        The configuration's list with a zero for each layer without rotary positions.
    fused : bool, default False
        Whether queries, keys and values are one projection, and gate and up another.
    norms_from : float, default 0
        What is added to the weights of norms.
    scaled : bool, default False
        Whether embeddings are multiplied by the square root of their width.
    after : bool, default False
        Whether what attention and the network add is normalised too.
    """

    head_norms: bool = False
    windows: str = "none"
    unturned: str | None = None
    fused: bool = False
    norms_from: float = 0.0
    scaled: bool = False
    after: bool = False

    def window(self, config: Any, layer: int) -> int:
        """Return how many tokens a layer sees, 0 for all."""
        window = getattr(config, "sliding_window", None) or 0
        if self.windows == "by layer":
            return window if config.layer_types[layer] == "sliding_attention" else 0
        return window if self.windows == "all" else 0

    def rotary(self, config: Any, layer: int) -> bool:
        """Return whether a layer turns queries and keys by their positions."""
        return self.unturned is None or bool(getattr(config, self.unturned)[layer])


_GEMMA = Architecture(norms_from=1.0, scaled=True)
_GEMMA2 = replace(_GEMMA, after=True, windows="by layer")
#: By the configuration's ``model_type``.
_ARCHITECTURES = {
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": replace(_GEMMA2, head_norms=True),
    "llama": Architecture(),
    "mistral": Architecture(windows="all"),
    "phi3": Architecture(windows="all", fused=True),
    "qwen2": Architecture(windows="by layer"),
    "qwen3": Architecture(head_norms=True, windows="by layer"),
    "smollm3": Architecture(windows="by layer", unturned="no_rope_layers"),
}

#: Activations of gates, by their names in configurations.
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}

#: Ways to scale rotary positions whose frequencies do not depend on how long a text is.
FIXED_ROTARY = ("default", "linear", "llama3", "yarn")


def architecture_of(config: Any) -> Architecture:
    """Return the architecture that a configuration names.

    Raises
    ------
    LayerError
        If the engine does not run it, or not with what the configuration asks for; it says what.
    """
    name = str(getattr(config, "model_type", None))
    if hasattr(config, SIZES_KEY):
        raise LayerError(
            f"the engine runs blocks of one size, and those of this {name} model have sizes of "
            "their own; use the model's own generate(), or make it smaller with 'structured'"
        )
    if name not in _ARCHITECTURES:
        raise LayerError(
            f"the engine does not run models of the architecture {name!r}; "
            f"{nearest(name, _ARCHITECTURES)}; use the model's own generate() instead"
        )
    activation = activation_of(config)
    if activation not in ACTIVATIONS:
        raise LayerError(
            f"the engine does not run the activation {activation!r} of this {name} model; it runs "
            f"{' and '.join(ACTIVATIONS)}"
        )
    for rotary in _rotaries(config.rope_parameters):
        if rotary["rope_type"] not in FIXED_ROTARY:
            raise LayerError(
                f"the engine does not run rotary positions of the type {rotary['rope_type']!r} of "
                f"this {name} model; it runs {', '.join(FIXED_ROTARY)}"
            )
        if (share := rotary.get("partial_rotary_factor") or 1.0) != 1:
            raise LayerError(
                f"the engine turns whole heads by their positions, and this {name} model "
                f"{share:.0%} of each; use the model's own generate() instead"
            )
    return _ARCHITECTURES[name]


def activation_of(config: Any) -> str:
    """Return the name of the gates' activation."""
    # Gemma's configurations have both names, and mean this one where it is set.
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _rotaries(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what rotary positions are, by type of layer where they differ."""
    return [parameters] if "rope_type" in parameters else list(parameters.values())
