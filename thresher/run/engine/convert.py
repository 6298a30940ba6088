"""The engine's compiled model of a loaded transformers model."""

from __future__ import annotations

__all__ = ["convert"]

from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import LayerError
from .. import _run
from ..packed.layer import PackedLayer
from .architectures import Architecture, architecture_of
from .formats import PANEL_ROWS, pack_panels


def convert(model: nn.Module, bits: int | None) -> _run.EngineModel:
    """Return the compiled model of a causal language model of transformers.

    Parameters
    ----------
    model : nn.Module
        Of an architecture that the engine runs; dense, or with packed layers.
    bits : {8, 4} or None
        Of its matrices, see :func:`~thresher.run.engine.formats.pack_panels`.

    Raises
    ------
    LayerError
        If the architecture is another, or the model holds what the architecture does not.
    NumericalError
        If a weight is not finite.
    """
    return _Conversion(model, bits).run()


class _Conversion:
    def __init__(self, model: nn.Module, bits: int | None) -> None:
        self.model, self.bits = model, bits
        self.config: Any = model.config
        self.architecture: Architecture = architecture_of(self.config)
        self.names = {module: name for name, module in model.named_modules()}
        self.read: set[nn.Module] = set()

    def run(self) -> _run.EngineModel:
        model: Any = self.model
        body = model.model
        layers = [self.layer(i, block) for i, block in enumerate(body.layers)]
        final_norm = self.norm(body.norm)
        embedding, head = self.vocabulary(body.embed_tokens, model.lm_head)
        rotary = body.rotary_emb
        self.refuse_what_is_left()
        attention = body.layers[0].self_attn
        return _run.EngineModel(
            embedding=embedding,
            head=head,
            final_norm=final_norm,
            layers=layers,
            heads=self.config.num_attention_heads,
            kv_heads=self.config.num_key_value_heads,
            head_dim=attention.head_dim,
            intermediate=self.config.intermediate_size,
            epsilon=self.config.rms_norm_eps,
            frequencies=rotary.inv_freq.detach().float().cpu().numpy(),
            rotary_scale=float(rotary.attention_scaling),
        )

    def layer(self, index: int, block: Any) -> _run.EngineLayer:
        attention, mlp = block.self_attn, block.mlp
        norms = self.architecture.head_norms
        return _run.EngineLayer(
            qkv=self.stacked([attention.q_proj, attention.k_proj, attention.v_proj], self.bits),
            out=self.stacked([attention.o_proj], self.bits),
            gate_up=self.gate_up(mlp.gate_proj, mlp.up_proj),
            down=self.down(mlp.down_proj),
            attention_norm=self.norm(block.input_layernorm),
            mlp_norm=self.norm(block.post_attention_layernorm),
            query_norm=self.norm(attention.q_norm) if norms else None,
            key_norm=self.norm(attention.k_norm) if norms else None,
            rotary=self.architecture.rotary(self.config, index),
            window=self.architecture.window(self.config, index),
        )

    def vocabulary(self, embedding: nn.Module, head: nn.Module) -> tuple[Any, Any]:
        """Return the embedding and the head, one matrix where they share their weight.

        They get eight bits where the others get four.
        """
        bits = 8 if self.bits == 4 else self.bits
        head_panels = self.stacked([head], bits)
        self.read.add(embedding)
        if type(embedding) is not nn.Embedding:
            raise LayerError(f"{self.names[embedding]} is a {_kind(embedding)}, not an embedding")
        if embedding.weight is getattr(head, "weight", None):
            return head_panels, head_panels
        return pack_panels(self.names[embedding], embedding.weight.cpu(), bits), head_panels

    def matrix(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias of a linear layer."""
        self.read.add(layer)
        if isinstance(layer, PackedLayer):
            bias = layer.float_bias()
            return layer.dense_weight().detach().cpu(), None if bias is None else bias.cpu()
        if type(layer) is not nn.Linear:
            raise LayerError(
                f"the engine does not run {self.names[layer]}, a {_kind(layer)}: merge adapters, "
                "and load weights that other libraries have quantised in floating point"
            )
        bias = layer.bias
        return layer.weight.detach().cpu(), None if bias is None else bias.detach().float().cpu()

    def stacked(self, layers: list[nn.Module], bits: int | None) -> _run.Panels:
        found = [self.matrix(layer) for layer in layers]
        name = " and ".join(self.names[layer] for layer in layers)
        weight = torch.cat([weight for weight, _ in found])
        return pack_panels(name, weight, bits, _joined(found))

    def gate_up(self, gate: nn.Module, up: nn.Module) -> _run.Panels:
        """Return both matrices with their panels in turn, so that one thread has a pair."""
        found = [self.matrix(layer) for layer in (gate, up)]
        padding = -found[0][0].shape[0] % PANEL_ROWS
        panels = [
            nn.functional.pad(weight, (0, 0, 0, padding)).unflatten(0, (-1, PANEL_ROWS))
            for weight, _ in found
        ]
        weight = torch.stack(panels, 1).flatten(0, 2)
        bias = _joined(found)
        if bias is not None:
            halves = [nn.functional.pad(half, (0, padding)) for half in bias.chunk(2)]
            bias = torch.stack([h.view(-1, PANEL_ROWS) for h in halves], 1).flatten()
        return pack_panels(f"{self.names[gate]} and up_proj", weight, self.bits, bias)

    def down(self, layer: nn.Module) -> _run.Panels:
        weight, bias = self.matrix(layer)
        padded = nn.functional.pad(weight, (0, -weight.shape[1] % PANEL_ROWS))
        return pack_panels(self.names[layer], padded, self.bits, bias)

    def norm(self, module: Any) -> Any:
        self.read.add(module)
        # A copy: the model may be trained on.
        return module.weight.detach().float().cpu().clone().contiguous().numpy()

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
