"""Texts that models write after the same beginnings."""

import torch
from model_folders import byte_tokenizer, tiny_llama

from thresher.run.continuations import sample_texts

TEXT = "Sparsity is one question asked in many places: what do we keep? " * 6


def windows(count: int, length: int) -> torch.Tensor:
    ids = byte_tokenizer()(TEXT[: count * length])["input_ids"]
    return torch.tensor(ids).view(count, length)


def test_each_model_goes_on_greedily_where_the_text_is_cut():
    tokenizer, cut = byte_tokenizer(), windows(4, 90)
    models = {"dense": tiny_llama(), "pruned": tiny_llama(hidden=64)}
    # What its own settings say of drawing tokens does not count.
    models["dense"].generation_config.do_sample = True
    models["dense"].generation_config.repetition_penalty = 9.0
    found = sample_texts({name: lambda m=m: m for name, m in models.items()}, tokenizer, cut)
    assert [each["prompt"] for each in found] == [tokenizer.decode(cut[i, :32]) for i in (0, 1, 3)]
    assert found[1]["text"] == tokenizer.decode(cut[1, 32:80])
    assert all(model.training for model in models.values())
    for name, model in models.items():
        ids = cut[3:, :32]
        with torch.no_grad():
            for _ in range(48):
                last = model.eval()(input_ids=ids).logits[:, -1]
                ids = torch.cat([ids, last.argmax(-1, keepdim=True)], dim=1)
        assert found[2][name] == tokenizer.decode(ids[0]).removeprefix(found[2]["prompt"])


def test_short_windows_are_begun_with_their_first_half():
    (found,) = sample_texts({"dense": tiny_llama}, byte_tokenizer(), windows(1, 20))
    assert (found["prompt"], found["text"]) == (TEXT[:10], TEXT[10:20])
