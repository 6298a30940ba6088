"""Tokens that only fill up a batch are no calibration data."""

import copy

import torch
from small_models import llama, mlp
from torch import nn

import thresher as th
from thresher.parts.coverage import find_layers
from thresher.parts.moments import Norm
from thresher.stream.collect import collect_inputs
from thresher.stream.current import running

LENGTHS = (12, 5, 3)


def texts():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(2, 60, (1, length), generator=generator) for length in LENGTHS]


def padded():
    ids = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts()):
        ids[row, : text.shape[1]] = text[0]
        mask[row, : text.shape[1]] = 1
    return {"input_ids": ids, "attention_mask": mask}


def inputs(model, samples):
    def run():
        for sample in samples:
            with running(sample):
                model(**sample)

    return collect_inputs(model, find_layers(model), {Norm}, run)


def test_layers_see_the_tokens_that_are_no_padding():
    model = llama()
    right = inputs(model, [{"input_ids": text} for text in texts()])
    for name, found in inputs(model, [padded()]).items():
        assert found.tokens == sum(LENGTHS)
        torch.testing.assert_close(found[Norm].value, right[name][Norm].value)


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, input_ids, attention_mask=None):
        return self.layers(input_ids.flatten(0, 1))


def test_flattened_tokens_are_told_too():
    sample = {"input_ids": torch.randn(2, 4, 16), "attention_mask": torch.ones(2, 4)}
    sample["attention_mask"][1, 1:] = 0
    found = inputs(Flat(), [sample])["layers.0"]
    real = sample["input_ids"][sample["attention_mask"] == 1]
    torch.testing.assert_close(found[Norm].value, real.square().mean(0).sqrt())


def test_a_decoder_does_not_have_its_encoders_mask():
    from transformers import T5Config, T5ForConditionalGeneration

    small = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1}
    config = T5Config(**small, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    sample = padded()
    sample["decoder_input_ids"] = sample["input_ids"]
    found = inputs(model, [sample])
    layer = "block.0.layer.0.SelfAttention.q"
    assert found[f"encoder.{layer}"].tokens == sum(LENGTHS)
    assert found[f"decoder.{layer}"].tokens == len(LENGTHS) * max(LENGTHS)


def test_a_padded_batch_gives_the_masks_of_its_texts():
    one, other = llama(), copy.deepcopy(llama())
    th.prune(one, "wanda", [{"input_ids": t} for t in texts()], density=0.5, progress=False)
    th.prune(other, "wanda", padded(), density=0.5, progress=False)
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left != 0, right != 0)
