"""Layers of attention that act on their own token alone, whatever they are called."""

import pytest
import torch
from small_models import bert, gpt2, llama, mlp, tokens, vectors
from torch import nn
from torch.nn import functional

from thresher.parts.coverage import find_layers
from thresher.stream.feedforward import find_feed_forward
from thresher.stream.reach import find_near_attention
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units


def found(model, samples):
    """Return the names of the layers in every unit that has some, without the unit's own."""
    layers = find_layers(model)
    stream = Stream(InMemory(model), find_units(model, layers), samples)
    names = {}
    for visit in stream.visits():
        inside = {layer.name for each in find_feed_forward(visit) for layer in each.layers}
        others = [layer for layer in visit.unit.layers if layer.name not in inside]
        near = find_near_attention(visit, others)
        if near:
            prefix = f"{visit.unit.name}."
            names[visit.unit.name] = [layer.name.removeprefix(prefix) for layer in near]
    return names


def rows(count=2):
    return [{"input_ids": row[None]} for row in tokens(count)]


def transformers_model(name, **options):
    import transformers

    torch.manual_seed(0)
    common = {
        "vocab_size": 60,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
    }
    config = getattr(transformers, f"{name}Config")(**(common | options))
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (llama, ["self_attn.q_proj", "self_attn.o_proj"]),
        (lambda: llama().bfloat16(), ["self_attn.q_proj", "self_attn.o_proj"]),
        (gpt2, ["attn.c_proj"]),
        (lambda: transformers_model("GPTNeoX"), ["attention.dense"]),
        (
            lambda: transformers_model("OPT", ffn_dim=32, word_embed_proj_dim=16),
            ["self_attn.q_proj", "self_attn.out_proj"],
        ),
        (
            lambda: transformers_model("GPTJ", n_embd=16, n_layer=2, n_head=4, rotary_dim=4),
            ["attn.q_proj", "attn.out_proj"],
        ),
        (bert, ["attention.self.query", "attention.output.dense"]),
    ],
    ids=["llama", "bfloat16", "gpt2", "gpt-neox", "opt", "gpt-j, in parallel", "bert"],
)
def test_queries_and_outputs_are_found(make, expected):
    names = found(make(), rows())
    assert len(names) >= 2
    assert all(each == expected for each in names.values())


def test_projections_of_low_rank_are_found_within_attention():
    model = transformers_model(
        "DeepseekV3",
        num_key_value_heads=4,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=4,
        first_k_dense_replace=2,
    )
    near = ["self_attn.q_a_proj", "self_attn.q_b_proj", "self_attn.o_proj"]
    assert all(each == near for each in found(model, rows()).values())


class Attention(nn.Module):
    """Attention of names that say nothing, whose queries are called last."""

    def __init__(self, causal):
        super().__init__()
        self.a, self.b, self.c, self.d, self.before, self.beyond, self.aside, self.unheard = (
            nn.Linear(16, 16) for _ in range(8)
        )
        self.causal = causal

    def forward(self, x):
        aside = torch.sin(self.aside(2 * x))
        h = torch.tanh(self.before(x))
        values, keys, unheard, queries = self.a(h), self.b(h), self.unheard(h), self.c(h)
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=self.causal
        )
        return x + self.beyond(torch.cos(self.d(mixed))) + aside + 0 * unheard


class Model(nn.Module):
    def __init__(self, causal):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Attention(causal) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("causal", [True, False])
def test_names_and_order_play_no_part_nor_layers_around_attention(causal):
    samples = [torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(1))]
    assert found(Model(causal), samples) == {"blocks.0": ["c", "d"], "blocks.1": ["c", "d"]}


def test_padding_on_the_left_does_not_hide_keys():
    row = tokens(1)
    mask = torch.ones_like(row)
    mask[:, :14] = 0
    names = found(llama(), [{"input_ids": row, "attention_mask": mask}])
    assert all(each == ["self_attn.q_proj", "self_attn.o_proj"] for each in names.values())


def test_where_nothing_can_be_told_nothing_is_found():
    assert found(mlp(), [vectors()]) == {}
    assert found(llama(), [{"input_ids": tokens(1)[:, :1]}]) == {}
