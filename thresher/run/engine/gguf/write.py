"""Models of transformers as GGUF files, which llama.cpp and what is built on it load."""

from __future__ import annotations

__all__ = ["TYPES", "export_gguf"]

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....core.errors import CheckpointError, LayerError, NumericalError, OptionError
from ....core.extras import naming_the_extra
from ....core.output import writing
from ...skeleton import Skeleton
from ..architectures import architecture_of
from ..formats import FLOATS as DTYPES
from ..formats import Matrix
from ..loading import ends_of, tokenizer_of
from ..quantize import GROUP, quantize
from .blocks import BLOCKS, FLOATS, Q4_0, Q4_1, Q8_0, pack
from .names import FAMILIES, MODEL, PARTS, Family, pairs
from .tokenizer import vocabulary_of

#: Types of matrices by what users call them: the tensors' number and the file's.
TYPES = {
    "f16": (1, 1),
    "bf16": (30, 32),
    "q8_0": (Q8_0, 7),
    "q4_0": (Q4_0, 2),
    "q4_1": (Q4_1, 3),
}
_F32, _F16 = 0, 1

_Bytes = NDArray[Any]


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file: where its numbers are, and how they are stored."""

    name: str
    module: str
    parameter: str
    kind: int
    change: Callable[[Tensor], Tensor]


def export_gguf(
    source: str | Path,
    out: str | Path,
    kind: str = "f16",
    rounded: Callable[[Path], Mapping[str, Tensor]] | None = None,
) -> None:
    """Write a model's folder as a GGUF file, tokenizer and chat template included.

    Tensors are read and written one after another.

    Parameters
    ----------
    source : str or Path
        A folder of transformers, dense or sparse: Llama, Mistral, Qwen2 or Qwen3.
    out : str or Path
        File to write; it appears only when it is complete.
    kind : {"f16", "bf16", "q8_0", "q4_0", "q4_1"}, default "f16"
        Of matrices. Those in blocks of 32 are rounded to nearest, with searched scales; with four
        bits the embedding and the head get eight. Rows that are no whole blocks, and norms and
        biases, stay floating-point numbers.
    rounded : callable, optional
        ``rounded(scratch)`` returns rows of blocks of this type by the names of their layers, as
        :func:`~thresher.run.engine.gguf.blocks.pack` does, to write instead of rounding to nearest.
        Called once all that could be refused has been looked at, with a folder that it may make.

    Raises
    ------
    OptionError
        If `out` exists, or there is no such type.
    CheckpointError
        If `source` cannot be read, or has no tokenizer that GGUF can express.
    LayerError
        If GGUF cannot express the model, or llama.cpp would compute something else.
    NumericalError
        If a weight is not finite, or too large for the type.
    MissingPackageError
        If the package `gguf` is not installed.

    References
    ----------
    GGUF, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
    """
    if kind not in TYPES:
        raise OptionError(f"there is no type {kind!r} of GGUF files here; use {', '.join(TYPES)}")
    with naming_the_extra():
        import gguf
    source, out = Path(source), Path(out)
    skeleton = Skeleton(source)
    export = _Export(skeleton, TYPES[kind][0])
    tokenizer = tokenizer_of(source)
    if tokenizer is None:
        raise CheckpointError(
            f"{str(source)!r} has no tokenizer that can be read, and a GGUF file holds one; write "
            "the original model's into it with save_pretrained"
        )
    embedding: Any = skeleton.model.get_submodule(MODEL["token_embd"])
    ends = ends_of(source, export.config)
    vocabulary = vocabulary_of(tokenizer, len(embedding.weight), ends)
    with writing(out, "export") as output:
        output.check_free()
        output.restart()
        writer = gguf.GGUFWriter(output.made, export.name)
        writer.add_type("model")
        writer.add_name(source.resolve().name)
        writer.add_file_type(TYPES[kind][1])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        export.tell(writer)
        vocabulary.tell(writer)
        export.write(writer, rounded(output.work / "rounded") if rounded else {})
        writer.close()
        output.publish()


class _Export:
    def __init__(self, skeleton: Skeleton, kind: int) -> None:
        self.skeleton, self.kind = skeleton, kind
        self.model = cast("Any", skeleton.model)
        self.config = self.model.config
        self.name, self.family = _family(self.config)
        self.head_dim: int = self.model.model.layers[0].self_attn.head_dim
        self._factors = self._rotary_factors()
        # Before any weights are loaded: one by one, modules that share one get a copy each.
        self.tied = self.model.lm_head.weight is self.model.model.embed_tokens.weight
        self.tensors = list(self._tensors())
        self._refuse_what_is_not_expressed()

    def tell(self, writer: Any) -> None:
        """Write what the file says of the model."""
        config = self.config
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        if config.rope_parameters["rope_type"] == "linear":
            writer.add_string(f"{self.name}.rope.scaling.type", "linear")
            writer.add_rope_scaling_factor(config.rope_parameters["factor"])

    def write(self, writer: Any, rounded: Mapping[str, Tensor]) -> None:
        """Write the tensors, of which some rows of blocks are known by the layer's name."""
        import gguf

        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        if self._factors is not None:
            factors = self._factors.numpy()
            writer.add_tensor_info(
                "rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes
            )
        for tensor in self.tensors:
            shape = tuple(parameters[tensor.parameter].shape)
            columns = shape[-1]
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.kind)]
            row = columns // block * size
            writer.add_tensor_info(
                tensor.name,
                (*shape[:-1], row),
                np.dtype(np.uint8),
                row * (shape[0] if len(shape) == 2 else 1),
                gguf.GGMLQuantizationType(tensor.kind),
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if self._factors is not None:
            writer.write_tensor_data(self._factors.numpy())
        for tensor in self.tensors:
            rows = rounded.get(tensor.module)
            if rows is not None and tensor.kind == self.kind:
                writer.write_tensor_data(tensor.change(rows).numpy())
                continue
            module = self.model.get_submodule(tensor.module)
            with self.skeleton.loaded(module, tensor.module):
                values = self.model.get_parameter(tensor.parameter).detach()
                writer.write_tensor_data(_stored(tensor, tensor.change(values)))

    def _tensors(self) -> Iterator[_Tensor]:
        """Yield the tensors of the file; all but the embedding and the head block by block."""
        embedding = self._of("token_embd", MODEL["token_embd"])
        yield from embedding
        for index in range(self.config.num_hidden_layers):
            for name, path in PARTS.items():
                yield from self._of(f"blk.{index}.{name}", f"model.layers.{index}.{path}")
        yield from self._of("output_norm", MODEL["output_norm"])
        if not self.tied:
            yield from self._of("output", MODEL["output"])

    def _of(self, name: str, path: str) -> Iterator[_Tensor]:
        """Yield weight and bias of a module, where there is one."""
        try:
            module = self.model.get_submodule(path)
        except AttributeError:
            return
        part = name.rpartition(".")[2]
        turned = part in self.family.turned
        for leaf, parameter in module.named_parameters(recurse=False):
            if leaf == "bias" and part not in self.family.biases:
                raise LayerError(
                    f"{path}.bias has no place in GGUF files of the architecture {self.name!r}"
                )
            change = (lambda x: pairs(x, self.head_dim)) if turned else (lambda x: x)
            kind = self._kind(part, parameter)
            yield _Tensor(f"{name}.{leaf}", path, f"{path}.{leaf}", kind, change)

    def _kind(self, part: str, parameter: Tensor) -> int:
        if parameter.dim() == 1:
            return _F32
        if self.kind not in BLOCKS:
            return self.kind
        if parameter.shape[1] % GROUP:
            return _F16
        return Q8_0 if part in MODEL else self.kind

    def _refuse_what_is_not_expressed(self) -> None:
        told = {tensor.parameter for tensor in self.tensors}
        left = [name for name, _ in self.model.named_parameters() if name not in told]
        if left:
            raise LayerError(
                f"{left[0]!r} of this {type(self.model).__name__} has no place in GGUF files of "
                f"the architecture {self.name!r}"
            )
        architecture, context = architecture_of(self.config), self.config.max_position_embeddings
        for index in range(self.config.num_hidden_layers):
            window = architecture.window(self.config, index)
            if 0 < window < context:
                raise LayerError(
                    f"layers of this model see {window} tokens, and llama.cpp lets those of the "
                    f"architecture {self.name!r} see all {context}; set sliding_window to null in "
                    "config.json if it is used for shorter texts alone"
                )

    def _rotary_factors(self) -> Tensor | None:
        """Return by what rotary frequencies are divided, None where the file says it in words."""
        rotary, said = self.model.model.rotary_emb, self.config.rope_parameters
        kind, divided = said["rope_type"], said.get("factor", 1.0)
        places = torch.arange(0, self.head_dim, 2, dtype=torch.int64).float() / self.head_dim
        usual = 1.0 / said["rope_theta"] ** places
        found = rotary.inv_freq.float()
        if rotary.attention_scaling == 1 and found.shape == usual.shape:
            told = usual / (divided if kind == "linear" else 1.0)
            if torch.allclose(found, told, atol=0):
                return None
            if self.family.factors:
                return (usual / found).contiguous()
        raise LayerError(
            f"rotary positions of the type {kind!r} as in this model have no place in GGUF files "
            f"of the architecture {self.name!r}"
        )


def _family(config: Any) -> tuple[str, Family]:
    """Return the architecture that GGUF has for a configuration, and what sets it apart."""
    for name, family in FAMILIES.items():
        if config.model_type in family.models:
            architecture_of(config)  # raises for settings that are not known
            return name, family
    known = ", ".join(model for family in FAMILIES.values() for model in family.models)
    raise LayerError(
        f"GGUF files are not written for models of the architecture {config.model_type!r}; they "
        f"are for {known}"
    )


def _stored(tensor: _Tensor, values: Tensor) -> _Bytes:
    """Return a tensor's bytes, of shape (rows, bytes of a row) or (bytes,)."""
    if not bool(values.isfinite().all()):
        raise NumericalError(f"{tensor.parameter} holds weights that are not finite")
    if tensor.kind in FLOATS:
        dtype = DTYPES[FLOATS[tensor.kind]]
        held = values.to(dtype).contiguous()
        if not bool(held.isfinite().all()):
            raise NumericalError(
                f"{tensor.parameter} holds a weight of {float(values.abs().max()):g}, which "
                f"{dtype} cannot hold; export as bf16"
            )
        found: _Bytes = held.view(torch.uint8).numpy()
        return found
    kind = BLOCKS[tensor.kind]
    bits = 8 if kind.form == "int8" else 4
    codes, scales, minimums, _ = quantize(values, bits, kind.minimums, unit=1.0)
    if not all(bool(x.isfinite().all()) for x in (scales, minimums) if x is not None):
        raise NumericalError(
            f"{tensor.parameter} holds weights too large for scales in float16; export as bf16"
        )
    matrix = Matrix(kind.form, codes, values.shape[1], scales, minimums)
    packed: _Bytes = pack(kind, matrix).numpy()
    return packed
