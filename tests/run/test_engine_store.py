"""Folders of the engine's own: the same model, at once, and damaged ones refused."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import byte_tokenizer
from small_models import llama
from test_engine import made, prompt

import thresher as th
from thresher.core.errors import CheckpointError, OptionError, ThresherError
from thresher.run.engine.store import STORE_FILE

ARRAYS = "engine.safetensors"
MAPS = Path("/proc/self/maps")


@pytest.mark.parametrize(
    "name",
    [
        *("gemma2", "gemma3", "gpt2", "gpt2-odd", "llama-odd", "llama-tied", "llama-biases", "opt"),
        *("phi3", "qwen3", "smollm3"),
    ],
)
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_folder_holds_the_same_model(tmp_path, name, bits):
    engine = th.Engine(made(name), bits)
    engine.save(tmp_path / "fast")
    again = th.Engine(tmp_path / "fast")
    ids = prompt(70)
    assert torch.equal(again.logits(ids), engine.logits(ids))
    assert list(again.tokens(ids, 20)) == list(engine.tokens(ids, 20))
    assert again.context == engine.context


def test_float16_stays_float16(tmp_path):
    model = made("llama").half()
    engine = th.Engine(model)
    engine.save(tmp_path / "fast")
    again = th.Engine(tmp_path / "fast")
    held = again._loaded.data.layers[0].down
    assert held.form == "float16"
    weight = model.model.layers[0].mlp.down_proj.weight
    dense = np.empty((held.rows, held.columns), np.float32)
    held.build().dequantize(dense)
    assert torch.equal(torch.from_numpy(dense)[:, : weight.shape[1]], weight.float())


def test_the_tokenizer_comes_along(tmp_path):
    engine = th.Engine(llama(vocab_size=256, max_position_embeddings=128), 8, byte_tokenizer())
    engine.save(tmp_path / "fast")
    again = th.Engine(tmp_path / "fast")
    assert again.generate("sparse", max_new_tokens=9) == engine.generate("sparse", max_new_tokens=9)


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux lists what is mapped")
def test_arrays_are_mapped_and_not_read(tmp_path):
    th.Engine(made("llama"), 8).save(tmp_path / "fast")
    held = th.Engine(tmp_path / "fast")._loaded.data.layers[1].qkv.codes
    assert not held.flags.owndata
    assert str(tmp_path / "fast" / ARRAYS) in MAPS.read_text()


def test_what_is_there_is_not_overwritten(tmp_path):
    engine = th.Engine(made("llama"), 8)
    engine.save(tmp_path / "fast")
    with pytest.raises(OptionError, match="exists"):
        engine.save(tmp_path / "fast")


def test_packed_folders_are_not_rounded_again(tmp_path):
    th.Engine(made("llama"), 8).save(tmp_path / "fast")
    with pytest.raises(OptionError, match="packed already, and bits is 4"):
        th.Engine(tmp_path / "fast", 4)


def test_other_versions_are_refused(tmp_path):
    th.Engine(made("llama"), 8).save(tmp_path / "fast")
    path = tmp_path / "fast" / STORE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 5}))
    with pytest.raises(CheckpointError, match="version 5; this Thresher reads"):
        th.Engine(tmp_path / "fast")


def places(said, place=()):
    """Yield where everything in JSON is."""
    entries = said.items() if isinstance(said, dict) else enumerate(said)
    for key, value in entries:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from places(value, (*place, key))


def test_damaged_descriptions_end_in_an_error(tmp_path):
    """Whatever is missing or of another kind or size; only some numbers mean another model."""
    th.Engine(made("qwen3"), 4).save(tmp_path / "fast")
    path = tmp_path / "fast" / STORE_FILE
    whole = path.read_text()
    chosen = random.Random(0)
    free = {"window", "rotary", "epsilon", "rotary_scale", "unit", "context", "ends", 0}
    free |= {"embedding_scale", "score_scale", "score_cap", "logit_cap"}
    for place in places(json.loads(whole)):
        for value in (None, -1, 2**70, "text", [], chosen.randrange(100)):
            said = json.loads(whole)
            holder = said
            for key in place[:-1]:
                holder = holder[key]
            if value == holder[place[-1]] or (place[-1] in free and value is not None):
                continue
            holder[place[-1]] = value
            path.write_text(json.dumps(said))
            try:
                th.Engine(tmp_path / "fast")
            except ThresherError:
                continue
            assert place[-1] in ("layers", "intermediate", "rotary", "ends", "context"), (
                place,
                value,
            )


def test_damaged_arrays_end_in_an_error(tmp_path):
    th.Engine(made("llama"), 8).save(tmp_path / "fast")
    path = tmp_path / "fast" / ARRAYS
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    chosen = random.Random(0)
    for size in (0, 5, header - 1, header, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            th.Engine(tmp_path / "fast")
    for _ in range(200):
        held = bytearray(whole)
        held[chosen.randrange(header)] = chosen.randrange(256)
        path.write_bytes(held)
        try:
            th.Engine(tmp_path / "fast")
        except ThresherError:
            continue
    path.unlink()
    with pytest.raises(CheckpointError, match="thresher pack"):
        th.Engine(tmp_path / "fast")
