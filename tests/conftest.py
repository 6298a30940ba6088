"""Small real models: transformers architectures with random weights, and a byte tokenizer."""

import os
from pathlib import Path

# Before torch is imported: the models are tiny, so a second thread makes them slower, and on a
# busy machine, where threads wait for one another, very much slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


def byte_tokenizer():
    """Return a tokenizer whose tokens are the 256 bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def tiny_llama(layers: int = 3, hidden: int = 32, **changes):
    """Return a Llama with random weights and a vocabulary of 256."""
    from transformers import LlamaConfig, LlamaForCausalLM

    options = {
        "vocab_size": 256,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(options | changes)))


def save_folder(model, folder: Path) -> Path:
    """Save a model and the byte tokenizer as a Hugging Face folder."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    """A folder with a tiny Llama in bfloat16."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    return save_folder(tiny_llama().to(torch.bfloat16), folder)


@pytest.fixture(scope="session")
def book(tmp_path_factory) -> Path:
    """A UTF-8 text file of 60,000 characters."""
    from thresher.core.calibration import embedded_text

    file = tmp_path_factory.mktemp("texts") / "book.txt"
    file.write_text(embedded_text()[:60_000], encoding="utf-8")
    return file
