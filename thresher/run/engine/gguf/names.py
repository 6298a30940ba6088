"""What GGUF calls the parts of a model, and how the architectures in it differ."""

from __future__ import annotations

__all__ = ["FAMILIES", "MODEL", "PARTS", "Family", "halves", "pairs"]

from dataclasses import dataclass

from torch import Tensor

#: Modules of the whole model, and of each block after ``blk.I.``, by what transformers calls them.
MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_QUERIES, _VALUES = ("attn_q", "attn_k"), ("attn_v",)
_OTHERS = ("attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Family:
    """What sets architectures of GGUF apart.

    Parameters
    ----------
    models : tuple of str
        The ``model_type`` of configurations of transformers that it stands for.
    turned : tuple of str, default ()
        Matrices whose rows are stored in pairs that rotary positions turn together, where
        transformers turns one half of a head against the other.
    biases : tuple of str
        Matrices that may have one in llama.cpp.
    head_norms : bool
        Whether queries and keys are normalised, head by head.
    windows : bool
        Whether a sliding window that the file names is kept to.
    factors : bool
        Whether rotary frequencies may have factors of their own, ``rope_freqs``.
    """

    models: tuple[str, ...]
    turned: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    head_norms: bool = False
    windows: bool = False
    factors: bool = False


#: By ``general.architecture``. Mistral and SmolLM2 are called llama.
FAMILIES = {
    "llama": Family(
        ("llama", "mistral"),
        turned=_QUERIES,
        biases=(*_QUERIES, *_VALUES, *_OTHERS),
        windows=True,
        factors=True,
    ),
    "qwen2": Family(("qwen2",), biases=(*_QUERIES, *_VALUES)),
    "qwen3": Family(("qwen3",), head_norms=True),
}


def halves(rows: Tensor, head_dim: int) -> Tensor:
    """Return rows that are stored in pairs in the order of two halves of each head."""
    return rows.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def pairs(rows: Tensor, head_dim: int) -> Tensor:
    """Return rows in the order of :func:`halves` as they are stored, in pairs."""
    return rows.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)
