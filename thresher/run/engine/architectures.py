"""Which architectures the engine runs, and what tells them apart."""

from __future__ import annotations

__all__ = ["FIXED_ROTARY", "Architecture", "architecture_of"]

from dataclasses import dataclass
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
    """

    head_norms: bool = False
    windows: str = "none"
    unturned: str | None = None

    def window(self, config: Any, layer: int) -> int:
        """Return how many tokens a layer sees, 0 for all."""
        window = getattr(config, "sliding_window", None) or 0
        if self.windows == "by layer":
            return window if config.layer_types[layer] == "sliding_attention" else 0
        return window if self.windows == "all" else 0

    def rotary(self, config: Any, layer: int) -> bool:
        """Return whether a layer turns queries and keys by their positions."""
        return self.unturned is None or bool(getattr(config, self.unturned)[layer])


#: By the configuration's ``model_type``.
_ARCHITECTURES = {
    "llama": Architecture(),
    "mistral": Architecture(windows="all"),
    "qwen2": Architecture(windows="by layer"),
    "qwen3": Architecture(head_norms=True, windows="by layer"),
    "smollm3": Architecture(windows="by layer", unturned="no_rope_layers"),
}

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
    if config.hidden_act != "silu":
        raise LayerError(
            f"the engine does not run the activation {config.hidden_act!r} of this {name} model, "
            "'silu' alone"
        )
    rotary = config.rope_parameters["rope_type"]
    if rotary not in FIXED_ROTARY:
        raise LayerError(
            f"the engine does not run rotary positions of the type {rotary!r} of this {name} "
            f"model; it runs {', '.join(FIXED_ROTARY)}"
        )
    return _ARCHITECTURES[name]
