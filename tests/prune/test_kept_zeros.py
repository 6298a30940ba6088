"""Kept weights that are zero are counted, so that records are held against weights fairly."""

import warnings
from dataclasses import replace

import pytest
import torch
from model_folders import tiny_llama
from torch import nn

import thresher as th
from thresher.prune.record import LayerRecord, PruneRecord
from thresher.report.coverage import coverage_rows
from thresher.workflow import read_record


def with_dead_inputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16, bias=False))
    x = torch.randn(64, 16)
    x[:, :8] = 0
    return model, x


def test_weights_of_dead_inputs_are_kept_zeros():
    model, x = with_dead_inputs()
    record = th.prune(model, "sparsegpt", [x], pattern="2:4", progress=False)
    (layer,) = record.layers
    assert layer.kept == 128
    assert layer.zeros == 128 - int(torch.count_nonzero(model[0].weight)) > 0
    assert "of the kept are zero" in repr(record)
    assert "kept, and zero all the same" in coverage_rows(record)


def test_a_record_fits_with_and_without_its_zeros():
    model, x = with_dead_inputs()
    record = th.prune(model, "sparsegpt", [x], pattern="2:4", progress=False)
    assert record.recounted({"0": 128}) is record
    assert record.recounted({"0": int(torch.count_nonzero(model[0].weight))}) is record
    changed = record.recounted({"0": 200})
    assert (changed.layers[0].kept, changed.layers[0].zeros) == (200, 0)
    assert changed.notable_zeros == 0


def test_saving_does_not_say_that_the_model_was_changed(tmp_path):
    model = tiny_llama(layers=1)
    weight = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[:, : weight.shape[1] * 3 // 4] = 0
    record = th.prune(model, "magnitude", density=0.5, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        th.save(model, tmp_path / "out", record)


@pytest.mark.parametrize("again", [{"density": 0.7}, {"density": 0.3}, {"pattern": "2:4"}])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_nor_of_a_model_that_is_pruned_again(again, method, tmp_path):
    model = tiny_llama(layers=1)
    data = torch.arange(64).reshape(2, 32)
    th.prune(model, method, data, density=0.5, progress=False)
    record = th.prune(model, method, data, **again, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        th.save(model, tmp_path / "out")
    assert read_record(tmp_path / "out").to_json() == record.to_json()


def test_ordinary_records_do_not_speak_of_zeros():
    record = th.prune(nn.Sequential(nn.Linear(16, 16)), "magnitude", density=0.5, progress=False)
    assert record.layers[0].zeros == 0
    assert "zero" not in repr(record)
    assert "kept, and zero all the same" not in coverage_rows(record)


@pytest.mark.parametrize("extra", [{}, {"of a later version": 1}])
def test_records_of_other_versions_are_read(extra):
    record = th.prune(nn.Sequential(nn.Linear(4, 4)), "magnitude", density=0.5, progress=False)
    text = record.to_json().replace(',\n   "zeros": 0', "")
    assert "zeros" not in text
    text = text.replace('"kept"', '"new": 1,\n   "kept"') if extra else text
    again = PruneRecord.from_json(text)
    assert again.layers == record.layers
    assert replace(again.layers[0], zeros=1).fits(7)
    assert isinstance(again.layers[0], LayerRecord)


def test_a_sparse_model_that_becomes_denser_is_told_of():
    torch.manual_seed(0)
    model = tiny_llama(layers=1, initializer_range=0.2).eval()
    th.prune(model, "magnitude", pattern="2:4", progress=False)
    rows = torch.randint(0, 256, (4, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = th.prune(model, "wanda", rows, density=0.7, progress=False)
    assert not any(layer.revived for layer in record.layers)
    with pytest.warns(UserWarning, match="weights were zero before and are not any more"):
        record = th.prune(model, "best", rows, density=0.7, progress=False)
    down = record.layers[-1]
    weight = model.model.layers[0].mlp.down_proj.weight
    assert down.revived == int(torch.count_nonzero(weight)) - weight.numel() // 2 > 0
