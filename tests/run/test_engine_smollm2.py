"""The engine on a real model: logits, perplexity and text beside transformers in float32."""

from __future__ import annotations

import pytest
import torch

import thresher as th
from thresher.assets import smollm2, smollm2_gguf

pytestmark = pytest.mark.assets

TEXT = (
    "A river carries stones down from the mountains, rounding them as they go, and lays them down "
    "where the valley opens and the water slows. In spring, when the snow melts, it carries more "
    "of them, and the bed that it leaves behind in summer is wide and white. Farmers used to build "
    "walls from those stones, without mortar, and some of these have stood for three hundred years."
)
#: Relative distance of logits from the average of each position, and factor of perplexity; four
#: bits are the model's own, as it is published in so many.
BOUNDS = {None: (1e-4, 1.0001), 8: (0.05, 1.02), 4: (0.05, 1.02)}


PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):",
    "Water boils at",
    "The three primary colours are",
    "Once upon a time, in a small village,",
    "import numpy as np\n\n",
    "To make bread you need",
    "The largest planet of the solar system",
    "Dear Sir or Madam,",
    "In 1969,",
    "She opened the door and",
    "SELECT name FROM",
    "The opposite of hot is",
    "Photosynthesis is the process by which",
    "1, 2, 3, 4,",
    "My favourite colour is",
    "According to the law,",
    "The train to Vienna leaves",
    "<html>\n<head>",
    TEXT,
)


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2()).bfloat16().float().eval()


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2())


@pytest.mark.parametrize("bits", BOUNDS)
def test_logits_and_perplexity(model, tokenizer, bits):
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0]
    found = th.Engine(model, bits).logits(ids[0])
    centred = [logits - logits.mean(1, keepdim=True) for logits in (found, expected)]
    most, factor = BOUNDS[bits]
    distance = float((centred[0] - centred[1]).norm() / centred[1].norm())
    losses = [torch.nn.functional.cross_entropy(x[:-1], ids[0, 1:]) for x in (found, expected)]
    worse = float((losses[0] - losses[1]).exp())
    assert distance < most, worse
    assert worse < factor, distance


def test_the_gguf_file_runs_as_it_is(model, tokenizer):
    """Beside its own numbers in float32 only inputs of products are rounded, to eight bits."""
    engine = th.Engine(smollm2_gguf())
    assert (engine._loaded.data.layers[0].qkv.form, engine._loaded.data.embedding.form) == (
        "int4",
        "int8",
    )
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"][0]
    rounded = th.Engine(model, 8).logits(ids)
    found = engine.logits(ids)
    losses = [torch.nn.functional.cross_entropy(x[:-1], ids[1:]) for x in (found, rounded)]
    assert abs(float(losses[0] - losses[1])) < 0.02
    prompt = "The capital of France is"
    assert engine.tokenizer(prompt)["input_ids"] == tokenizer(prompt)["input_ids"]
    assert engine.generate(prompt, max_new_tokens=3).startswith(" Paris")


def test_greedy_text_is_that_of_transformers(model, tokenizer):
    engine = th.Engine(model, tokenizer=tokenizer)
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, max_new_tokens=16, do_sample=False, pad_token_id=0)
        expected = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert engine.generate(prompt, max_new_tokens=16) == expected


def test_the_folder_as_it_is_stored_runs():
    """Its own passes are in bfloat16, and lie much further from exact ones than the engine's."""
    engine = th.Engine(smollm2())
    assert engine.generate("The capital of France is", max_new_tokens=3).startswith(" Paris")
