"""A classifier of photographs, a sentence encoder and a language model, really pruned."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

import thresher as th
from thresher.assets import efficientnet_lite0, minilm, smollm2
from thresher.assets.efficientnet_lite import preprocess
from thresher.parts.calibration import embedded_text, token_windows
from thresher.prune.disk import prune_folder
from thresher.prune.memory import as_recipe

pytestmark = pytest.mark.assets


def crops(image: np.ndarray) -> torch.Tensor:
    """Return the four corners of a photograph as the network sees them."""
    height, width = image.shape[0] * 3 // 4, image.shape[1] * 3 // 4
    parts = [image[t:, s:] for t in (0, -height) for s in (0, -width)]
    parts = [np.ascontiguousarray(part[:height, :width]) for part in parts]
    return torch.cat([preprocess(part) for part in parts])


def test_a_convolutional_classifier_keeps_its_answers_better_with_data_than_without():
    photographs = load_sample_images().images
    images = torch.cat([preprocess(image) for image in photographs])
    data = [crops(image) for image in photographs]
    divergence = {}
    for method in ("sparsegpt", "magnitude"):
        model = efficientnet_lite0()
        with torch.inference_mode():
            before = model(images).log_softmax(-1)
        record = th.prune(model, method, data, density=0.7, progress=False)
        assert record.density == pytest.approx(0.7, abs=1e-4)
        names = {layer.name for layer in record.layers}
        assert "classifier" in names
        assert any("stem" in name for name in names)
        with torch.inference_mode():
            after = model(images).log_softmax(-1)
        divergence[method] = float((before.exp() * (before - after)).sum(-1).mean())
    assert divergence["sparsegpt"] < divergence["magnitude"]


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_an_encoder_still_embeds_by_meaning(tmp_path, method):
    from transformers import AutoModel, AutoTokenizer

    folder = minilm()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    windows = token_windows(tokenizer, embedded_text(), length=128, count=8)
    record = prune_folder(folder, tmp_path / "small", as_recipe(method).with_options(0.5), windows)
    assert record.density == pytest.approx(0.5, abs=1e-3)
    assert len(record.layers) == 37  # six in each of six blocks, and the pooler
    sentences = ["A cat sleeps.", "The kitten is napping.", "Interest rates rose again."]
    batch = tokenizer(sentences, return_tensors="pt", padding=True)
    model = AutoModel.from_pretrained(tmp_path / "small").eval()
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    similarity = means @ means.T
    assert similarity[0, 1] > similarity[0, 2] + 0.2


def test_a_language_model_is_better_pruned_with_data_than_without(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    windows = token_windows(tokenizer, embedded_text(), length=128, count=10)
    prune_folder(smollm2(), tmp_path / "out", as_recipe("wanda").with_options(0.5), windows[:8])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    without = AutoModelForCausalLM.from_pretrained(smollm2()).eval()
    th.prune(without, "magnitude", density=0.5, progress=False)
    perplexity, other = (th.perplexity(each, windows[8:]) for each in (model, without))
    assert perplexity < 0.5 * other
