"""What the engine's model is made of, from a loaded transformers model."""

from __future__ import annotations

__all__ = ["Conversion", "convert"]

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import LayerError
from ...parts.forms import Columns
from ...parts.forms import form_of as form_of_layer
from ..packed.layer import PackedLayer
from .architectures import ACTIVATIONS, Architecture, activation_of, architecture_of
from .formats import Matrix, PanelData, encode, form_of, joined, lay_out
from .model import LayerData, ModelData, Vector, interleaved, padded_columns, padded_rows
from .thresholds import thresholds_of


def convert(model: nn.Module, bits: int | None) -> ModelData:
    """Return what the engine's model is made of, from a causal language model of transformers.

    Parameters
    ----------
    model : nn.Module
        Of an architecture that the engine runs; dense, or with packed layers.
    bits : {8, 4} or None
        Of its matrices, see :func:`~thresher.run.engine.formats.form_of`.

    Raises
    ------
    LayerError
        If the architecture is another, or the model holds what the architecture does not.
    NumericalError
        If a weight is not finite.
    """
    conversion = Conversion(model, bits)
    return conversion.model_of([conversion.layer(index) for index in range(len(conversion.blocks))])


class Conversion:
    """The making of an engine's model, layer by layer; see :func:`convert`.

    Parameters
    ----------
    model, bits
        See :func:`convert`. Only what is asked for has to have its weights.

    Attributes
    ----------
    blocks : list of nn.Module
        The model's, in order.
    embedding, positions, final_norm, head : nn.Module
        What is outside them; no `positions` where none are added to embeddings.
    """

    def __init__(self, model: Any, bits: int | None) -> None:
        self.model = model
        self.bits = bits
        self.config: Any = model.config
        self.architecture: Architecture = architecture_of(self.config)
        self.names = {module: name for name, module in model.named_modules()}
        self.read: set[nn.Module] = set()
        self.rounded: Mapping[str, Matrix] = {}
        kept = self.architecture.names
        self.blocks: list[nn.Module] = list(model.get_submodule(kept.blocks))
        self.embedding: Any = model.get_submodule(kept.embedding)
        added = kept.positions
        self.positions: Any = None if added is None else model.get_submodule(added)
        self.final_norm: Any = model.get_submodule(kept.final_norm)
        self.head: Any = model.get_output_embeddings()
        self.thresholds = thresholds_of(model, bits)
        # Before any weights are loaded: one by one, modules that share one get a copy each.
        held = getattr(self.embedding, "weight", None)
        self._tied = held is not None and held is getattr(self.head, "weight", None)

    def model_of(self, layers: list[LayerData]) -> ModelData:
        """Return the model of all its layers; embeddings, norms and head must have their weights.

        Raises
        ------
        LayerError
            If a module holds weights that nothing has read.
        """
        final_norm = self.norm(self.final_norm)
        embedding, head = self.vocabulary()
        positions = self.added_positions()
        self.refuse_what_is_left()
        config = self.config
        # By sizes: a configuration may name numbers that its models do not use.
        heads, qkv = config.num_attention_heads, layers[0].qkv
        rows = sum(part.rows for part in (qkv if isinstance(qkv, list) else [qkv]))
        place = self.architecture.names.out.rpartition(".")[0]
        attention: Any = self.blocks[0].get_submodule(place)
        return ModelData(
            embedding=embedding,
            head=head,
            final_norm=final_norm,
            layers=layers,
            heads=heads,
            kv_heads=(rows // attention.head_dim - heads) // 2,
            head_dim=attention.head_dim,
            # Of whole panels, as the engine has it.
            intermediate=layers[0].down.columns,
            epsilon=self.final_norm.eps if self.architecture.centred else config.rms_norm_eps,
            frequencies=self.frequencies(attention.head_dim),
            rotary_scale=self.rotary_scale(),
            activation=ACTIVATIONS[activation_of(config)],
            embedding_scale=self.embedding_scale(),
            score_scale=self.score_scale(),
            score_cap=getattr(config, "attn_logit_softcapping", None) or 0.0,
            logit_cap=getattr(config, "final_logit_softcapping", None) or 0.0,
            gated=self.architecture.gated,
            centred=self.architecture.centred,
            positions=positions,
        )

    @property
    def turnings(self) -> list[str]:
        """What the names of each set of frequencies begin with; all layers share one elsewhere."""
        if self.positions is not None:
            return []
        if "rope_type" in self.config.rope_parameters:
            return [""]
        return [f"{kind}_" for kind in dict.fromkeys(self.config.layer_types)]

    def frequencies(self, head_dim: int) -> Vector:
        """Return the sets of frequencies of rotary positions; one that turns nothing without."""
        if not self.turnings:
            return np.zeros(head_dim // 2, dtype=np.float32)
        found = [getattr(self.model.model.rotary_emb, f"{x}inv_freq") for x in self.turnings]
        values: Vector = torch.stack([each.detach().float().cpu() for each in found]).numpy()
        return values[0] if len(values) == 1 else values

    def rotary_scale(self) -> float:
        """Return the scale of sines and cosines, which all layers have to share."""
        if not self.turnings:
            return 1.0
        rotary = self.model.model.rotary_emb
        found = {float(getattr(rotary, f"{x}attention_scaling")) for x in self.turnings}
        if len(found) > 1:
            raise LayerError("the engine scales the positions of all layers alike, unlike this")
        return found.pop()

    def embedding_scale(self) -> float:
        """Return what embeddings are multiplied by, rounded as the model rounds it."""
        if not self.architecture.scaled:
            return 1.0
        embedding = self.embedding
        # Where it is a buffer, casts of the model have rounded it; elsewhere it is made anew.
        held = getattr(embedding, "embed_scale", self.config.hidden_size**0.5)
        return float(torch.as_tensor(held).to(embedding.weight.dtype))

    def score_scale(self) -> float | None:
        """Return the scale of attention's scores, None for the usual one."""
        held = getattr(self.config, "query_pre_attn_scalar", None)
        return None if held is None else float(held**-0.5)

    def layer(self, index: int, rounded: Mapping[str, Matrix] | None = None) -> LayerData:
        """Return a layer, whose block must have its weights.

        Parameters
        ----------
        index : int
        rounded : mapping of str to Matrix, optional
            By the names of modules: matrices to take instead of rounding their weights.
        """
        block = self.blocks[index]
        self.rounded = rounded or {}
        kind = self.architecture
        kept = kind.names

        def norm(path: str | None) -> Vector | None:
            return None if path is None else self.norm(block.get_submodule(path))

        head_norm = f"{kept.out.rpartition('.')[0]}.{{}}_norm" if kind.head_norms else None
        return LayerData(
            qkv=self._qkv([block.get_submodule(path) for path in kept.qkv]),
            out=self._alone(block.get_submodule(kept.out)),
            gate_up=self._gate_up([block.get_submodule(path) for path in kept.gate_up]),
            down=self._alone(block.get_submodule(kept.down), padded_columns),
            attention_norm=self.norm(block.get_submodule(kept.attention_norm)),
            mlp_norm=self.norm(block.get_submodule(kept.mlp_norm)),
            query_norm=norm(head_norm and head_norm.format("q")),
            key_norm=norm(head_norm and head_norm.format("k")),
            rotary=kind.rotary(self.config, index),
            window=kind.window(self.config, index),
            attention_after=norm(kept.attention_after),
            mlp_after=norm(kept.mlp_after),
            turning=self._turning(index),
        )

    def _turning(self, index: int) -> int:
        several = len(self.turnings) > 1
        return self.turnings.index(f"{self.config.layer_types[index]}_") if several else 0

    def _qkv(self, layers: list[nn.Module]) -> PanelData | list[PanelData]:
        if any(self._threshold(layer) is not None for layer in layers):
            return [self._alone(layer) for layer in layers]
        return lay_out(*self.joined(layers, self.bits))

    def _gate_up(self, layers: list[nn.Module]) -> PanelData | list[PanelData]:
        if not self.architecture.gated:
            (layer,) = layers
            return lay_out(*padded_rows(*self.joined(layers, self.bits)), self._threshold(layer))
        if all(self._threshold(layer) is None for layer in layers):
            return lay_out(*interleaved(*self.joined(layers, self.bits)))
        if len(layers) == 1:
            raise LayerError(
                f"the engine does not drop inputs of {self.names[layers[0]]}, which is gate and up "
                "in one; use the model's own generate() instead"
            )
        return [
            lay_out(*padded_rows(*self.joined([layer], self.bits)), self._threshold(layer))
            for layer in layers
        ]

    def _alone(
        self, layer: nn.Module, change: Callable[[Matrix], Matrix] = lambda matrix: matrix
    ) -> PanelData:
        matrix, bias = self.joined([layer], self.bits)
        matrix, threshold = change(matrix), self._threshold(layer)
        if threshold is not None:
            threshold = nn.functional.pad(threshold, (0, matrix.columns - len(threshold)))
        return lay_out(matrix, bias, threshold)

    def _threshold(self, layer: nn.Module) -> Tensor | None:
        return self.thresholds.get(self.names[layer])

    def added_positions(self) -> PanelData | None:
        """Return what is added to the embeddings at each position, if anything is."""
        if self.positions is None:
            return None
        self.read.add(self.positions)
        # Rows before the first are of padding.
        rows = self.positions.weight.detach().cpu()[getattr(self.positions, "offset", 0) :]
        return lay_out(encode(self.names[self.positions], rows, form_of(None, rows.dtype)))

    def vocabulary(self) -> tuple[PanelData, PanelData | None]:
        """Return the embedding, and the head where it has a weight of its own.

        They get eight bits where the others get four.
        """
        bits = 8 if self.bits == 4 else self.bits
        embedding, head = self.embedding, self.head
        self.read.add(embedding)
        name = self.names[embedding]
        if not isinstance(embedding, nn.Embedding):
            raise LayerError(f"{name} is a {_kind(embedding)}, not an embedding")
        head_matrix, bias = self.joined([head], bits)
        threshold = self._threshold(head)
        if self._tied and bias is None:
            return lay_out(head_matrix, None, threshold), None
        weight = embedding.weight.cpu()
        rows = encode(name, weight, form_of(bits, weight.dtype))
        return lay_out(rows), lay_out(head_matrix, bias, threshold)

    def matrix(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias of a linear layer."""
        self.read.add(layer)
        if isinstance(layer, PackedLayer):
            bias = layer.float_bias()
            return layer.dense_weight().detach().cpu(), None if bias is None else bias.cpu()
        turned = isinstance(form_of_layer(layer), Columns)
        if type(layer) is not nn.Linear and not turned:
            raise LayerError(
                f"the engine does not run {self.names[layer]}, a {_kind(layer)}: merge adapters, "
                "and load weights that other libraries have quantised in floating point"
            )
        held: Any = layer
        weight, bias = held.weight.detach().cpu(), held.bias
        weight = weight.mT if turned else weight
        return weight, None if bias is None else bias.detach().float().cpu()

    def joined(self, layers: list[nn.Module], bits: int | None) -> tuple[Matrix, Tensor | None]:
        """Return the weights of layers one below the other, and their biases if there are any."""
        found = [self.matrix(layer) for layer in layers]
        names = [self.names[layer] for layer in layers]
        together = " and ".join(names)
        if self.rounded.keys().isdisjoint(names):
            weight = torch.cat([weight for weight, _ in found])
            return encode(together, weight, form_of(bits, weight.dtype)), _joined(found)
        parts = [
            self.rounded.get(name) or encode(name, weight, form_of(bits, weight.dtype))
            for name, (weight, _) in zip(names, found, strict=True)
        ]
        return joined(together, parts), _joined(found)

    def norm(self, module: Any) -> Vector:
        """Return a norm's weights, and after them its shifts where it has some."""
        self.read.add(module)
        # A copy: the model may be trained on.
        weight = module.weight.detach().float().cpu() + self.architecture.norms_from
        if self.architecture.centred:
            weight = torch.cat([weight, module.bias.detach().float().cpu()])
        values: Vector = weight.contiguous().numpy()
        return values

    def refuse_what_is_left(self) -> None:
        """Raise LayerError if a module holds weights that nothing has read."""
        for name, module in self.model.named_modules():
            holds = isinstance(module, PackedLayer) or any(True for _ in module.parameters(False))
            if holds and module not in self.read:
                raise LayerError(
                    f"the engine knows no {name!r}, a {_kind(module)}, in models of the "
                    f"architecture {self.config.model_type!r}"
                )


def _joined(found: list[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """Return the biases one after another, zeros where there is none; None if all are missing."""
    if all(bias is None for _, bias in found):
        return None
    return torch.cat([torch.zeros(len(w)) if bias is None else bias for w, bias in found])


def _kind(module: nn.Module) -> str:
    return type(module).__qualname__
