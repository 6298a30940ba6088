"""Pretrained models do what they were trained to do."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from thresher.assets import efficientnet_lite0, minilm, smollm2, state_of_the_union
from thresher.assets.efficientnet_lite import EfficientNetLite0, preprocess

pytestmark = pytest.mark.assets


def test_smollm2_predicts_english():
    folder = smollm2()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.config.num_hidden_layers == 30
    ids = AutoTokenizer.from_pretrained(folder)(state_of_the_union(2014, 2014))["input_ids"]
    window = torch.tensor([ids[:512]])
    with torch.inference_mode():
        loss = model(window, labels=window).loss.item()
    assert 15 < np.exp(loss) < 35


def test_minilm_embeds_by_meaning():
    folder = minilm()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    sentences = ["A cat sleeps.", "The kitten is napping.", "Interest rates rose again."]
    batch = tokenizer(sentences, return_tensors="pt", padding=True)
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    similarity = means @ means.T
    assert similarity[0, 1] > 0.5 > 0.2 > similarity[0, 2]


def test_efficientnet_lite0_recognises_photographs():
    photographs = load_sample_images().images
    batch = torch.cat([preprocess(image) for image in photographs])
    model = efficientnet_lite0()
    with torch.inference_mode():
        classes = model(batch).argmax(dim=1).tolist()
    palace, daisy = 698, 985
    assert classes == [palace, daisy]


def test_efficientnet_lite0_has_the_published_size():
    model = EfficientNetLite0(classes=10)
    # 4.65 million with 1000 classes, as published.
    assert sum(p.numel() for p in model.parameters()) == 4_652_008 - 990 * 1281
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)
