"""What a model sets around its blocks acts on its own passes, and on nothing else."""

import contextlib
import copy
import io
import sys
import warnings
from contextlib import closing

import pytest
import torch
from small_models import llama, tokens, vectors
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import thresher as th
from thresher.parts.coverage import find_layers
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.surroundings import Settings, Surroundings, within
from thresher.stream.units import find_units


class Surrounded(nn.Module):
    def __init__(self, around):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.around = around

    def forward(self, x):
        with self.around():
            for block in self.blocks:
                x = torch.relu(block(x)) + 0.1
        return x


@contextlib.contextmanager
def careless():
    """Set a dtype and a filter, and put them back only where nothing is raised."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        yield


class Doubling(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        return output * 2 if func is torch.relu else output


AROUND = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "nested": lambda: nested(),
    "sdpa_kernel": lambda: sdpa_kernel(SDPBackend.MATH),
    "dtype": careless,
    "device": lambda: torch.device("cpu"),
    "function mode": Doubling,
    "mode and dtype": lambda: careless_mode(),
    "filters": quiet,
    "output": lambda: contextlib.redirect_stdout(io.StringIO()),
}
#: They cannot be left and entered again.
MODES = {"device", "function mode", "mode and dtype"}
EACH = pytest.mark.parametrize("name", AROUND)


@contextlib.contextmanager
def nested():
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.float16):
        yield


@contextlib.contextmanager
def careless_mode():
    with Doubling(), careless():
        yield


def state():
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "depth": depth,
        "dtype": torch.get_default_dtype(),
        "attention": torch.backends.cuda.flash_sdp_enabled(),
        "modes": torch._C._len_torch_function_stack(),
        "filters": id(warnings.filters),
        "shown": warnings.showwarning,
        "stdout": sys.stdout,
    }


def stream_over(model, samples):
    return Stream(InMemory(model), find_units(model, find_layers(model)), samples)


@EACH
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.filterwarnings("ignore:.*passes of the whole model")
def test_nothing_of_it_is_left_behind(name, count):
    before = state()
    th.prune(
        Surrounded(AROUND[name]),
        "wanda",
        [vectors(seed=s) for s in range(count)],
        density=0.5,
        progress=False,
    )
    assert state() == before
    layer = nn.Linear(4, 4)
    layer(torch.randn(2, 4)).sum().backward()
    assert layer.weight.grad.dtype == torch.float32


@EACH
@pytest.mark.filterwarnings("ignore:.*passes of the whole model")
def test_nothing_is_left_behind_by_a_run_that_is_interrupted(name):
    before = state()
    for place in range(3):
        model, calls = Surrounded(AROUND[name]), []

        def interrupt(*_, calls=calls):
            calls.append(1)
            # Not in the proof, whose two samples are run three times.
            if len(calls) == 8:
                raise KeyboardInterrupt

        model.blocks[place].register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            th.prune(
                model, "wanda", [vectors(seed=s) for s in range(9)], density=0.5, progress=False
            )
        assert state() == before


@EACH
def test_what_happens_between_the_units_is_not_surrounded(name):
    before = state() | {"grad": False}
    model = Surrounded(AROUND[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = stream_over(model, [vectors(seed=s) for s in range(3)])
    with closing(stream.visits()) as visits:
        for visit in visits:
            assert state() == before
            visit.run()
            assert state() == before


@EACH
@pytest.mark.filterwarnings("ignore:.*passes of the whole model")
def test_units_are_watched_in_what_surrounds_them(name):
    model, samples = Surrounded(AROUND[name]), [vectors(seed=s) for s in range(2)]
    seen = {}

    def note(index):
        def hook(module, args, output):
            seen.setdefault(index, []).append(output.detach().clone())

        return hook

    stream = stream_over(model, samples)
    assert bool(stream.order.whole) == (name in MODES)
    with closing(stream.visits()) as visits:
        for visit in visits:
            handle = visit.unit.module.register_forward_hook(note(visit.index))
            visit.run()
            handle.remove()
    found, seen = seen, {}
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(note(index))
    for sample in samples:
        with torch.no_grad():
            model(sample)
    assert found.keys() == seen.keys()
    for index, outputs in seen.items():
        for mine, theirs in zip(found[index], outputs, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)


class Noting(Surrounded):
    """Notes what is set between its blocks."""

    def forward(self, x):
        with self.around():
            for block in self.blocks:
                x = torch.relu(block(x)) + 0.1
                found = state()
                self.found.append([found[k] for k in ("grad", "inference", "autocast", "dtype")])
        return x


@pytest.mark.parametrize("name", sorted(AROUND.keys() - MODES))
def test_a_pass_goes_on_in_what_surrounded_it(name):
    model = Noting(AROUND[name])
    model.found, samples = [], [vectors(seed=s) for s in range(2)]
    with closing(stream_over(model, samples).visits()) as visits, torch.no_grad():
        model.found.clear()
        list(visits)
        walked, model.found = model.found, []
        for sample in samples:
            model(sample)
    # The passes took turns, and all that they found is the same.
    assert walked == model.found


class Headed(Surrounded):
    """Has an output head, before which passes of the proof end."""

    def __init__(self, around):
        super().__init__(around)
        self.head = nn.Linear(16, 16)

    def get_output_embeddings(self):
        return self.head

    def forward(self, x):
        with self.around():
            for block in self.blocks:
                x = torch.relu(block(x)) + 0.1
            return self.head(x)


def test_a_pass_that_ends_before_the_head_leaves_nothing_behind():
    before = state()
    stream_over(Headed(careless), [vectors(seed=s) for s in range(2)])
    assert state() == before


def test_weights_converted_for_autocast_are_converted_again_once_pruned():
    model, samples = Surrounded(AROUND["autocast"]), [vectors(seed=s) for s in range(2)]
    with closing(stream_over(model, samples).visits()) as visits:
        first = next(visits)
        first.run()
        with torch.no_grad():
            first.unit.module.weight.zero_()
            first.unit.module.bias.zero_()
        second = next(visits)
        given = []
        second.unit.module.register_forward_pre_hook(lambda _, args: given.append(args[0]))
        second.run()
    assert all(bool((x == x.flatten()[0]).all()) for x in given)


def test_pruning_under_autocast_is_as_exact_as_without():
    plain, mixed = Surrounded(contextlib.nullcontext), Surrounded(AROUND["autocast"])
    for model in (plain, mixed):
        data = [vectors(seed=s) for s in range(3)]
        th.prune(model, "sparsegpt", data, density=0.5, progress=False)
    # Both are given the same: what precedes the first block is in no autocast.
    assert torch.equal(plain.blocks[0].weight, mixed.blocks[0].weight)


def test_a_prepared_model_leaves_no_autocast():
    accelerate = pytest.importorskip("accelerate")
    # Of a Trainer that ran in this process.
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    model = llama()
    plain = copy.deepcopy(model)
    prepared = accelerate.Accelerator(mixed_precision="bf16", cpu=True).prepare(model)
    th.prune(prepared, "wanda", tokens(), density=0.5, progress=False)
    assert not torch.is_autocast_enabled("cpu")
    th.prune(plain, "wanda", tokens(), density=0.5, progress=False)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert ((mine != 0) == (theirs != 0)).float().mean() > 0.95


def test_modes_that_cannot_be_put_away_make_passes_whole():
    with pytest.warns(UserWarning, match=r"'blocks\.0' is called inside a mode"):
        stream = stream_over(Surrounded(Doubling), [vectors(seed=s) for s in range(2)])
    assert stream.order.whole == {f"blocks.{i}" for i in range(3)}
    stream = stream_over(Surrounded(AROUND["inference_mode"]), [vectors()])
    assert not stream.order.whole


def test_settings_and_surroundings_are_put_back_in_any_order():
    before = state()
    outside = Surroundings()
    grad, inference = torch.enable_grad(), torch.inference_mode()
    autocast = torch.autocast("cpu", dtype=torch.float16)
    for context in (grad, inference, autocast):
        context.__enter__()
    inside = Surroundings()
    entered = state()
    assert entered["inference"]
    outside.put()
    assert state() == before
    with within(inside.settings):
        assert state()["autocast"] == (True, torch.float16)
        assert not state()["inference"]
    assert state() == before
    outside = Surroundings()
    inside.put()
    assert state() == entered
    for context in (autocast, inference, grad):
        context.__exit__(None, None, None)
    outside.put()
    assert state() == before
    settings = Settings()
    torch.set_default_dtype(torch.float64)
    settings.put()
    assert state() == before
