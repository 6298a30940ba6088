"""How a tiny random model of an architecture is built, and what it is given.

The shared sizes make every model small; the same seed makes it the same every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from packaging.version import Version
from torch import nn

SAMPLES, TOKENS = 3, 24
TINY = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LM = TINY | {"num_key_value_heads": 2}
DECODER = "decoder_input_ids"


@dataclass(frozen=True)
class Architecture:
    """A model class with a small configuration.

    Parameters
    ----------
    name : str
        As in the table of the documentation.
    model : str
        The class in transformers.
    options : dict
        Arguments of its configuration; a dict stands for a configuration within it.
    inputs : dict of str to callable
        Every input of the model: a function of a random generator.
    since : str, default "5.0"
        The version of transformers from which on the model is right by itself.
    """

    name: str
    model: str
    options: dict[str, Any]
    inputs: dict[str, Callable[[torch.Generator], torch.Tensor]]
    since: str = "5.0"

    def __str__(self) -> str:
        return self.name

    @property
    def missing(self) -> str | None:
        """Why the installed transformers cannot run it, or None."""
        installed = transformers.__version__
        if not hasattr(transformers, self.model):
            return f"transformers {installed} has no {self.model}"
        if Version(installed) < Version(self.since):
            return f"{self.model} of transformers {installed} is not right before {self.since}"
        return None

    @property
    def takes_token_ids_alone(self) -> bool:
        """Whether it can be pruned from disk, where the windows are rows of token ids."""
        return list(self.inputs) == ["input_ids"]

    def build(self) -> nn.Module:
        """Return the model in eval mode, with weights at which no layer is idle."""
        kind = getattr(transformers, self.model)
        torch.manual_seed(0)
        model = kind(kind.config_class(**self.options)).eval()
        _stir(model)
        return model

    def samples(self, count: int = SAMPLES) -> list[dict[str, torch.Tensor]]:
        """Return model inputs, one sample each."""
        generator = torch.Generator().manual_seed(1)
        return [{name: draw(generator) for name, draw in self.inputs.items()} for _ in range(count)]


@torch.no_grad()
def _stir(model: nn.Module) -> None:
    """Give every parameter and stored buffer a size and a spread of its own.

    Fresh models have norms of one, biases of zero and weights of 0.02: all inputs of a layer
    would have one size, and attention and gates would hardly depend on what they see.
    """
    generator = torch.Generator().manual_seed(2)
    stored = model.state_dict(keep_vars=True).values()
    for tensor in {id(t): t for t in stored if t.is_floating_point()}.values():
        noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        if tensor.dim() < 2:
            tensor.mul_((noise / 2).exp()).add_(noise.abs() / 20)
        elif 0 < tensor.std() < 0.05:
            tensor.mul_(0.1 / tensor.std())


def tokens(length: int = TOKENS, low: int = 3) -> Callable[[torch.Generator], torch.Tensor]:
    return lambda generator: torch.randint(low, 256, (1, length), generator=generator)


def numbers(*shape: int) -> Callable[[torch.Generator], torch.Tensor]:
    return lambda generator: torch.randn(1, *shape, generator=generator)


def fixed(value: Any) -> Callable[[torch.Generator], torch.Tensor]:
    return lambda generator: torch.tensor(value)


def after(prefix: list[int]) -> Callable[[torch.Generator], torch.Tensor]:
    """Return token ids that begin with special ones."""
    return lambda g: torch.cat([torch.tensor([prefix]), tokens(12)(g)], 1)


def language(
    name: str, model: str | None = None, /, since: str = "5.0", **options: Any
) -> Architecture:
    """A model of token ids alone; ``None`` among the options takes a shared one away."""
    options = {k: v for k, v in (LM | options).items() if v is not None}
    model = model or f"{name.replace('-', '')}ForCausalLM"
    return Architecture(name, model, options, {"input_ids": tokens()}, since)


def encoder(name: str, model: str | None = None, /, **options: Any) -> Architecture:
    return language(name, model or f"{name}Model", **{"num_key_value_heads": None, **options})


def pair(name: str, model: str | None = None, /, **options: Any) -> Architecture:
    """An encoder-decoder of token ids."""
    options = {k: v for k, v in (TINY | options).items() if v is not None}
    options = {"decoder_start_token_id": 1, **options}
    model = model or f"{name}ForConditionalGeneration"
    return Architecture(name, model, options, {"input_ids": tokens(), DECODER: tokens(12)})


def vision(name: str, model: str | None = None, /, **options: Any) -> Architecture:
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    options = {**{k: TINY[k] for k in kept}, "image_size": 32, "patch_size": 8, **options}
    options = {k: v for k, v in options.items() if v is not None}
    model = model or f"{name}ForImageClassification"
    return Architecture(name, model, options, {"pixel_values": numbers(3, 32, 32)})


def speech(name: str, model: str, /, **options: Any) -> Architecture:
    convolutions = {"conv_dim": (32, 32), "conv_stride": (4, 4), "conv_kernel": (8, 8)}
    options = {**TINY, **convolutions, "num_conv_pos_embeddings": 16, **options}
    options |= {"num_conv_pos_embedding_groups": 4}
    return Architecture(name, model, options, {"input_values": numbers(800)})
