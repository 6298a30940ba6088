"""Several texts in one pass: each gets what it would have got alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_engine import BOUNDS, made, prompt

import thresher as th
from thresher.run import _run
from thresher.run.engine.session import Batch, Session

#: Tokens that each of some texts grows by in passes one after another.
STEPS = [
    (1, 1, 1, 1, 1, 1, 1, 1, 1),
    (70, 1, 30, 2, 1, 1, 64, 1, 5),
    (1, 0, 3, 1, 0, 90, 1, 1, 1),
    (1, 1, 1, 0, 0, 0, 0, 0, 0),
]


def alone(compiled, text):
    return Session(compiled).logits(text, len(text))


def passes(compiled):
    """Yield a text so far, and the logits of its last tokens by a pass with others."""
    batch, texts = Batch(compiled), [prompt(170, seed).numpy() for seed in range(9)]
    sessions, ends = [Session(compiled) for _ in texts], np.zeros(len(texts), int)
    for step in STEPS:
        ends += step
        chosen = [i for i, grown in enumerate(step) if grown]
        wanted = [min(step[i], 1 + i % 3) for i in chosen]
        parts = [(sessions[i], texts[i][: ends[i]], n) for i, n in zip(chosen, wanted, strict=True)]
        for (_, text, count), found in zip(parts, batch.logits(parts), strict=True):
            yield text, count, found


@pytest.mark.parametrize("bits", BOUNDS)
def test_a_text_does_not_depend_on_the_others(engine_isa, bits):
    compiled = th.Engine(made("qwen3"), bits).compiled
    for text, count, found in passes(compiled):
        assert np.array_equal(found, alone(compiled, text)[-count:])


@pytest.mark.parametrize("name", ["llama", "mistral-window", "smollm3", "llama-odd"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_on_several_threads_with_windows_and_odd_sizes(name, threads):
    compiled = th.Engine(made(name)).compiled
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for text, count, found in passes(compiled):
            assert np.array_equal(found, alone(compiled, text)[-count:])
    finally:
        torch.set_num_threads(before)


def test_a_prompt_can_go_in_without_its_logits():
    compiled = th.Engine(made("llama")).compiled
    batch, session, text = Batch(compiled), Session(compiled), prompt(90).numpy()
    assert batch.logits([(session, text[:64], 0)])[0].shape == (0, compiled.vocabulary)
    assert session.common(text) == 64
    assert np.array_equal(session.logits(text), alone(compiled, text)[-1:])


def test_what_cannot_go_through_together_is_refused():
    compiled, other = th.Engine(made("llama")).compiled, th.Engine(made("llama")).compiled
    work, sequence = _run.EngineWork(compiled), _run.EngineSequence(compiled)
    ids, row = np.array([3, 4]), np.empty((1, compiled.vocabulary), np.float32)
    rows = np.empty((3, compiled.vocabulary), np.float32)
    for sequences, tokens, logits, problem in [
        ([], [], [], "are none"),
        ([sequence], [], [], "ids"),
        ([sequence], [ids], [], "logits"),
        ([sequence], [ids[:0]], [row], "is empty"),
        ([sequence], [ids], [rows], "logits"),
        ([sequence], [np.array([-1])], [row], "outside the vocabulary"),
        ([sequence] * 2, [ids] * 2, [row] * 2, "advanced elsewhere"),
        ([_run.EngineSequence(other)], [ids], [row], "another model"),
    ]:
        with pytest.raises(ValueError, match=problem):
            work.advance(sequences, tokens, logits, 1)
        assert sequence.position == 0
    work.advance([sequence], [ids], [row], 1)  # nothing is left held
    assert sequence.position == 2
