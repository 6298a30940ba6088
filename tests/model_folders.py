"""Small real models: transformers architectures with random weights, and a byte tokenizer."""

from pathlib import Path

from small_models import llama


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
    options = {
        "vocab_size": 256,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    return llama(**(options | changes)).train()


def save_folder(model, folder: Path) -> Path:
    """Save a model and the byte tokenizer as a Hugging Face folder."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
