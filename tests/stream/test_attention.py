"""The attention that is read off a model's functions is the one that it reports itself."""

import pytest
import torch
from model_folders import tiny_llama
from small_models import bert, gpt2
from torch.nn import functional

from thresher.stream.attention import WatchingAttention
from thresher.stream.current import running


def tokens(count=2, length=12, vocabulary=60):
    return torch.randint(vocabulary, (count, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [lambda: tiny_llama(layers=1).eval(), gpt2, bert])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_what_the_model_reports(make, implementation, padded):
    model, mask = make(), torch.ones(2, 12, dtype=torch.int64)
    if padded:
        mask[0, 8:] = 0
    arguments = {"input_ids": tokens(), "attention_mask": mask}
    model.set_attn_implementation("eager")
    # Padding asks nothing.
    asked = mask[:, None, :, None]
    attentions = model(**arguments, output_attentions=True).attentions
    reported = sum((a * asked).sum((1, 2)) for a in attentions)
    if padded:
        reported[0, 8:] = reported[0, :8].min()
    model.set_attn_implementation(implementation)
    received = {}
    with WatchingAttention(received), running(arguments, 3):
        model(**arguments)
    assert list(received) == [3]
    torch.testing.assert_close(received[3], reported, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_grouped_heads_scale_and_causal_masks():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 6, 8, generator=generator)
    key, value = torch.randn(2, 2, 2, 6, 8, generator=generator)
    received = {}
    with WatchingAttention(received):
        functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=0.3, enable_gqa=True
        )
    scores = query @ key.repeat_interleave(2, 1).mT * 0.3
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    expected = scores.masked_fill(~causal, -torch.inf).softmax(-1).sum((1, 2))
    torch.testing.assert_close(received[0], expected)


@torch.no_grad()
def test_attention_to_something_else_is_not_counted():
    query, key = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 9, 8)
    received = {}
    with WatchingAttention(received):
        functional.scaled_dot_product_attention(query, key, key)
        torch.randn(1, 2, 6, 9).softmax(-1)
        torch.randn(6, 6).softmax(-1)
    assert received == {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_it_does_not_depend_on_the_default_dtype(dtype):
    query = torch.randn(2, 4, 6, 8)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    found = []
    for default in (torch.float32, dtype):
        torch.set_default_dtype(default)
        try:
            received = {}
            with WatchingAttention(received), running({}, 0):
                functional.scaled_dot_product_attention(query, query, query, attn_mask=mask)
        finally:
            torch.set_default_dtype(torch.float32)
        found.append(received[0])
    assert torch.equal(*found)
