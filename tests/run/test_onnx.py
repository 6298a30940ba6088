"""Models in ONNX, run by onnxruntime."""

import json
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from model_folders import save_folder, tiny_llama
from torch import nn

import thresher as th
from thresher.cli import main
from thresher.core.errors import CheckpointError, LayerError, MissingPackageError, OptionError
from thresher.run.files import onnx as exporting


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@pytest.fixture
def runtime():
    pytest.importorskip("onnxscript", reason="thresher[onnx]")
    return pytest.importorskip("onnxruntime", reason="thresher[onnx]")


def outputs(runtime, folder, *inputs):
    session = runtime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))[0]


def test_a_shrunk_network_runs_in_onnxruntime_and_is_smaller(runtime, tmp_path):
    dense, x = network(), torch.randn(1, 3, 8, 8)
    small = th.prune(dense, "spa", density=0.5, example=x, progress=False)
    for name, model in {"dense": dense, "small": small}.items():
        th.export_onnx(model, tmp_path / name, x)
    many = torch.randn(5, 3, 8, 8)
    found = outputs(runtime, tmp_path / "small", many)
    expected = small.eval()(many).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("small", "dense")]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_length_are_refused(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "check_installed", lambda: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    model = tiny_llama(layers=1)
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": kind}
    with pytest.raises(LayerError, match=f"'{kind}' depend on how long a text is"):
        th.export_onnx(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sparse_language_model_is_exported_by_the_command(runtime, tmp_path):
    model = tiny_llama(layers=1)
    th.prune(model, "magnitude", pattern="2:4", progress=False)
    save_folder(model, tmp_path / "dense")
    th.save(model, tmp_path / "small")
    result = CliRunner().invoke(
        main, ["export", str(tmp_path / "small"), str(tmp_path / "plain"), "--onnx"]
    )
    assert result.exit_code == 0, (result.output, result.exception)
    ids = torch.randint(256, (1, 11))
    found = outputs(runtime, tmp_path / "plain", ids, torch.ones_like(ids))
    expected = model.eval()(input_ids=ids).logits.detach().numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert "quantization_config" not in config


def test_another_answer_in_onnxruntime_is_refused(runtime, tmp_path, monkeypatch):
    class Other:
        def __init__(self, session):
            self._session = session

        def __getattr__(self, name):
            return getattr(self._session, name)

        def run(self, *given):
            return [values + 0.01 for values in self._session.run(*given)]

    compare = exporting._compare
    monkeypatch.setattr(exporting, "_compare", lambda s, *given: compare(Other(s), *given))
    with pytest.raises(CheckpointError, match=r"gives something else: off by 0\.01"):
        th.export_onnx(nn.Linear(4, 2), tmp_path / "out", torch.ones(2, 4))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_told_before_anything_is_written(runtime, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OptionError, match="pass an example"):
        th.export_onnx(network(), out)
    with pytest.raises(OptionError, match="whose first axis is the batch"):
        th.export_onnx(network(), out, torch.tensor(1.0))
    with pytest.raises(LayerError, match=r"'0\.weight' is torch\.bfloat16 on cpu"):
        th.export_onnx(network().bfloat16(), out, torch.ones(1, 3, 8, 8))
    packed = network()
    th.prune(packed, "magnitude", density=0.5, progress=False)
    packed[7] = th_packed(packed[7])
    with pytest.raises(LayerError, match=r"layer '7' .* is packed"):
        th.export_onnx(packed, out, torch.ones(1, 3, 8, 8))
    assert not list(tmp_path.iterdir())


def th_packed(layer):
    from thresher.run.layouts.masked import Bitmask
    from thresher.run.packed.linear import PackedLinear

    return PackedLinear(Bitmask.from_dense(layer.weight.detach()), layer.bias)


def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"thresher\[onnx\]"):
        th.export_onnx(nn.Linear(4, 2), tmp_path / "out", torch.ones(2, 4))


def test_onnx_and_gguf_are_two_formats(llama_folder, tmp_path):
    said = CliRunner().invoke(
        main, ["export", str(llama_folder), str(tmp_path / "model.gguf"), "--onnx"]
    )
    assert said.exit_code == 1
    assert "folder" in said.output
