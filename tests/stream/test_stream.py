"""Samples go through a model in step, and see exactly what a plain pass shows them."""

import copy
import random
from contextlib import closing

import numpy as np
import pytest
import torch
from small_models import bert, cnn, encoder_inputs, gpt2, images, llama, mlp, tokens, vectors
from torch import nn

from thresher.core.errors import DataError
from thresher.parts.coverage import find_layers
from thresher.prune.memory import prune
from thresher.stream.calls import input_of, watching_calls
from thresher.stream.passes import calibrating, call
from thresher.stream.products import watching_products
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units

KINDS = [
    (mlp, lambda: [vectors(seed=s) for s in range(2)], ["0", "2", "4"]),
    (
        cnn,
        lambda: [images(seed=s) for s in range(2)],
        ["stem", "blocks.0", "blocks.1", "blocks.2", "classifier"],
    ),
    (llama, lambda: samples_of_tokens(), [f"model.layers.{i}" for i in range(3)]),
    (gpt2, lambda: samples_of_tokens(), [f"transformer.h.{i}" for i in range(3)]),
    (bert, encoder_inputs, [*(f"encoder.layer.{i}" for i in range(3)), "pooler.dense"]),
]
EACH = pytest.mark.parametrize(
    ("make", "data", "names"), KINDS, ids=lambda v: getattr(v, "__name__", None)
)


def samples_of_tokens(lengths=(24, 24, 24)):
    return [{"input_ids": tokens(1, n, seed=i)} for i, n in enumerate(lengths)]


def stream_over(model, samples, **options):
    return Stream(InMemory(model), find_units(model, find_layers(model)), samples, **options)


def inputs_by_unit(model, units, run):
    """Return what every unit is given while `run` goes on, by name."""
    seen = {unit.name: [] for unit in units}

    def note(name):
        def hook(module, args, keywords):
            first = args[0] if args else keywords["hidden_states"]
            seen[name].append(first.detach().clone())

        return hook

    handles = [
        unit.module.register_forward_pre_hook(note(unit.name), with_kwargs=True) for unit in units
    ]
    run()
    for handle in handles:
        handle.remove()
    return seen


@EACH
def test_units_are_visited_in_the_order_in_which_they_run(make, data, names):
    stream = stream_over(make(), data())
    assert [unit.name for unit in stream.units] == names
    assert not stream.order.whole
    with closing(stream.visits()) as visits:
        assert [(visit.index, visit.unit.name) for visit in visits] == list(enumerate(names))


@EACH
@torch.no_grad()
def test_a_unit_sees_what_pruned_predecessors_make_of_the_samples(make, data, names):
    model, samples = make(), data()
    stream = stream_over(model, samples)
    units = stream.units
    with closing(stream.visits()) as visits:
        for visit in visits:
            seen = inputs_by_unit(model, [visit.unit], visit.run)[visit.unit.name]
            plain = inputs_by_unit(
                model, units, lambda: [call_plainly(model, sample) for sample in samples]
            )[visit.unit.name]
            assert len(seen) == len(samples)
            for mine, theirs in zip(seen, plain, strict=True):
                torch.testing.assert_close(mine, theirs)
            for layer in visit.unit.layers:
                layer.weight.mul_(torch.rand_like(layer.weight) > 0.5)


def call_plainly(model, sample):
    with calibrating(model):
        return call(model, sample)


@EACH
def test_a_stream_leaves_nothing_behind_even_when_it_is_left_early(make, data, names):
    model = make().train()
    before = {name: module.training for name, module in model.named_modules()}
    with closing(stream_over(model, data()).visits()) as visits:
        next(visits)
    for name, module in model.named_modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
        assert "forward" not in module.__dict__
        assert module.training == before[name]


def test_a_run_that_goes_on_later_visits_the_rest():
    model = llama()
    stream = stream_over(model, samples_of_tokens())
    with closing(stream.visits(start=2)) as visits:
        assert [visit.index for visit in visits] == [2]


def test_samples_may_differ_in_length_and_mask():
    model = llama()
    stream = stream_over(model, samples_of_tokens((24, 16, 7)))
    with closing(stream.visits()) as visits:
        for visit in visits:
            seen = inputs_by_unit(model, [visit.unit], visit.run)[visit.unit.name]
            assert [state.shape[1] for state in seen] == [24, 16, 7]
    padded = encoder_inputs(3)
    padded[2]["attention_mask"][0, 10:] = 0
    with closing(stream_over(bert(), padded).visits()) as visits:
        assert len(list(visits)) == 4


@torch.no_grad()
def test_states_on_disk_are_the_same_states(tmp_path):
    wide = [{"input_ids": tokens(32, 32, seed=s)} for s in range(2)]
    found = []
    for spill in (None, tmp_path / "states"):
        model = llama()
        stream = stream_over(model, wide, spill=spill)
        sums = []
        with closing(stream.visits()) as visits:
            for visit in visits:
                if spill is not None:
                    assert len(list(spill.glob("*.safetensors"))) == 2
                seen = inputs_by_unit(model, [visit.unit], visit.run)[visit.unit.name]
                sums += [state.sum() for state in seen]
        found.append(torch.stack(sums))
    assert torch.equal(*found)


@torch.no_grad()
def test_states_of_the_dense_path_wait_on_disk(tmp_path):
    wide = [{"input_ids": tokens(32, 32, seed=s)} for s in range(2)]
    found = []
    for scratch in (None, tmp_path):
        stream = stream_over(llama(), wide, dense=True, scratch=scratch)
        given = []
        with closing(stream.visits()) as visits:
            for visit in visits:
                waiting = len(list(tmp_path.glob("dense-states-0/*.safetensors")))
                assert waiting == (2 if scratch else 0)
                given += [visit.dense.get(x, i, 0) for x in visit.unit.layers for i in range(2)]
        found.append(given)
        assert not list(tmp_path.iterdir())
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


class Branched(nn.Module):
    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])

    def forward(self, x):
        return self.branches[0](x) + self.branches[1](x)


class Between(Branched):
    """Between its blocks happens what no block does, and in place."""

    def forward(self, x):
        y = self.branches[0](x)
        y += 3 * x
        return self.branches[1](y)


class Repeated(Branched):
    def forward(self, x):
        for _ in range(2):
            for block in self.branches:
                x = block(x)
        return x


class Conditioned(Branched):
    """What its second block is given depends on what the first returns."""

    def forward(self, x):
        y = self.branches[0](x)
        return self.branches[1](y * (y.mean() > 0) + x.sum())


@pytest.mark.parametrize("kind", [Branched, Between, Repeated, Conditioned])
@torch.no_grad()
def test_models_without_a_chain_are_followed_too(kind):
    torch.manual_seed(0)
    model, samples = kind(), [vectors(seed=s) for s in range(3)]
    stream = stream_over(model, samples)
    assert [unit.name for unit in stream.units] == ["branches.0", "branches.1"]
    with closing(stream.visits()) as visits:
        for visit in visits:
            seen = inputs_by_unit(model, [visit.unit], visit.run)[visit.unit.name]
            plain = inputs_by_unit(
                model, [visit.unit], lambda: [call_plainly(model, each) for each in samples]
            )[visit.unit.name]
            torch.testing.assert_close(torch.cat(seen), torch.cat(plain))
            visit.unit.layers[0].weight[:8] = 0


class Remembering(nn.Module):
    """A block that adds what it was given before."""

    def __init__(self):
        super().__init__()
        self.linear, self.last = nn.Linear(16, 16), 0.0

    def forward(self, x):
        self.last = self.last + x.mean()
        return self.linear(x) + self.last


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        return self.linear(x) + torch.randn_like(x)


class Dropping(Drawing):
    def forward(self, x):
        return nn.functional.dropout(self.linear(x), 0.3, training=True)


class Skipping(nn.Module):
    """Stochastic depth, in evaluation too."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(16, 16) for _ in range(8)])

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x) if self.keeps() else x
        return x

    def keeps(self):
        return torch.rand(()) < 0.5


class SkippingByPython(Skipping):
    def keeps(self):
        return random.random() < 0.5


class SkippingByNumpy(Skipping):
    def keeps(self):
        return np.random.rand() < 0.5


def test_units_that_remember_are_refused_by_name():
    with pytest.raises(DataError, match=r"'0' gives something else the second time.*keeps someth"):
        stream_over(nn.Sequential(Remembering(), nn.Linear(16, 4)), [vectors()])


CHANCE = [
    lambda: nn.Sequential(Drawing(), nn.Linear(16, 4)),
    lambda: nn.Sequential(Dropping(), nn.Linear(16, 4)),
    Skipping,
    SkippingByPython,
    SkippingByNumpy,
]


@pytest.mark.parametrize("make", CHANCE)
def test_models_that_draw_at_random_are_told_so(make):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    with pytest.raises(
        DataError, match=r"two passes of the first sample differ.*chance: .*training"
    ):
        stream_over(make(), [vectors()])


class HeadFirst(nn.Module):
    """Runs its blocks against the order in which they are registered, and after its head."""

    def __init__(self):
        super().__init__()
        self.early = nn.Linear(16, 16)
        self.blocks = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.head = nn.Linear(16, 16)

    def get_output_embeddings(self):
        return self.head

    def forward(self, x):
        x = self.head(torch.relu(self.early(x)))
        for block in reversed(self.blocks):
            x = torch.relu(block(x)) + 0.1
        return x


class AroundBlocks(nn.Module):
    """Calls what is in its blocks, by whichever way, and never the middle block itself."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(16, 16)) for _ in range(3)])
        self.last = nn.Linear(16, 16)

    def forward(self, x):
        for block in reversed(self.blocks):
            x = torch.relu(self.way(block, x)) + 0.1
        return self.last(x)


@torch.no_grad()
def inputs_of(model, layer, samples):
    """Return the rows that a layer multiplies in plain passes."""
    given = []
    with watching_products(model, [layer], lambda _, rows: given.append(rows())):
        for sample in samples:
            call(model, sample)
    return torch.cat([rows.flatten(0, -2) for rows in given])


WAYS = [
    HeadFirst,
    lambda: AroundBlocks(lambda block, x: block(x)),
    lambda: AroundBlocks(lambda block, x: block.forward(x)),
    lambda: AroundBlocks(lambda block, x: block[0](x)),
    lambda: AroundBlocks(lambda block, x: block[0].forward(x)),
]


@pytest.mark.parametrize("make", WAYS)
@pytest.mark.filterwarnings("ignore:.*passes of the whole model")
def test_units_are_pruned_in_the_order_of_running_however_they_are_called(make):
    torch.manual_seed(0)
    model = make()
    dense = {layer.name: layer.weight.clone() for layer in find_layers(model)}
    samples = [vectors(seed=s) for s in range(2)]
    record = prune(model, "wanda", samples, density=0.5, progress=False)
    first = ["early"] if hasattr(model, "early") else []
    last = [] if first else ["last"]
    names = [".".join(layer.name.split(".")[:2]) for layer in record.layers]
    assert names == [*first, "blocks.2", "blocks.1", "blocks.0", *last]
    # Every layer was pruned by what its pruned predecessors give.
    for layer in find_layers(model):
        norm = inputs_of(model, layer, samples).square().sum(0).sqrt()
        score = dense[layer.name].abs() * norm
        kept = torch.zeros_like(score).scatter_(1, score.topk(8).indices, 1)
        assert torch.equal(kept.bool(), layer.weight != 0)


class Aware(nn.Module):
    """Its model counts passes outside the blocks, so that the second pass is another one."""

    def __init__(self):
        super().__init__()
        self.blocks, self.passes = nn.ModuleList([nn.Linear(16, 16)]), 0

    def forward(self, x):
        self.passes += 1
        return self.blocks[0](x * self.passes)


def test_models_whose_passes_differ_are_refused_by_name():
    with pytest.raises(DataError, match=r"'blocks\.0' is given something else"):
        stream_over(Aware(), [vectors()])


def test_samples_of_another_kind_are_named():
    with pytest.raises(DataError, match="not str"):
        call(mlp(), "text")


def test_a_model_in_a_wrapper_has_the_units_of_the_model():
    model = nn.Sequential(nn.Sequential(*[nn.Linear(16, 16) for _ in range(4)]))
    names = [unit.name for unit in find_units(model, find_layers(model))]
    assert names == ["0.0", "0.1", "0.2", "0.3"]


@torch.no_grad()
def test_the_dense_path_goes_through_the_units_as_they_were_found():
    model, samples = llama(), samples_of_tokens()
    dense = copy.deepcopy(model)
    stream = stream_over(model, samples, dense=True, attention=True)
    with closing(stream.visits()) as visits:
        for visit in visits:
            theirs = find_units(dense, find_layers(dense))[visit.index]
            mine = inputs_by_unit(model, [visit.unit], visit.run)[visit.unit.name]
            units = find_units(model, find_layers(model))
            plain = inputs_by_unit(model, units, lambda: [call_plainly(model, s) for s in samples])
            for one, other in zip(mine, plain[visit.unit.name], strict=True):
                torch.testing.assert_close(one, other)
            for layer, same in zip(visit.unit.layers, theirs.layers, strict=True):
                given = []
                with watching_calls([same], lambda *call, to=given: to.append(input_of(*call))):
                    for sample in samples:
                        call_plainly(dense, sample)
                for index, expected in enumerate(given):
                    torch.testing.assert_close(visit.dense.get(layer, index, 0), expected)
                    assert visit.dense.get(layer, index, 1) is None
            assert list(visit.dense.received) == list(range(len(samples)))
            for layer in visit.unit.layers:
                layer.weight.mul_(torch.rand_like(layer.weight) > 0.5)
    with pytest.warns(UserWarning, match="is called several times"):
        stream = stream_over(Repeated(), [vectors()], dense=True)
    assert not stream.has_dense_path


def prune_here(rank, port, folder):
    """Prune a Llama as one of two processes, and leave its masks in a folder."""
    import thresher as th

    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    model = llama()
    th.prune(model, "sparsegpt", tokens(5), density=0.5, progress=False)
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_samples_and_prune_alike(tmp_path):
    import socket

    import thresher as th

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(prune_here, (port, tmp_path), 2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = llama()
    th.prune(alone, "sparsegpt", tokens(5), density=0.5, progress=False)
    for name, weight in alone.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        assert ((first[name] != 0) == (weight != 0)).float().mean() > 0.98, name
        torch.testing.assert_close(first[name], weight, rtol=1e-2, atol=1e-2)


def test_blocks_whose_forward_is_called_are_units_like_others():
    """SqueezeBERT writes ``layer.forward(x)``, which passes hooks by."""
    from transformers import SqueezeBertConfig, SqueezeBertModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 16, "embedding_size": 16, "intermediate_size": 32}
    config = SqueezeBertConfig(**sizes, num_hidden_layers=3, num_attention_heads=4)
    stream = stream_over(SqueezeBertModel(config).eval(), samples_of_tokens())
    assert stream.order.units == [*(f"encoder.layers.{i}" for i in range(3)), "pooler.dense"]
    assert not stream.order.whole
