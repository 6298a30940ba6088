"""Where the engine's models come from: transformers, GGUF files, and folders of its own."""

from __future__ import annotations

__all__ = ["Loaded", "check_near", "ends_of", "is_the_engines", "load", "probe", "tokenizer_of"]

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.errors import CheckpointError, LayerError, ThresherError
from ...core.extras import naming_the_extra
from ...core.paths import local_model
from ...parts.activations.attached import set_aside
from ..files.tokenizers import read_tokenizer
from ..files.whole import load_whole
from .architectures import architecture_of
from .convert import convert
from .gguf import GGUFFile, read_model
from .model import ModelData
from .session import Session
from .store import STORE_FILE, read_store
from .thresholds import thresholds_of
from .torch_path import TorchModel

#: Tokens on which the engine is held against the model, and how far its logits in bfloat16 may lie
#: from the model's own, relative to their spread, at the median token. Of SmolLM2 it is 0.06 where
#: the model computes in bfloat16 itself, 0.01 in float32; a single token may be off by all of it.
_PROBE, _APART = 8, 0.5
#: The context of models whose positions do not end.
_UNBOUNDED = 1 << 20


@dataclass(frozen=True)
class Loaded:
    """A model that the engine can run.

    Parameters
    ----------
    data : ModelData or TorchModel
        A model of another architecture than the engine's runs in torch.
    context : int
        Tokens of a prompt and its continuation together, at most.
    ends : frozenset of int
        Tokens that end a text.
    tokenizer : callable
        Returns the tokenizer, None where there is none.
    """

    data: ModelData | TorchModel
    context: int
    ends: frozenset[int]
    tokenizer: Callable[[], Any]


def is_the_engines(model: str | Path) -> bool:
    """Return whether a model runs in the engine alone: a file, or a folder of the engine's."""
    path = Path(model)
    return path.is_file() or (path / STORE_FILE).is_file()


def load(model: str | Path | nn.Module, bits: int | None) -> Loaded:
    """Return what the engine needs of a model; see :class:`~thresher.run.engine.engine.Engine`."""
    if isinstance(model, nn.Module):
        return _of_module(model, bits, lambda: None)
    path = Path(model)
    if path.is_file() or path.suffix.lower() == ".gguf":
        return _of_gguf(path, bits)
    if (path / STORE_FILE).is_file():
        data, context, ends = read_store(path, bits)
        return Loaded(data, context, ends, lambda: tokenizer_of(path))
    return _of_module(_module(model, bits), bits, lambda: tokenizer_of(model))


def _of_module(model: Any, bits: int | None, tokenizer: Callable[[], Any]) -> Loaded:
    try:
        architecture_of(model.config)
    except LayerError as error:
        if bits is not None:
            raise
        return _in_torch(model, error, tokenizer)
    thresholds_of(model, bits)  # which refuses what the engine does not drop, before any work
    # Without what rounding or dropped inputs would drown.
    with set_aside(model):
        data = convert(model, None)
        _prove(model, data)
    if bits is not None:
        data = convert(model, bits)
    settings = getattr(model, "generation_config", None) or model.config
    return Loaded(data, int(model.config.max_position_embeddings), _ends(settings), tokenizer)


def _in_torch(model: Any, error: LayerError, tokenizer: Callable[[], Any]) -> Loaded:
    """Return a model that answers by its own passes, if it goes on with texts; say so."""
    if not model.can_generate() or model.config.is_encoder_decoder:
        raise error
    try:
        own = TorchModel(model)
    except LayerError as other:
        raise error from other
    warnings.warn(
        f"the model's own passes in torch make the text, which takes longer: {error}",
        stacklevel=5,
    )
    settings = getattr(model, "generation_config", None) or model.config
    context = getattr(model.config, "max_position_embeddings", None) or _UNBOUNDED
    return Loaded(own, int(context), _ends(settings), tokenizer)


def _ends(settings: Any) -> frozenset[int]:
    ends = settings.eos_token_id
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def ends_of(folder: Path, config: Any) -> frozenset[int]:
    """Return the tokens that end a text of the model in a folder with a configuration."""
    from transformers import GenerationConfig

    settings = config
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder)
    return _ends(settings)


def _of_gguf(path: Path, bits: int | None) -> Loaded:
    file = GGUFFile(path)
    data, context = read_model(file, bits)
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    ends = (file.metadata.get(f"tokenizer.ggml.{name}") for name in names)
    held = frozenset(end for end in ends if isinstance(end, int))
    declared = "tokenizer.ggml.model" in file.metadata
    return Loaded(data, context, held, lambda: _gguf_tokenizer(path, declared))


def probe(vocabulary: int, config: Any) -> torch.Tensor:
    """Return tokens on which the engine is held against a model, of shape (tokens,)."""
    most = min(_PROBE, config.max_position_embeddings)
    return torch.linspace(0, vocabulary - 1, most).long()


def check_near(data: ModelData, ids: torch.Tensor, own: torch.Tensor, kind: str) -> None:
    """Raise LayerError if a model's own pass does what the engine knows nothing of.

    Parameters
    ----------
    data : ModelData
    ids : Tensor of shape (tokens,)
        See :func:`probe`.
    own : Tensor of shape (positions, vocabulary)
        The model's logits after the first tokens.
    kind : str
        What the model is called.
    """
    compiled = data.build()
    logits = Session(compiled).logits(ids.numpy(), len(ids))
    own = own.float().cpu()
    spread = (own - own.mean(dim=-1, keepdim=True)).norm(dim=-1)
    found = torch.from_numpy(logits)[: len(own)]
    off = float(((found - own).norm(dim=-1) / spread).median())
    # Logits that are not finite are told of where a token is chosen from them.
    if off > _APART:
        raise LayerError(
            f"the engine's logits lie {off:.0%} of their spread from those of this {kind}, whose "
            "own pass does something that the engine does not know; use the model's own "
            "generate() instead"
        )


def _prove(model: Any, data: ModelData) -> None:
    ids = probe(data.embedding.rows, model.config)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            own = model(input_ids=ids[None].to(model.device), use_cache=False).logits[0]
    finally:
        for module, training in modes.items():
            module.training = training
    check_near(data, ids, own, type(model).__name__)


def _module(folder: str | Path, bits: int | None) -> nn.Module:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    local_model(folder)  # what cannot be a name on the hub is not asked for there
    try:
        config = AutoConfig.from_pretrained(folder)
        if bits is not None or config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            architecture_of(config)  # before the weights are read
        model: nn.Module = load_whole(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, ThresherError):
            raise
        raise CheckpointError(f"{str(folder)!r} cannot be loaded: {error}") from error
    return model


def _gguf_tokenizer(path: Path, declared: bool) -> Any:
    """Return the tokenizer of a file, None where it holds none that can be read."""
    from transformers import AutoTokenizer

    with naming_the_extra():  # transformers' own error says less
        for package in ("gguf", "sentencepiece"):
            import_module(package)
    try:
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # whatever parts that are missing make its conversion raise
        if declared:
            warnings.warn(
                f"the tokenizer of {str(path)!r} cannot be read ({str(error).strip()}), so that "
                "texts cannot be given as such; pass tokenizer=, or tokens in place of texts",
                stacklevel=2,
            )
        return None


def tokenizer_of(folder: str | Path) -> Any:
    """Return a model's tokenizer, None where it has none: tokens can be run without."""
    try:
        return read_tokenizer(folder)
    except (OSError, ValueError, KeyError):
        return None
