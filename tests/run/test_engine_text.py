"""Choosing tokens, and text from tokens as they come."""

from __future__ import annotations

import numpy as np
import pytest
from model_folders import byte_tokenizer

from thresher.run.engine.sampling import Sampler, _drawn
from thresher.run.engine.text import TextStream
from thresher.run.engine.token import Token, likeliest

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.25, 0.2], np.float32))


def frequencies(count=4000, **options):
    sampler = Sampler(seed=0, **options)
    generator = sampler.generator()
    drawn = [sampler.choose(LOGITS, generator, np.array([3, 1, 3])) for _ in range(count)]
    return np.bincount(drawn, minlength=len(LOGITS)) / count


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, [0.1, 0.4, 0.05, 0.25, 0.2]),
        ({"temperature": 1.0, "top_k": 2}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"temperature": 1.0, "top_p": 0.6}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"temperature": 1.0, "top_p": 0.39}, [0, 1, 0, 0, 0]),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.7}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"temperature": 1.0, "min_p": 0.45}, [0, 0.4, 0, 0.25, 0.2]),
        ({"temperature": 1.0, "min_p": 0.0}, [0.1, 0.4, 0.05, 0.25, 0.2]),
        ({"temperature": 1.0, "top_p": 0.6, "min_p": 0.7}, [0, 1, 0, 0, 0]),
        ({"temperature": 1.0, "repetition_penalty": 2.0}, [0.1, 0.16, 0.05, 0.0625, 0.2]),
        ({"repetition_penalty": 2.0}, [0, 0, 0, 0, 1]),
        ({"temperature": 0.5}, [0.01, 0.16, 0.0025, 0.0625, 0.04]),
        ({"temperature": 0.0, "top_k": 4}, [0, 1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_are_likely(options, expected):
    expected = np.array(expected) / np.sum(expected)
    noise = 4 * np.sqrt(expected * (1 - expected) / 4000)
    assert np.all(np.abs(frequencies(**options) - expected) <= noise + 1e-9)


@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])
@pytest.mark.parametrize("top_p", [0.1, 0.7, 0.999, 1.0])
def test_few_of_many_tokens_are_sorted_and_none_is_lost(spread, top_p):
    draw = np.random.default_rng(0)
    for seed in range(40):
        logits = (draw.standard_normal(3000) * spread).astype(np.float32)
        order = np.argsort(-logits, kind="stable")
        likely = np.exp(logits[order] - logits.max()).astype(np.float64)
        likely /= likely.sum()
        kept = int(np.searchsorted(likely.cumsum(), top_p)) + 1
        sums = likely[:kept].cumsum() / likely[:kept].sum()
        expected = order[np.searchsorted(sums, np.random.default_rng(seed).random())]
        sampler = Sampler(temperature=1.0, top_p=top_p, seed=seed)
        assert sampler.choose(logits, sampler.generator(), order[:0]) == expected


@pytest.mark.parametrize("size", [1, 255, 256, 257, 3000])
def test_a_draw_over_blocks_is_that_over_all(size):
    shares = np.random.default_rng(size).random(size).astype(np.float32)
    shares[::3] = 0
    shares[-1] = size == 1
    sums = shares.cumsum(dtype=np.float64)
    for uniform in [0.0, *np.random.default_rng(1).random(200), np.nextafter(1.0, 0.0)]:
        found = _drawn(shares, uniform)
        assert shares[found] > 0
        before = sums[found - 1] if found else 0.0
        assert before - 1e-9 <= uniform * sums[-1] <= sums[found] + 1e-9


def test_the_coldest_temperature_takes_the_likeliest():
    for temperature in (1e-320, 1e-40, 1e-6):
        sampler = Sampler(temperature=temperature, seed=0)
        assert sampler.choose(LOGITS, sampler.generator(), np.array([0])) == 1


def streamed(text, stop=(), prompt=""):
    tokenizer = byte_tokenizer()
    encoded = tokenizer(text)["input_ids"]
    stream = TextStream(tokenizer, tokenizer(prompt)["input_ids"] if prompt else [], stop)
    pieces = []
    for token in encoded:
        pieces.append(stream.add(Token(token)))
        if stream.stopped:
            break
    pieces.append(stream.rest())
    return pieces


@pytest.mark.parametrize("prompt", ["", "so: ", "é"])
def test_characters_come_whole(prompt):
    pieces = streamed("naïve 漢字 🌾!", prompt=prompt)
    assert "".join(pieces) == "naïve 漢字 🌾!"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert sum(bool(piece) for piece in pieces) == len("naïve 漢字 🌾!")


def test_half_a_character_at_the_end_is_not_lost():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, [], ())
    token = Token(tokenizer("é")["input_ids"][0])
    assert stream.add(token) == ""
    assert stream.rest() == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one END two", ["END"], "one "),
        ("one ENTER", ["END"], "one ENTER"),
        ("one EN", ["END"], "one EN"),
        ("aab", ["ab"], "a"),
        ("xyz", ["z", "yz"], "x"),
        ("🌾🌾", ["🌾"], ""),
    ],
)
def test_text_ends_before_a_stop_string(text, stop, expected):
    assert "".join(streamed(text, stop)) == expected


def test_tokens_come_with_the_piece_that_they_complete():
    pieces = streamed("aé🌾b")
    assert [(piece, len(piece.tokens)) for piece in pieces if piece] == [
        ("a", 1),
        ("é", 2),
        ("🌾", 4),
        ("b", 1),
    ]
    held = [(str(piece), len(piece.tokens)) for piece in streamed("one ENTER", ["END"]) if piece]
    assert held == [("o", 1), ("n", 1), ("e", 1), (" ", 1), ("ENT", 3), ("ER", 2)]
    assert sum(len(piece.tokens) for piece in streamed("one END two", ["END"])) == 4


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_log_probabilities_are_of_the_logits_themselves(count):
    logits = LOGITS * 7 + 3
    expected = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    for token in range(len(logits)):
        found, top = likeliest(logits, token, count)
        assert found == pytest.approx(expected[token])
        assert [each for each, _ in top] == [1, 3, 4, 0, 2][:count]
        assert [value for _, value in top] == pytest.approx(sorted(expected)[::-1][:count])


def test_ties_come_in_the_order_of_tokens():
    logits = np.array([2, 0, 2, 1, 2, 1], np.float32)
    assert [each for each, _ in likeliest(logits, 0, 2)[1]] == [0, 2]
    assert [each for each, _ in likeliest(logits, 0, 4)[1]] == [0, 2, 4, 3]
