"""Dropped inputs in the engine: the same channels as in torch, the same numbers as without."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from model_folders import save_folder
from test_engine import distance, made, prompt, reference
from test_engine_store import places

import thresher as th
from thresher.core.errors import CheckpointError, LayerError, OptionError, ThresherError
from thresher.parts.activations.attached import attach, attached
from thresher.parts.activations.selection import Threshold
from thresher.run.engine.formats import encode, lay_out
from thresher.run.engine.store import STORE_FILE

SHAPES = ((16, 32), (72, 44), (130, 65), (256, 320))


def activated(name, method="teal", sparsity=0.5, **options):
    data = torch.stack([prompt(24, seed) for seed in range(6)])
    return th.activate(made(name), method, data, sparsity=sparsity, progress=False, **options)


def multiplied(panels, x):
    y = np.empty((len(x), panels.rows), np.float32)
    panels.build().multiply(np.ascontiguousarray(x.numpy()), y)
    return torch.from_numpy(y)


def matrices(rows, columns, minimums, thresholds):
    """Return a matrix by rows and by channels, of the very same numbers."""
    torch.manual_seed(rows)
    matrix = encode("weight", torch.randn(rows, columns), "int4")
    if not minimums:
        matrix = type(matrix)(**vars(matrix) | {"minimums": None})
    bias = torch.randn(rows)
    return lay_out(matrix, bias), lay_out(matrix, bias, thresholds)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("minimums", [True, False])
def test_products_are_those_of_masked_inputs_bit_for_bit(engine_isa, rows, columns, minimums):
    thresholds = torch.rand(columns)
    whole, channels = matrices(rows, columns, minimums, thresholds)
    assert (whole.form, channels.form) == ("int4", "channels")
    x = torch.randn(11, columns)
    x[3, : columns // 2] = 0
    x[4] = 0
    masked = Threshold(thresholds)(x)
    assert 0 < int((masked == 0).sum()) < x.numel()
    expected = multiplied(whole, masked)
    assert torch.equal(multiplied(channels, x), expected)
    for i in range(len(x)):
        assert torch.equal(multiplied(channels, x[i : i + 1]), expected[i : i + 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_heard_of(engine_isa, value):
    _, channels = matrices(72, 96, True, torch.full((96,), 0.5))
    x = torch.zeros(2, 96)
    x[:, 40] = value
    for given in (x, x[:1]):
        assert bool(multiplied(channels, given).isnan().all())


def test_channels_hold_the_same_numbers():
    whole, channels = matrices(130, 65, True, torch.ones(65))
    dense = [np.empty((130, 65), np.float32) for _ in range(2)]
    for panels, values in zip((whole, channels), dense, strict=True):
        panels.build().dequantize(values)
    assert np.array_equal(*dense)


def in_bytes(module, args):
    """Round what a layer multiplies as the engine does, after inputs were dropped."""
    x = args[0]
    width = x.shape[-1]
    groups = torch.nn.functional.pad(x, (0, -width % 32)).unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    rounded = (groups / scale.clamp_min(1e-30)).round() * scale
    return (rounded.flatten(-2)[..., :width],)


def as_engine(model):
    """Have a model multiply the numbers that the engine multiplies, in torch, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                form = "int4" if "layers" in name else "int8"
                parameter.copy_(encode(name, parameter, form).dense())
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(in_bytes)
    return model


def check_agrees(engine, model):
    """Check that many of some short texts get the very same numbers, up to the order of sums.

    In others an input lies on a threshold, or between two bytes, and falls to another side of it.
    """
    texts = [prompt(3, seed) for seed in range(16)]
    found = [engine.logits(ids) for ids in texts]
    as_engine(model)
    apart = [distance(each, reference(model, ids)) for each, ids in zip(found, texts, strict=True)]
    assert sum(each < 1e-5 for each in apart) >= 6, apart


@pytest.mark.parametrize("method", ["teal", "wina"])
@pytest.mark.parametrize("name", ["llama", "llama-odd", "llama-biases", "llama-tied", "qwen3"])
def test_channels_are_those_of_the_torch_path(name, method):
    model = activated(name, method)
    check_agrees(th.Engine(model, 4), model)


@pytest.mark.parametrize("name", ["llama", "llama-odd", "smollm3"])
def test_without_sparsity_it_is_the_dense_engine_bit_for_bit(engine_isa, name):
    ids = prompt(30)
    dense = th.Engine(made(name), 4)
    engine = th.Engine(activated(name, sparsity=0.0), 4)
    assert engine._loaded.data.layers[0].down.form == "channels"
    assert torch.equal(engine.logits(ids), dense.logits(ids))
    assert list(engine.tokens(ids, 9)) == list(dense.tokens(ids, 9))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_token_does_not_depend_on_what_goes_through_with_it(engine_isa, threads):
    engine = th.Engine(activated("llama-odd"), 4)
    ids = prompt(40)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        together = engine.logits(ids)
        session = th.run.engine.session.Session(engine.compiled)
        alone = [session.logits(ids[: i + 1].numpy())[0] for i in range(len(ids))]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.from_numpy(np.stack(alone)), together)


def test_some_layers_may_stay_dense():
    model = activated("llama", exclude=["*.k_proj", "*.v_proj", "*.gate_proj", "*.o_proj"])
    layer = th.Engine(model, 4)._loaded.data.layers[0]
    assert [part.form for part in layer.qkv] == ["channels", "int4", "int4"]
    assert [part.form for part in layer.gate_up] == ["int4", "channels"]
    assert (layer.out.form, layer.down.form) == ("int4", "channels")
    check_agrees(th.Engine(model, 4), model)


def test_the_head_may_drop_inputs_too():
    model = made("llama")
    attach("lm_head", model.lm_head, Threshold(torch.tensor(0.7)))
    ids = prompt(30)
    engine = th.Engine(model, 4)
    assert distance(engine.logits(ids), th.Engine(made("llama"), 4).logits(ids)) > 0.1
    check_agrees(engine, model)


def test_a_packed_folder_holds_the_same_model(tmp_path):
    save_folder(activated("qwen3"), tmp_path / "sparse")
    engine = th.Engine(tmp_path / "sparse", 4)
    engine.save(tmp_path / "fast")
    assert json.loads((tmp_path / "fast" / STORE_FILE).read_text())["version"] == 2
    ids = prompt(40)
    assert torch.equal(th.Engine(tmp_path / "fast").logits(ids), engine.logits(ids))


def test_folders_without_thresholds_stay_as_they_were(tmp_path):
    th.Engine(made("llama"), 4).save(tmp_path / "fast")
    assert json.loads((tmp_path / "fast" / STORE_FILE).read_text())["version"] == 1


def test_damaged_descriptions_end_in_an_error(tmp_path):
    th.Engine(activated("llama"), 4).save(tmp_path / "fast")
    path = tmp_path / "fast" / STORE_FILE
    whole = path.read_text()
    for place in places(json.loads(whole)["model"]["layers"][1], ("model", "layers", 1)):
        if place[3] in ("rotary", "window") or place[-1] == "unit":
            continue  # other numbers mean another model
        for value in (None, -1, 2**70, "text", [], {}, 97):
            said = json.loads(whole)
            holder = said
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = value
            path.write_text(json.dumps(said))
            with pytest.raises(ThresherError):
                th.Engine(tmp_path / "fast")


def test_thresholds_of_another_size_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    th.Engine(activated("llama"), 4).save(tmp_path / "fast")
    arrays = load_file(tmp_path / "fast" / "engine.safetensors")
    arrays["layers.0.out.thresholds"] = torch.ones(7)
    save_file(arrays, tmp_path / "fast" / "engine.safetensors")
    with pytest.raises(CheckpointError, match="'thresholds' has 7 entries, expected 48"):
        th.Engine(tmp_path / "fast")


@pytest.mark.parametrize("bits", [None, 8])
def test_other_bits_are_refused(bits):
    with pytest.raises(OptionError, match=r"in 4 bits alone.*bits=4"):
        th.Engine(activated("llama"), bits)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("cats", {}, r"mlp\.gate_proj' drops outputs by 'threshold'"),
        ("wina", {"rule": "top-k"}, "drops inputs by 'top-k'"),
        ("r-sparse", {}, "drops inputs by 'rank-split'"),
    ],
)
def test_other_selections_are_refused_by_name(method, options, said):
    model = activated("llama", method, **options)
    with pytest.raises(LayerError, match=said):
        th.Engine(model, 4)
    assert attached(model)


def test_decoding_is_timed_beside_the_dense_engine(tmp_path):
    from thresher.run.measure.engines import bench_engines, rival_bits

    packed = th.Engine(activated("llama"), 4)
    dense = th.Engine(made("llama"), rival_bits(packed))
    assert dense.data.layers[0].down.form == "int4"
    found = bench_engines(dense, packed, new_tokens=3, repeats=2)
    assert found.speedup == found.tokens_per_second["packed"] / found.tokens_per_second["dense"]
    assert min(found.tokens_per_second.values()) > 0
    assert all(len(seconds) >= 2 for seconds in found.seconds.values())
    assert found.weight_bytes["packed"] >= found.weight_bytes["dense"]
    assert rival_bits(th.Engine(made("llama"), 8)) == 8
    assert rival_bits(th.Engine(made("llama"))) is None
    with pytest.raises(OptionError, match="ask for at most 240"):
        bench_engines(dense, packed, new_tokens=241)
