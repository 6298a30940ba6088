"""Windows left out: chosen by hand, held against dense blocks, adapted, searched and saved."""

import copy

import pytest
import torch
from small_models import bert, llama, tokens
from torch import nn
from transformers import (
    DonutSwinConfig,
    DonutSwinModel,
    SwinConfig,
    SwinForImageClassification,
    SwinModel,
    Swinv2Config,
    Swinv2Model,
)

import thresher as th
from thresher.activate.sparsevit import SparseViT
from thresher.core.errors import CheckpointError, LayerError, OptionError
from thresher.parts.activations.attached import attached, counting
from thresher.parts.activations.windows import Windows, window_norms, window_tokens
from thresher.parts.evolution import Evolution
from thresher.run.files.activations import ACTIVATIONS_FILE, load_activations

SIZES = {
    "patch_size": 2,
    "num_channels": 1,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 2,
    "mlp_ratio": 2.0,
    "drop_path_rate": 0.0,
    "num_labels": 3,
}


def swin(kind=SwinForImageClassification, config=SwinConfig, size=16, **options):
    torch.manual_seed(0)
    model = kind(config(**SIZES | {"image_size": size} | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def pictures(count=3, size=16):
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def blocks(model):
    return [
        block
        for module in model.modules()
        for child in module.children()
        if isinstance(child, nn.ModuleList)
        for block in child
        if hasattr(block, "shift_size")
    ]


def first(output):
    return output[0] if isinstance(output, tuple) else output


def as_dense_blocks_would(model, x, sparsity):
    """Return what a dense model gives that puts back what went into the smallest windows."""
    squares = {}

    def note(stage, args):
        squares["of"] = args[0].square().sum(-1)

    def put_back(block, args, output):
        height, width = args[1]
        window, shift = block.window_size, block.shift_size
        sums = squares["of"].unflatten(1, (height, width))
        sums = nn.functional.pad(sums, (0, -width % window, 0, -height % window))
        grid = sums.roll((-shift, -shift), (1, 2))
        high, wide = grid.shape[1] // window, grid.shape[2] // window
        each = grid.reshape(len(grid), high, window, wide, window).sum((2, 4)).flatten(1)
        kept = torch.zeros_like(each)
        count = max(1, round((1 - sparsity) * each.shape[1]))
        kept.scatter_(1, each.argsort(descending=True)[:, :count], 1)
        mask = kept.unflatten(1, (high, wide))
        mask = mask.repeat_interleave(window, 1).repeat_interleave(window, 2)
        mask = mask.roll((shift, shift), (1, 2))[:, :height, :width].flatten(1).bool()
        result = torch.where(mask[..., None], first(output), args[0])
        return (result, *output[1:]) if isinstance(output, tuple) else result

    stages = [m for m in model.modules() if any(b in blocks(model) for b in _listed(m))]
    handles = [stage.register_forward_pre_hook(note) for stage in stages]
    handles += [block.register_forward_hook(put_back) for block in blocks(model)]
    try:
        return model(x)
    finally:
        for handle in handles:
            handle.remove()


def _listed(module):
    return [b for child in module.children() if isinstance(child, nn.ModuleList) for b in child]


def uniform(windows, share):
    return {name: [share] * len(each.products) for name, each in windows.maps.items()}


def test_windows_of_a_map_by_hand():
    cpu = torch.device("cpu")
    assert window_tokens((2, 4), 2, 0, cpu).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    # Rolled up and left by one, the first row and column come last.
    assert window_tokens((2, 4), 2, 1, cpu).tolist() == [[5, 6, 1, 2], [7, 4, 3, 0]]
    # Filled up below and on the right.
    assert window_tokens((2, 3), 2, 0, cpu).tolist() == [[0, 1, 3, 4], [2, -1, 5, -1]]
    x = torch.tensor([[[3.0, 0], [0, 4], [1, 0], [0, 0], [0, 0], [2, 2]]])
    norms = window_norms(x, window_tokens((2, 3), 2, 0, cpu))
    torch.testing.assert_close(norms, torch.tensor([[5.0, 3.0]]))


def test_every_image_keeps_as_many_windows_whatever_is_in_them():
    norms = torch.tensor([[1.0, 5, 3, 2], [0, 0, 0, 0], [7, 7, 7, 7]])
    kept = Windows(torch.tensor([0.5, 0.9, 0.0]))(torch.stack([norms] * 3))
    assert kept[0, 0].tolist() == [False, True, True, False]
    assert kept.sum(-1).tolist() == [[2, 2, 2], [1, 1, 1], [4, 4, 4]]


@pytest.mark.parametrize("size", [16, 18])
@pytest.mark.parametrize("kind", [SwinForImageClassification, SwinModel])
def test_without_sparsity_the_model_is_dense_bit_for_bit(kind, size):
    model, x = swin(kind, size=size), pictures(size=size)
    with torch.no_grad():
        expected = model(x)[0]
        windows = SparseViT(sparsity=0.0).attach(model, x)
        assert windows.density == 1
        assert torch.equal(model(x)[0], expected)


@pytest.mark.parametrize("size", [16, 18])  # 18: maps of 9 and 5, which are filled up
@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9])
def test_it_is_what_dense_blocks_give_of_the_largest_windows(sparsity, size):
    model, x = swin(size=size), pictures(size=size)
    with torch.no_grad():
        expected = as_dense_blocks_would(model, x, sparsity).logits
        SparseViT(sparsity).attach(model, x)
        found = model(x).logits
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(model(x[1:2]).logits, expected[1:2])


def test_gradients_are_those_of_what_is_computed():
    found = []
    for sparse in (False, True):
        model, x = swin().train(), pictures()
        if sparse:
            SparseViT(0.5).attach(model, x)
            output = model(x)
        else:
            output = as_dense_blocks_would(model, x, 0.5)
        output.logits.square().sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    dense, sparse = found
    assert dense.keys() == sparse.keys()
    for name, gradient in dense.items():
        torch.testing.assert_close(sparse[name], gradient, msg=name)


def test_a_copy_of_swin_under_another_name_is_taken():
    model, x = swin(DonutSwinModel, DonutSwinConfig), pictures()
    with torch.no_grad():
        expected = as_dense_blocks_would(model, x, 0.5)[0]
        SparseViT(0.5).attach(model, x)
        torch.testing.assert_close(model(x)[0], expected)


def test_multiplications_and_windows_are_counted():
    model, x = swin(), pictures()
    windows = SparseViT(0.5).attach(model, x)
    first_map, second_map = windows.maps.values()
    assert (first_map.windows, second_map.windows) == (16, 4)
    # Four tokens, of 4 + 2 * 2 matrices of 8 x 8, and 4 scores and weights of 8 channels.
    assert first_map.products == (4 * (8 * 64 + 2 * 4 * 8),) * 2
    assert windows.density == 0.5
    with counting() as tallies, torch.no_grad():
        model(x)
    assert [tally.sparsity for tally in tallies.values()] == [0.5, 0.5]
    # What is left out is not given to the layers at all: of 3 x 16 windows of 4 tokens, half.
    rows = []
    for layer in blocks(model)[0].modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda _, args, out: rows.append(out[..., 0].numel()))
    with torch.no_grad():
        model(x)
    assert rows == [3 * 8 * 4] * 6


def test_adapting_draws_sparsities_for_every_pass_and_puts_them_back():
    model, x = swin().train(), pictures(1)
    windows = SparseViT(0.5, most=0.3).attach(model, x)
    before, drawn = windows.sparsities, []
    for seed in (0, 0, 1):
        with windows.adapting(seed):
            found = []
            for _ in range(5):
                model(x)
                found += [share for each in windows.sparsities.values() for share in each]
        drawn.append(found)
        assert windows.sparsities == before
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {0.0, 0.1, 0.2, 0.3}
    with windows.adapting(0):
        model.eval()(x)
        assert windows.sparsities == before


def test_the_search_finds_what_costs_least_within_the_budget():
    model, x = swin(), pictures()
    windows = SparseViT(0.0).attach(model, x)
    costs = []

    def loss(indices):
        assert set(indices) <= {0, 1, 2}
        costs.append(windows.density)
        shares = [share for each in windows.sparsities.values() for share in each]
        return shares[0] + 0.5 * shares[1]

    windows.search(loss, 3, 0.5, Evolution(generations=10, offspring=16, most=3))
    shares = [share for each in windows.sparsities.values() for share in each]
    assert shares[0] <= 0.1
    assert max(costs) <= 0.5
    again = SparseViT(0.0).attach(swin(), x)
    with pytest.raises(OptionError, match=r"density 0.05 is out of reach.*0.2"):
        again.search(loss, 3, 0.05)

    def failing(indices):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        again.search(failing, 3, 0.5)
    assert {share for each in again.sparsities.values() for share in each} == {0.0}


def test_saved_loaded_and_copied_it_is_the_same(tmp_path):
    model, x = swin(), pictures()
    windows = SparseViT(0.5).attach(model, x)
    names = list(windows.maps)
    windows.sparsities = {names[0]: [0.3, 0.7], names[1]: [0.0, 0.5]}
    with torch.no_grad():
        expected = model(x).logits
        assert torch.equal(copy.deepcopy(model)(x).logits, expected)
        th.save(model, tmp_path / "sparse")
        again = SwinForImageClassification.from_pretrained(tmp_path / "sparse").eval()
        assert torch.equal(again(x).logits, expected)
        half = copy.deepcopy(again).to(torch.bfloat16)
        assert attached(half)[names[0], "inputs"].shares.dtype == torch.float32
        assert half(x.bfloat16()).logits.dtype == torch.bfloat16
    # The body alone has the same stages under other names.
    body = SwinModel.from_pretrained(tmp_path / "sparse")
    assert len(attached(body)) == 2
    with pytest.raises(CheckpointError, match="another model"):
        load_activations(swin(depths=[2, 4]), tmp_path / "sparse" / ACTIVATIONS_FILE)


def test_a_call_that_fails_leaves_nothing_behind():
    model, x = swin(), pictures()
    SparseViT(0.5).attach(model, x)
    with torch.no_grad():
        expected = model(x).logits
        handle = blocks(model)[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(x)
        handle.remove()
        assert torch.equal(model(x).logits, expected)
    assert not any(part._forward_hooks for b in blocks(model) for part in b.children())


def test_mistakes_are_named():
    with pytest.raises(OptionError, match=r"sparsity.*1.0"):
        SparseViT(sparsity=1.0)
    with pytest.raises(OptionError, match="most"):
        SparseViT(most=0.0)
    x = pictures()
    for model, data in ((llama(), tokens()), (bert(), tokens())):
        with pytest.raises(LayerError, match=r"no stages of blocks.*SwinModel.*'teal'"):
            SparseViT().attach(model, data)
    # Its blocks normalise what attention gives, and not what it is given.
    second = Swinv2Model(Swinv2Config(**SIZES | {"image_size": 16})).eval()
    with pytest.raises(LayerError, match=r"SwinModel of transformers"):
        SparseViT().attach(second, x)
    assert not attached(second)
    model = swin()
    windows = SparseViT().attach(model, x)
    with pytest.raises(LayerError, match="take the dense model"):
        SparseViT().attach(model, x)
    name = next(iter(windows.maps))
    with pytest.raises(OptionError, match="do not fit the model"):
        windows.sparsities = {name: [0.5, 0.5]}
    with pytest.raises(OptionError, match=r"2 blocks and is given 1"):
        windows.sparsities = uniform(windows, 0.5) | {name: [0.5]}
    with pytest.raises(OptionError, match=r"sparsity of a block.*1.5"):
        windows.sparsities = uniform(windows, 0.5) | {name: [0.5, 1.5]}
    assert windows.density == 0.5
    with pytest.raises(OptionError, match=r"SparseViT\(\).attach\(model, data\)"):
        th.activate(swin(), "sparsevit", x, sparsity=0.5)
    for block in blocks(model):
        block.gradient_checkpointing = True
    with pytest.raises(LayerError, match=r"gradient_checkpointing_disable"):
        model.train()(x)


def test_blocks_that_do_something_else_are_refused():
    model, x = swin(), pictures()
    # Something that a window which is left out would not pass by unchanged.
    blocks(model)[2].register_forward_hook(
        lambda _, args, out: (first(out) + 1, *out[1:]) if isinstance(out, tuple) else out + 1
    )
    with pytest.raises(LayerError, match=r"layers.1.*in block 0 another result"):
        SparseViT().attach(model, x)
    assert not attached(model)
