"""Which loss gradients are taken of where none is passed."""

import pytest
import torch
from small_models import VOCABULARY, llama, tokens
from torch import nn

import thresher as th
from thresher.core.errors import OptionError
from thresher.prune.losses import default_loss

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def masked_lm():
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(**SMALL)).eval()


def classifier():
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**SMALL, num_labels=3)).eval()


def encoder_decoder():
    from transformers import T5Config, T5ForConditionalGeneration

    small = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1}
    config = T5Config(**small, num_heads=2, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


def test_a_samples_own_labels_are_what_counts():
    ids = tokens()[:2]
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < 5, -100)
    sample = {"input_ids": ids, "labels": labels}
    model = llama()
    torch.testing.assert_close(default_loss(model, sample), model(**sample).loss)


def test_tokens_that_fill_up_are_not_predicted():
    model, ids = llama(), tokens()[:2].clone()
    mask = torch.ones_like(ids)
    mask[:, 6:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    right = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    found = default_loss(model, {"input_ids": ids, "attention_mask": mask})
    torch.testing.assert_close(found, right)
    assert not torch.isclose(right, model(input_ids=ids, attention_mask=mask, labels=ids).loss)


@pytest.mark.parametrize("make", [masked_lm, classifier, encoder_decoder])
def test_models_that_predict_something_else_need_labels(make):
    with pytest.raises(OptionError, match="labels that it is trained on, or pass loss="):
        default_loss(make(), {"input_ids": tokens()[:2]})


@pytest.mark.parametrize(
    ("make", "labels"),
    [
        (masked_lm, tokens()[:2]),
        (classifier, torch.tensor([0, 2])),
        (encoder_decoder, tokens()[:2, :4].contiguous()),
    ],
)
def test_they_are_pruned_with_their_own_labels(make, labels):
    model = make()
    sample = {"input_ids": tokens()[:2], "labels": labels}
    torch.testing.assert_close(default_loss(model, sample), model(**sample).loss)
    recipe = th.Recipe(score=th.scores.GradientMagnitude(), density=0.5)
    assert th.prune(model, recipe, [sample], progress=False).density == 0.5


def test_other_models_need_a_loss():
    with pytest.raises(OptionError, match="pass loss="):
        default_loss(nn.Linear(4, 4), torch.ones(1, 4))
