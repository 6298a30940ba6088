"""Small random models of every kind that pruning meets, with data for them."""

import torch
from torch import nn

VOCABULARY = 60


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)
    )


class _DepthwiseBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + torch.relu(self.norm(self.pointwise(self.depthwise(x))))


class _ConvolutionalNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(_DepthwiseBlock(8), _DepthwiseBlock(8), _DepthwiseBlock(8))
        self.classifier = nn.Linear(8, 4)

    def forward(self, x):
        return self.classifier(self.blocks(self.stem(x)).mean((-1, -2)))


def cnn(seed=0):
    torch.manual_seed(seed)
    return _ConvolutionalNetwork().eval()


def llama(seed=0, tied=False, **changes):
    """Return a Llama with random weights; `changes` are of its configuration."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "tie_word_embeddings": tied,
    }
    return LlamaForCausalLM(LlamaConfig(**(options | changes))).eval()


def gpt2(seed=0, **options):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32}
    config = GPT2Config(**sizes | options)
    return GPT2LMHeadModel(config).eval()


def bert(seed=0):
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=32,
    )
    return BertModel(config).eval()


def tokens(count=6, length=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (count, length), generator=generator)


def images(count=4, seed=0):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def vectors(count=64, seed=0):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)) + 0.5


def encoder_inputs(count=4):
    rows = tokens(count)
    mask = torch.ones_like(rows)
    return [{"input_ids": rows[i : i + 1], "attention_mask": mask[i : i + 1]} for i in range(count)]


#: How to make each model, its calibration data, and the names of layers that stay dense.
MODELS = {
    "mlp": (mlp, vectors, ()),
    "cnn": (cnn, lambda: [images(seed=s) for s in range(3)], ()),
    "llama": (llama, tokens, ("lm_head",)),
    "gpt2": (gpt2, tokens, ("lm_head",)),
    "bert": (bert, encoder_inputs, ()),
}
