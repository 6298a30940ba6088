"""What the compiled model is made of, wherever it comes from."""

from __future__ import annotations

__all__ = ["LayerData", "ModelData", "interleaved", "padded_columns", "padded_rows"]

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import _run
from .formats import PANEL_ROWS, Matrix, PanelData

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class LayerData:
    """A layer: matrices, norms, and what sets it apart.

    Parameters
    ----------
    qkv : PanelData or list of PanelData
        Queries, keys and values are one matrix, or a list has each, where they drop inputs.
    out : PanelData
    gate_up : PanelData or list of PanelData
        Both are one matrix, see :func:`interleaved`, or a list has each, where they drop inputs;
        their rows are then padded, see :func:`padded_rows`. Without gates, up alone, likewise.
    down : PanelData
        Padded, see :func:`padded_columns`.
    attention_norm, mlp_norm : array of shape (hidden,) or (2 * hidden,)
        Weights, and after them the shifts of norms that centre.
    query_norm, key_norm : array of shape (head_dim,), optional
    rotary : bool
        Whether queries and keys are turned by their positions.
    window : int
        Tokens that one sees, its own included; 0 for all.
    attention_after, mlp_after : array of shape (hidden,) or (2 * hidden,), optional
        Norms of what attention and the network add to the residual stream.
    turning : int, default 0
        Which of the model's sets of frequencies.
    """

    qkv: PanelData | list[PanelData]
    out: PanelData
    gate_up: PanelData | list[PanelData]
    down: PanelData
    attention_norm: Vector
    mlp_norm: Vector
    query_norm: Vector | None
    key_norm: Vector | None
    rotary: bool
    window: int
    attention_after: Vector | None = None
    mlp_after: Vector | None = None
    turning: int = 0

    def build(self) -> _run.EngineLayer:
        """Return the compiled layer."""
        parts = _built(self)
        for name in ("qkv", "gate_up"):
            held = getattr(self, name)
            parts[name] = [part.build() for part in (held if isinstance(held, list) else [held])]
        return _run.EngineLayer(**parts)


@dataclass(frozen=True)
class ModelData:
    """A model.

    Parameters
    ----------
    embedding : PanelData
    head : PanelData, optional
        The embedding, where there is none.
    final_norm : array of shape (hidden,) or (2 * hidden,)
    layers : list of LayerData
    heads, kv_heads, head_dim, intermediate : int
    epsilon : float
        Of norms.
    frequencies : array of shape (head_dim / 2,) or (sets, head_dim / 2)
        Of rotary positions.
    rotary_scale : float
        Of their sines and cosines.
    activation : {"silu", "gelu", "relu"}, default "silu"
        Of gates, or of what goes down; ``"gelu"`` is the one by tanh.
    embedding_scale : float, default 1
        What embeddings are multiplied by.
    score_scale : float, optional
        What scores of attention are multiplied by, by default ``head_dim ** -0.5``.
    score_cap, logit_cap : float, default 0
        With a cap, scores and logits x become ``cap * tanh(x / cap)``.
    gated : bool, default True
        Whether networks multiply what goes up by a gate.
    centred : bool, default False
        Whether norms take the mean away first.
    positions : PanelData, optional
        A row for every position, which is added to embeddings.
    """

    embedding: PanelData
    head: PanelData | None
    final_norm: Vector
    layers: list[LayerData]
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    epsilon: float
    frequencies: Vector
    rotary_scale: float
    activation: str = "silu"
    embedding_scale: float = 1.0
    score_scale: float | None = None
    score_cap: float = 0.0
    logit_cap: float = 0.0
    gated: bool = True
    centred: bool = False
    positions: PanelData | None = None

    def build(self) -> _run.EngineModel:
        """Return the compiled model, which keeps the arrays alive."""
        parts = _built(self)
        if self.score_scale is None:
            parts["score_scale"] = self.head_dim**-0.5
        parts["head"] = parts["head"] or parts["embedding"]
        parts["layers"] = [layer.build() for layer in self.layers]
        return _run.EngineModel(**parts)


def _built(data: Any) -> dict[str, Any]:
    return {k: v.build() if isinstance(v, PanelData) else v for k, v in vars(data).items()}


def interleaved(matrix: Matrix, bias: Tensor | None) -> tuple[Matrix, Tensor | None]:
    """Return both halves of a matrix with their panels in turn, so that one thread has a pair."""

    def change(x: Tensor) -> Tensor:
        first, second = x.chunk(2)
        padding = -len(first) % PANEL_ROWS
        halves = [
            nn.functional.pad(half, (0, 0) * (x.dim() - 1) + (0, padding)).unflatten(
                0, (-1, PANEL_ROWS)
            )
            for half in (first, second)
        ]
        return torch.stack(halves, 1).flatten(0, 2)

    return matrix.by_rows(change), None if bias is None else change(bias)


def padded_rows(matrix: Matrix, bias: Tensor | None) -> tuple[Matrix, Tensor | None]:
    """Return a matrix with the rows of whole panels."""
    padding = -len(matrix.codes) % PANEL_ROWS

    def change(x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 0) * (x.dim() - 1) + (0, padding))

    return matrix.by_rows(change), None if bias is None else change(bias)


def padded_columns(matrix: Matrix) -> Matrix:
    """Return a matrix for inputs that are as many as the rows of whole panels."""
    return replace(matrix, columns=matrix.columns + -matrix.columns % PANEL_ROWS)
