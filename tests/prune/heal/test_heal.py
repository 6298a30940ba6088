"""Healing in memory: better than before, on time, zeros held; and what is refused."""

import copy
import warnings

import pytest
import torch
from model_folders import byte_tokenizer, tiny_llama
from torch import nn

import thresher as th
from thresher.core.errors import DataError, LayerError, NumericalError, OptionError
from thresher.prune.heal import run, session
from thresher.prune.heal.session import HealOptions, Session
from thresher.prune.heal.state import HealState
from thresher.stream.samples import as_samples


class Clock:
    """Every look at it takes as long."""

    def __init__(self, tick=1.0):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def windows(count=12, length=24, seed=0):
    return torch.randint(256, (count, length), generator=torch.Generator().manual_seed(seed))


def pruned(dense, pattern="2:4"):
    model = copy.deepcopy(dense)
    th.prune(model, "magnitude", pattern=pattern, progress=False)
    return model


@pytest.fixture(scope="module")
def dense():
    return tiny_llama(initializer_range=0.2).eval()


@pytest.fixture
def rates(monkeypatch):
    """Rates for a model of this size."""
    monkeypatch.setattr(run, "_RATES", (1e-3, 1e-2, 3e-2))


def heal(model, dense, work, minutes=1.0, state=None, clock=None, keep=False, data=None):
    samples = as_samples(model, windows() if data is None else data)[0]
    options = HealOptions(minutes, progress=False, clock=clock or Clock())
    state = state or HealState("mark")
    names = {"teacher": "t", "text": "x"}
    with Session(model, dense, samples, options, names, work, state, keep).healed() as record:
        return record


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_comes_nearer_and_keeps_zeros(dense, dtype, tmp_path, rates):
    model = pruned(dense).to(dtype).train()
    zeros = {n: p == 0 for n, p in model.named_parameters()}
    before = copy.deepcopy(model.state_dict())
    record = heal(model, dense, tmp_path)
    assert record.loss_after < 0.9 * record.loss_before
    assert record.steps > 20
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter == 0, zeros[name]), name
        assert parameter.dtype == dtype
        assert parameter.requires_grad
        moved = not torch.equal(parameter, before[name])
        assert moved == ("embed" not in name), name
    assert model.training
    # As it was judged: in the dtype that it has.
    again = heal(model, dense, tmp_path / "again", minutes=1 / 60)
    assert again.loss_before == pytest.approx(record.loss_after, rel=1e-5)


def test_biases_of_zero_are_trained(tmp_path, rates):
    dense = tiny_llama(layers=1, attention_bias=True, initializer_range=0.2).eval()
    model = pruned(dense)
    assert not model.model.layers[0].self_attn.q_proj.bias.any()
    heal(model, dense, tmp_path)
    assert model.model.layers[0].self_attn.v_proj.bias.all()


@pytest.mark.parametrize("minutes", [0.02, 0.2, 2.0])
def test_it_ends_on_time(dense, minutes, tmp_path):
    record = heal(pruned(dense), dense, tmp_path, minutes)
    # Every step and every evaluation takes a second here.
    assert record.seconds <= 60 * minutes + 2
    assert record.seconds >= 60 * minutes - 3 or minutes < 0.1


def test_the_rate_is_the_best_of_those_tried(dense, tmp_path, rates):
    record = heal(pruned(dense), dense, tmp_path, minutes=3.0)
    assert [probe["rate"] for probe in record.probes] == [1e-3, 1e-2, 3e-2]
    assert record.rate == min(record.probes, key=lambda probe: probe["loss"])["rate"]
    assert record.loss_before == record.checks[0]["loss"]


def test_without_time_to_try_the_middle_rate_is_taken(dense, tmp_path):
    record = heal(pruned(dense), dense, tmp_path, minutes=0.2)
    assert record.rate == 3e-4


def test_it_is_never_worse_than_its_start(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_RATES", (3.0, 3.0, 3.0))
    model = pruned(dense)
    before = copy.deepcopy(model.state_dict())
    record = heal(model, dense, tmp_path)
    assert record.best_step == 0
    assert record.loss_after == record.loss_before
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_rate_that_overflows_is_survived(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_RATES", (1e30, 1e30, 1e30))
    model = pruned(dense)
    with pytest.warns(UserWarning, match="no longer finite"):
        record = heal(model, dense, tmp_path)
    assert record.loss_after == record.loss_before
    assert model.lm_head.weight.isfinite().all()


@pytest.mark.parametrize("after", [1, 30, 58])
def test_a_run_that_is_stopped_ends_the_same(dense, after, tmp_path, rates, monkeypatch):
    whole = pruned(dense)
    expected = heal(whole, dense, tmp_path / "whole", keep=True)
    model = pruned(dense)
    calls = []

    class Killed(BaseException):
        pass

    real = run.Healer._tick

    def stopping(healer):
        calls.append(healer)
        if len(calls) == after:
            raise Killed
        real(healer)

    with monkeypatch.context() as patch:
        patch.setattr(run.Healer, "_tick", stopping)
        with pytest.raises(Killed):
            heal(model, dense, tmp_path / "work", keep=True)
    assert after == 1 or HealState.load(tmp_path / "work").seconds > 0
    state = HealState.load(tmp_path / "work") or HealState("mark")
    again = pruned(dense)
    found = heal(again, dense, tmp_path / "work", state=state, keep=True)
    assert found == expected
    for name, value in again.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    assert len(list((tmp_path / "work").glob("healing-*.safetensors"))) == 1


def test_two_runs_are_equal_and_seeds_are_not(dense, tmp_path):
    runs = [heal(pruned(dense), dense, tmp_path / str(i), 0.5) for i in range(2)]
    assert runs[0] == runs[1]


def test_all_windows_are_read_in_every_epoch(dense, tmp_path):
    plan = run.Plan(1.0, seed=1)
    healer = run.Healer(None, None, None, torch.zeros(10, 4), None, plan, None, None, None, None)
    first = [i for step in range(5) for i in healer._batch(step, 4)]
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10))
    assert first[:10] != first[10:]


def test_the_public_function(dense):
    model = pruned(dense)
    record = th.heal(model, dense, windows(), minutes=0.02, progress=False)
    assert record.text == "data"
    assert record.loss_after <= record.loss_before
    from thresher.core.remembered import remembered

    assert remembered(model).healing["loss_after"] == record.loss_after
    assert remembered(model).recounted({}) is remembered(model)


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_no_time_is_refused(dense, minutes):
    with pytest.raises(OptionError, match="minutes must be a"):
        th.heal(pruned(dense), dense, windows(), minutes=minutes)


def test_a_text_of_one_window_is_refused(dense):
    with pytest.raises(DataError, match=r"gives 1 window of 24 tokens.*pass more text"):
        th.heal(pruned(dense), dense, windows(1), minutes=0.1)
    with pytest.raises(DataError, match="fewer than one window of 512"):
        th.heal(pruned(dense), dense, "short", minutes=0.1, tokenizer=byte_tokenizer())


def test_windows_of_several_lengths_are_refused(dense):
    data = [{"input_ids": windows(1, length)} for length in (8, 12)]
    with pytest.raises(DataError, match="lengths from 8 to 12"):
        th.heal(pruned(dense), dense, data, minutes=0.1)


def test_a_dense_model_is_refused(dense):
    with pytest.raises(
        LayerError, match=r"no zeros, and (\d+) weights where the teacher.s have \1,"
    ):
        th.heal(copy.deepcopy(dense), dense, windows(), minutes=0.1)


def test_a_teacher_of_another_vocabulary_is_refused(dense):
    other = tiny_llama(vocab_size=300)
    with pytest.raises(DataError, match="predicts 256 tokens and the teacher 300"):
        th.heal(pruned(dense), other, windows(), minutes=0.1)


def test_a_model_without_a_head_is_refused(dense):
    model = nn.Sequential(nn.Linear(8, 8))
    th.prune(model, "magnitude", density=0.5, progress=False)
    with pytest.raises(LayerError, match="no output head"):
        th.heal(model, dense, windows(), minutes=0.1)


def test_a_pruned_teacher_is_warned_of(dense, tmp_path):
    with pytest.warns(UserWarning, match="pruned itself: 50% of its weights"):
        heal(pruned(dense), pruned(dense), tmp_path, minutes=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session._warn_if_pruned(dense)


def test_damaged_weights_are_named(dense, tmp_path):
    model = pruned(dense)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(NumericalError, match="divergence from the teacher is nan"):
        heal(model, dense, tmp_path)


def test_a_teacher_of_another_shape_teaches_by_its_predictions(dense, tmp_path, rates):
    other = tiny_llama(layers=2, hidden=64, initializer_range=0.2).eval()
    record = heal(pruned(dense), other, tmp_path)
    assert record.hidden == []
    assert record.loss_after < record.loss_before
