"""Which architectures the engine runs, and what tells them apart."""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS",
    "FIXED_ROTARY",
    "Architecture",
    "Names",
    "activation_of",
    "architecture_of",
]

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...core.errors import LayerError, nearest
from ...parts.groups.sizes import SIZES_KEY


@dataclass(frozen=True)
class Names:
    """Where an architecture keeps its modules.

    Parameters
    ----------
    embedding, positions, blocks, final_norm : str
        Paths in the model; no `positions` where none are added to embeddings.
    qkv : tuple of str
        Paths in a block: queries, keys and values, or one module with all of them.
    out : str
        What attention adds, in the module of the attention.
    gate_up : tuple of str
        Gate and up, one module with both, or up alone in networks without gates.
    down : str
    attention_norm, mlp_norm : str
        Of what goes into them.
    attention_after, mlp_after : str, optional
        Norms of what attention and the network add.
    """

    embedding: str = "model.embed_tokens"
    positions: str | None = None
    blocks: str = "model.layers"
    final_norm: str = "model.norm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    attention_after: str | None = None
    mlp_after: str | None = None


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
    norms_from : float, default 0
        What is added to the weights of norms.
    scaled : bool, default False
        Whether embeddings are multiplied by the square root of their width.
    gated : bool, default True
        Whether networks multiply what goes up by a gate.
    centred : bool, default False
        Whether norms take the mean away first, and add a shift.
    settings : mapping of str to object
        What the configuration must say.
    names : Names
    """

    head_norms: bool = False
    windows: str = "none"
    unturned: str | None = None
    norms_from: float = 0.0
    scaled: bool = False
    gated: bool = True
    centred: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    names: Names = Names()

    def window(self, config: Any, layer: int) -> int:
        """Return how many tokens a layer sees, 0 for all."""
        window = getattr(config, "sliding_window", None) or 0
        if self.windows == "by layer":
            return window if config.layer_types[layer] == "sliding_attention" else 0
        return window if self.windows == "all" else 0

    def rotary(self, config: Any, layer: int) -> bool:
        """Return whether a layer turns queries and keys by their positions."""
        if self.names.positions is not None:
            return False
        return self.unturned is None or bool(getattr(config, self.unturned)[layer])


_GEMMA = Architecture(norms_from=1.0, scaled=True)
_GEMMA2 = replace(
    _GEMMA,
    windows="by layer",
    names=Names(
        mlp_norm="pre_feedforward_layernorm",
        attention_after="post_attention_layernorm",
        mlp_after="post_feedforward_layernorm",
    ),
)
_GPT2 = Architecture(
    gated=False,
    centred=True,
    settings={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    names=Names(
        embedding="transformer.wte",
        positions="transformer.wpe",
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        qkv=("attn.c_attn",),
        out="attn.c_proj",
        gate_up=("mlp.c_fc",),
        down="mlp.c_proj",
        attention_norm="ln_1",
        mlp_norm="ln_2",
    ),
)
_OPT = Architecture(
    gated=False,
    centred=True,
    settings={
        "do_layer_norm_before": True,
        "layer_norm_elementwise_affine": True,
        "_remove_final_layer_norm": False,
    },
    names=Names(
        embedding="model.decoder.embed_tokens",
        positions="model.decoder.embed_positions",
        blocks="model.decoder.layers",
        final_norm="model.decoder.final_layer_norm",
        out="self_attn.out_proj",
        gate_up=("fc1",),
        down="fc2",
        attention_norm="self_attn_layer_norm",
        mlp_norm="final_layer_norm",
    ),
)
#: By the configuration's ``model_type``.
_ARCHITECTURES = {
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": replace(_GEMMA2, head_norms=True),
    "gpt2": _GPT2,
    "llama": Architecture(),
    "mistral": Architecture(windows="all"),
    "opt": _OPT,
    "phi3": Architecture(
        windows="all", names=Names(qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))
    ),
    "qwen2": Architecture(windows="by layer"),
    "qwen3": Architecture(head_norms=True, windows="by layer"),
    "smollm3": Architecture(windows="by layer", unturned="no_rope_layers"),
}

#: Activations of gates, or of what goes down, by their names in configurations.
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "relu": "relu"}

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
    for setting, value in _ARCHITECTURES[name].settings.items():
        if getattr(config, setting, value) != value:
            raise LayerError(
                f"the engine runs {name} models whose {setting} is {value}, and that of this one "
                f"is {getattr(config, setting)!r}; use the model's own generate() instead"
            )
    if getattr(config, "word_embed_proj_dim", config.hidden_size) != config.hidden_size:
        raise LayerError(
            f"the engine runs models whose embeddings are as wide as their blocks, and this {name} "
            "model projects them; use the model's own generate() instead"
        )
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if width % 2:
        raise LayerError(
            f"the engine runs heads of an even width, and those of this {name} model have {width}; "
            "use the model's own generate() instead"
        )
    for rotary in _rotaries(getattr(config, "rope_parameters", None) or {}):
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
    """Return the name of the activation of gates, or of what goes down."""
    # Gemma's configurations have two names, and mean the first where it is set.
    names = ("hidden_activation", "hidden_act", "activation_function")
    return str(next(filter(None, (getattr(config, name, None) for name in names)), None))


def _rotaries(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what rotary positions are, by type of layer where they differ."""
    return [parameters] if "rope_type" in parameters else list(parameters.values())
