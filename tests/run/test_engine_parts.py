"""What the engine gives does not depend on threads, nor on what goes through it together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_engine import BOUNDS, distance, made, prompt, reference

import thresher as th
from thresher.run.engine.session import Session


@pytest.mark.parametrize("name", ["llama", "gemma3", "opt"])
@pytest.mark.parametrize("bits", BOUNDS)
def test_threads_and_chunks_change_nothing(bits, name):
    engine = th.Engine(made(name), bits)
    ids = prompt()
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append((engine.logits(ids), list(engine.tokens(ids, 3))))
    finally:
        torch.set_num_threads(before)
    for logits, tokens in found[1:]:
        assert torch.equal(found[0][0], logits)
        assert tokens == found[0][1]
    assert torch.equal(engine.logits(ids[:67]), found[0][0][:67])


def test_tokens_of_one_at_a_time_are_those_of_chunks():
    engine = th.Engine(made("llama"))
    ids = prompt(20)
    for token in engine.tokens(ids, 200):
        assert token == int(engine.logits(ids)[-1].argmax())
        ids = torch.cat([ids, torch.tensor([token])])
        if len(ids) > 90:
            break


@pytest.mark.parametrize("window", [None, 1, 3, 9, 17])
def test_parts_of_a_text_give_what_the_whole_gives(engine_isa, window):
    changes = {"sliding_window": window, "max_position_embeddings": 512}
    engine = th.Engine(made("mistral", options=("Mistral", changes)))
    ids = prompt(300)
    whole = engine.logits(ids).numpy()
    session = Session(engine.compiled)
    # The cache grows beyond 256 in the middle of a block of keys.
    for end in (1, 2, 5, 70, 250, 251, 270, 300):
        assert np.array_equal(session.logits(ids[:end].numpy())[0], whole[end - 1])


@pytest.mark.parametrize("window", [1, 2, 3])
def test_windows_of_few_tokens(window):
    model = made("mistral", options=("Mistral", {"sliding_window": window}))
    ids = prompt(40)
    assert distance(th.Engine(model).logits(ids), reference(model, ids)) < BOUNDS[None]
