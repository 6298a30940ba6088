"""The engine's model of a GGUF file."""

from __future__ import annotations

__all__ = ["read_model"]

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....core.errors import CheckpointError, LayerError, nearest
from ..formats import CODED, FLOATS, Matrix, encode, joined, lay_out
from ..model import LayerData, ModelData, Vector, interleaved, padded_columns
from .file import GGUFFile
from .names import FAMILIES, halves

#: Tensors that are not read, as they say what is computed here.
_COMPUTED = ("rope_freqs.weight",)


def read_model(file: GGUFFile, bits: int | None) -> tuple[ModelData, int]:
    """Return what the engine's model is made of, from a GGUF file, and how many tokens it is for.

    Matrices keep the file's numbers where they are of the types Q4_0, Q4_1, Q8_0, F16, BF16 and
    F32; those of other types are rounded to eight bits.

    Parameters
    ----------
    file : GGUFFile
    bits : {8, 4} or None
        Round matrices that take more; with 4 the embedding and the head get 8.

    Raises
    ------
    LayerError
        If the engine does not run the architecture, or not with what the file asks for.
    CheckpointError
        If something is missing, or of another shape than the file says.
    NumericalError
        If a weight is not finite.
    """
    reading = _Reading(file, bits)
    return reading.run(), reading.context


class _Reading:
    def __init__(self, file: GGUFFile, bits: int | None) -> None:
        self.file, self.bits = file, bits
        self.name = str(self._said("general.architecture", str))
        if self.name not in FAMILIES:
            raise LayerError(
                f"the engine does not run GGUF files of the architecture {self.name!r}; "
                f"{nearest(self.name, FAMILIES)}"
            )
        self.family = FAMILIES[self.name]
        self.hidden = self.count("embedding_length")
        self.heads = self.count("attention.head_count")
        self.kv_heads = self.count("attention.head_count_kv", self.heads)
        self.head_dim = self.count("attention.key_length", self.hidden // self.heads)
        self.intermediate = self.count("feed_forward_length")
        self.context = self.count("context_length")
        self.unread = set(file.shapes) - set(_COMPUTED)
        self._refuse_what_is_not_run()

    def run(self) -> ModelData:
        bits = 8 if self.bits == 4 else self.bits
        embedding = self.matrix("token_embd.weight", None, self.hidden, bits)
        vocabulary = len(embedding.codes)
        tied = "output.weight" not in self.file.shapes
        output = None if tied else self.matrix("output.weight", vocabulary, self.hidden, bits)
        layers = [self.layer(i) for i in range(self.count("block_count"))]
        final_norm = self.norm("output_norm.weight", self.hidden)
        if self.unread:
            raise LayerError(
                f"the engine knows no tensor {min(self.unread)!r} in GGUF files of the "
                f"architecture {self.name!r}"
            )
        return ModelData(
            embedding=lay_out(embedding),
            head=None if output is None else lay_out(output),
            final_norm=final_norm,
            layers=layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            intermediate=self.intermediate,
            epsilon=self.number("attention.layer_norm_rms_epsilon"),
            frequencies=self.frequencies(),
            rotary_scale=1.0,
        )

    def layer(self, index: int) -> LayerData:
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        qkv = self.joined(index, {"attn_q": wide, "attn_k": narrow, "attn_v": narrow}, self.hidden)
        gate_up = {"ffn_gate": self.intermediate, "ffn_up": self.intermediate}
        down, down_bias = self.joined(index, {"ffn_down": self.hidden}, self.intermediate)
        norms = self.family.head_norms
        start = f"blk.{index}."
        return LayerData(
            qkv=lay_out(*qkv),
            out=lay_out(*self.joined(index, {"attn_output": self.hidden}, wide)),
            gate_up=lay_out(*interleaved(*self.joined(index, gate_up, self.hidden))),
            down=lay_out(padded_columns(down), down_bias),
            attention_norm=self.norm(f"{start}attn_norm.weight", self.hidden),
            mlp_norm=self.norm(f"{start}ffn_norm.weight", self.hidden),
            query_norm=self.norm(f"{start}attn_q_norm.weight", self.head_dim) if norms else None,
            key_norm=self.norm(f"{start}attn_k_norm.weight", self.head_dim) if norms else None,
            rotary=True,
            window=self.count("attention.sliding_window", 0) if self.family.windows else 0,
        )

    def joined(
        self, index: int, rows: dict[str, int], columns: int
    ) -> tuple[Matrix, Tensor | None]:
        """Return matrices of a layer one below the other, and their biases if there are any."""
        matrices, biases = [], []
        for name, count in rows.items():
            start = f"blk.{index}.{name}"
            change = self.turned_in_halves(name)
            matrix = self.matrix(f"{start}.weight", count, columns, self.bits)
            matrices.append(matrix.by_rows(change))
            has_bias = f"{start}.bias" in self.file.shapes
            held = self.vector(f"{start}.bias", count) if has_bias else torch.zeros(count)
            biases.append((has_bias, change(held)))
        bias = torch.cat([x for _, x in biases]) if any(has for has, _ in biases) else None
        return joined(f"layer {index} of {self.file.path}", matrices), bias

    def turned_in_halves(self, name: str) -> Callable[[Tensor], Tensor]:
        """Return what puts rows of queries and keys in the order of two halves of each head."""
        if name not in self.family.turned:
            return lambda x: x
        return lambda x: halves(x, self.head_dim)

    def matrix(self, name: str, rows: int | None, columns: int, bits: int | None) -> Matrix:
        matrix = self.file.matrix(name)
        found = (len(matrix.codes), matrix.columns)
        if found != (rows or found[0], columns) or 0 in found:
            raise CheckpointError(
                f"{self.file.path}: {name!r} is {found[0]} x {found[1]}, not "
                f"{'tokens' if rows is None else rows} x {columns}"
            )
        self.unread.discard(name)
        if bits is not None and (matrix.form in FLOATS or CODED[matrix.form] > bits):
            return encode(f"{name} of {self.file.path}", matrix.dense(), f"int{bits}")
        return matrix

    def vector(self, name: str, size: int) -> Tensor:
        vector = self.file.vector(name)
        if len(vector) != size:
            raise CheckpointError(f"{self.file.path}: {name!r} is {len(vector)} long, not {size}")
        self.unread.discard(name)
        return vector

    def norm(self, name: str, size: int) -> Vector:
        found: Vector = self.vector(name, size).contiguous().numpy()
        return found

    def frequencies(self) -> Vector:
        """Return the angles by which a position turns each pair."""
        base = self.number("rope.freq_base", 10000.0)
        places = torch.arange(0, self.head_dim, 2, dtype=torch.int64).float() / self.head_dim
        found = 1.0 / base**places
        if self.file.metadata.get(f"{self.name}.rope.scaling.type") == "linear":
            found /= self.number("rope.scaling.factor")
        if "rope_freqs.weight" in self.file.shapes:
            found /= self.vector("rope_freqs.weight", self.head_dim // 2)
        return np.ascontiguousarray(found.numpy(), np.float32)

    def _refuse_what_is_not_run(self) -> None:
        scaling = self.file.metadata.get(f"{self.name}.rope.scaling.type", "none")
        if scaling not in ("none", "linear"):
            raise LayerError(
                f"the engine does not run rotary positions of the type {scaling!r} in GGUF files"
            )
        turned = self.count("rope.dimension_count", self.head_dim)
        values = self.count("attention.value_length", self.head_dim)
        if {turned, values} != {self.head_dim}:
            raise LayerError(
                f"the engine does not run heads of {self.head_dim} of which {turned} are turned "
                f"by their positions, with values of {values}"
            )
        window = self.count("attention.sliding_window", 0)
        if not self.family.windows and 0 < window < self.context:
            raise LayerError(
                f"the engine does not run a sliding window of {window} tokens in GGUF files of the "
                f"architecture {self.name!r}"
            )
        if self.count("expert_count", 0):
            raise LayerError("the engine does not run mixtures of experts")
        if self.head_dim % 2 or self.heads % self.kv_heads:
            raise CheckpointError(
                f"{self.file.path} names {self.heads} heads of {self.head_dim} and "
                f"{self.kv_heads} of keys, which no model of this kind has"
            )

    def count(self, key: str, default: int | None = None) -> int:
        value: int = self._said(f"{self.name}.{key}", int, default)
        if value < 0 or value > 2**31 or (value == 0 and default != 0):
            raise CheckpointError(f"{self.file.path}: {self.name}.{key} is {value}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value: float = self._said(f"{self.name}.{key}", float, default)
        if not 0 < value < 1e30:
            raise CheckpointError(f"{self.file.path}: {self.name}.{key} is {value}")
        return value

    def _said(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.file.metadata.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.file.path} does not say {key!r}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise CheckpointError(
                f"{self.file.path}: {key!r} is {value!r}; the engine takes one {kind.__name__}"
            )
        return value
