"""What is particular: formulas by hand, kinds of layers, mistakes."""

import pytest
import torch
from small_models import bert, cnn, gpt2, images, llama, mlp, tokens, vectors
from torch import nn
from torch.nn import functional

import thresher as th
from thresher.activate.levels import Greedy, UniformLevels
from thresher.core.errors import DataError, LayerError, OptionError
from thresher.parts.activations.attached import attach, attached, counting, set_aside
from thresher.parts.activations.rules import quantile
from thresher.parts.activations.selection import RankSplit, Threshold, TopK


def test_a_quantile_leaves_its_share_below():
    values = torch.arange(100.0)
    for share in (0.0, 0.25, 0.5, 0.99):
        assert int((values < quantile(values, share)).sum()) == round(100 * share)


def test_thresholds_keep_what_reaches_them_and_nan():
    x = torch.tensor([[0.5, -1.0, 1.0, -0.9, float("nan"), float("inf")]])
    kept = Threshold(torch.tensor(1.0))(x)
    expected = torch.tensor([[0.0, -1.0, 1.0, 0.0, float("nan"), float("inf")]])
    torch.testing.assert_close(kept, expected, equal_nan=True, rtol=0, atol=0)


def test_gates_are_judged_by_their_activation():
    z = torch.tensor([[-5.0, -0.5, 0.5, 5.0]])
    kept = Threshold(torch.tensor(0.2), activation="silu")(z)
    sizes = functional.silu(z).abs()
    assert torch.equal(kept, z * (sizes >= 0.2))


def test_channels_of_images_are_dropped_whole():
    x = torch.randn(2, 8, 4, 4)
    kept = Threshold(torch.tensor(0.8), positions=2)(x)
    means = x.abs().mean((-1, -2))
    assert torch.equal(kept != 0, (means >= 0.8)[..., None, None].expand_as(x))


def test_the_largest_are_kept_per_token():
    x = torch.tensor([[1.0, -3.0, 2.0], [0.1, 0.3, -0.2]])
    assert torch.equal(TopK(torch.ones(()), 1)(x), torch.tensor([[0, -3.0, 0], [0, 0.3, 0]]))
    scaled = TopK(torch.tensor([10.0, 1.0, 1.0]), 1)(x)
    assert torch.equal(scaled, torch.tensor([[1.0, 0, 0], [0.1, 0, 0]]))


def test_gradients_go_straight_through():
    x = torch.tensor([[0.1, 2.0]], requires_grad=True)
    Threshold(torch.tensor(1.0))(x).mul(torch.tensor([3.0, 5.0])).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[3.0, 5.0]]))


@pytest.mark.parametrize("straight", [True, False])
def test_gradients_of_the_largest_are_those_asked_for(straight):
    x = torch.tensor([[0.1, 2.0, -3.0]], requires_grad=True)
    selection = TopK(torch.ones(()), 2, straight_through=straight)
    selection(x).mul(torch.tensor([3.0, 5.0, 7.0])).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[3.0 * straight, 5.0, 7.0]]))
    again = TopK.of(selection.tensors(), selection.settings)
    assert again.straight_through == straight


@pytest.mark.parametrize("method", ["lazy-neuron", "q-sparse"])
def test_numbers_that_are_kept_stay_while_weights_train(method):
    model, rows = llama(hidden_act="relu2"), tokens(4)
    th.activate(model, method, rows, sparsity=0.75, progress=False)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = model(input_ids=rows, labels=rows).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    with counting() as tallies, torch.no_grad():
        model(input_ids=rows)
    assert all(tally.sparsity >= 0.74 for tally in tallies.values())


def test_the_record_has_the_zeros_that_a_model_shows_by_itself():
    model = llama(hidden_act="relu")
    th.activate(model, "lazy-neuron", tokens(), sparsity=0.0, progress=False)
    record = th.activation_record(model)
    assert all(0.3 < site.sparsity < 0.7 for site in record.sites)
    assert {site.kind for site in record.sites} == {"down_proj"}


def test_teal_is_the_quantile_of_magnitudes():
    model = nn.Sequential(nn.Linear(16, 8))
    data = vectors(200)
    th.activate(model, "teal", data, sparsity=0.4, progress=False)
    threshold = attached(model)["0", "inputs"].threshold
    share = float((data.abs() < threshold).float().mean())
    assert share == pytest.approx(0.4, abs=0.001)
    with set_aside(model), torch.no_grad():
        expected = model(data * (data.abs() >= threshold))
    with torch.no_grad():
        torch.testing.assert_close(model(data), expected)


def test_wina_counts_column_norms():
    model = nn.Sequential(nn.Linear(16, 8))
    with torch.no_grad():
        model[0].weight[:, 3] *= 100
        model[0].weight[:, 5] = 0
    data = vectors(200)
    th.activate(model, "wina", data, sparsity=0.5, progress=False)
    dropped = attached(model)["0", "inputs"].dropped(data)
    worth = data.abs() * model[0].weight.detach().norm(dim=0)
    bound = worth[~dropped].min()
    assert bool((worth[dropped] <= bound + 1e-6).all())
    assert float(dropped[:, 3].float().mean()) < 0.05 < 0.4 < float(dropped.float().mean())
    assert dropped[:, 5].all()


def test_wina_per_token_keeps_the_same_number():
    model = nn.Sequential(nn.Linear(16, 8))
    th.activate(model, "wina", vectors(), sparsity=0.75, rule="top-k", progress=False)
    dropped = attached(model)["0", "inputs"].dropped(vectors(seed=3))
    assert bool((dropped.sum(-1) == 12).all())


def test_cats_drops_neurons_and_their_products():
    model = llama()
    th.activate(model, "cats", tokens(), sparsity=0.5, progress=False)
    assert {(n.rpartition(".")[2], side) for n, side in attached(model)} == {
        ("gate_proj", "outputs")
    }
    mlp_ = model.model.layers[1].mlp
    x = torch.randn(5, 16)
    z = functional.linear(x, mlp_.gate_proj.weight)
    gate = functional.silu(z)
    threshold = mlp_.gate_proj.sparse_outputs.threshold
    expected = mlp_.down_proj((gate * (gate.abs() >= threshold)) * mlp_.up_proj(x))
    torch.testing.assert_close(mlp_(x), expected)


def test_chess_thresholds_are_one_over_the_partner():
    model = llama()
    th.activate(model, "chess", tokens(), sparsity=0.5, progress=False)
    kinds = {name.rpartition(".")[2] for name, _ in attached(model)}
    assert kinds == {"q_proj", "o_proj", "gate_proj"}
    selection = model.model.layers[0].mlp.gate_proj.sparse_outputs
    up = model.model.layers[0].mlp.up_proj
    rows = []
    handle = up.register_forward_pre_hook(lambda _, args: rows.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        for row in tokens():
            model(input_ids=row[None])
    handle.remove()
    mean = functional.linear(torch.cat(rows), up.weight).abs().mean(0)
    product = selection.threshold * mean.detach()
    # Calibrated before attention became sparse.
    assert float(product.std() / product.mean()) < 0.15


def test_chess_knows_attention_by_what_it_does():
    model = gpt2()
    th.activate(model, "chess", tokens(), sparsity=0.5, progress=False)
    ends = {(".".join(name.split(".")[3:]), side) for name, side in attached(model)}
    assert ends == {("attn.c_proj", "inputs"), ("mlp.c_fc", "outputs")}


def test_r_sparse_reads_what_teal_reads():
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    data = torch.randn(500, 64)
    th.activate(model, "r-sparse", data, sparsity=0.5, progress=False, levels="uniform")
    selection = attached(model)["0", "inputs"]
    assert isinstance(selection, RankSplit)
    rank = selection.right.shape[0]
    kept = 1 - float(selection.dropped(data).float().mean())
    assert rank >= 0
    assert kept * 64 * 64 + rank * 128 == pytest.approx(0.5 * 64 * 64, rel=0.01)
    assert th.activation_record(model).sparsity == pytest.approx(0.5, abs=0.01)
    s = data.masked_fill(selection.dropped(data), 0)
    expected = s @ model[0].weight.T + (data - s) @ (selection.left @ selection.right).T
    torch.testing.assert_close(model(data), expected)


def test_r_sparse_factors_are_the_nearest_matrix():
    from thresher.activate.rsparse import RSparse
    from thresher.parts.activations.rules import SplitByRank

    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    recipe = RSparse(rule=SplitByRank(0.5), sparsity=0.5)
    th.activate(model, recipe, torch.randn(500, 64), progress=False)
    selection = attached(model)["0", "inputs"]
    rank = selection.right.shape[0]
    assert rank == 8
    values = torch.linalg.svdvals(model[0].weight.detach())
    error = (model[0].weight - selection.left @ selection.right).norm()
    torch.testing.assert_close(error.detach(), values[rank:].norm())


def test_greedy_levels_average_to_what_is_asked_and_are_no_worse():
    def block_error(levels):
        model = llama(hidden_size=64, intermediate_size=128)
        data = tokens(8)
        with torch.no_grad():
            dense = model.model(input_ids=data).last_hidden_state
        th.activate(model, "teal", data, sparsity=0.5, levels=levels, progress=False)
        record = th.activation_record(model)
        weights = sum(site.weights for site in record.sites)
        mean = sum(site.level * site.weights for site in record.sites) / weights
        assert mean == pytest.approx(0.5)
        with torch.no_grad():
            return float((model.model(input_ids=data).last_hidden_state - dense).norm()), record

    uniform, _ = block_error(UniformLevels())
    greedy, record = block_error(Greedy(samples=8))
    assert len({site.level for site in record.sites}) > 1
    assert greedy < uniform


def test_convolutions_drop_channels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 8, 3, groups=2), nn.ReLU(), nn.ConvTranspose2d(8, 16, 3))
    data = torch.randn(40, 16, 8, 8) * torch.rand(1, 16, 1, 1)
    for method in ("teal", "wina"):
        th.activate(model, method, [data], sparsity=0.5, progress=False, levels="uniform")
        record = th.activation_record(model)
        assert [site.name for site in record.sites] == ["0", "2"]
        assert record.sparsity == pytest.approx(0.5, abs=0.05)
        dropped = attached(model)["0", "inputs"].dropped(data)
        assert dropped.shape == (40, 16, 1, 1)


def test_column_norms_of_grouped_convolutions():
    from thresher.parts.activations.importance import ColumnNorm
    from thresher.parts.activations.sites import Site
    from thresher.parts.coverage import find_layers

    for layer in (nn.Conv2d(16, 8, 3, groups=2), nn.ConvTranspose2d(16, 8, 3, groups=2)):
        (found,) = find_layers(nn.Sequential(layer))
        norms = ColumnNorm()(Site.of_inputs(found), {})
        for channel in range(16):
            changed = torch.zeros(1, 16, 3, 3)
            changed[0, channel, 1, 1] = 1
            with torch.no_grad():
                wide = nn.functional.pad(changed, (2,) * 4)
                response = layer(wide) - layer(torch.zeros_like(wide))
            torch.testing.assert_close(norms[channel], response.norm(), rtol=1e-4, atol=1e-5)


def test_experts_without_a_call_stay_dense_and_are_named():
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        max_position_embeddings=32,
    )
    model = MixtralForCausalLM(config).eval()
    th.activate(model, "teal", tokens(), sparsity=0.5, progress=False)
    record = th.activation_record(model)
    assert record.coverage["kept"]["multiplied without a call of its own"] > 0
    assert {site.kind for site in record.sites} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_experts_that_are_called_are_covered():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

        def forward(self, x):
            chosen = x.argmax(-1) % 2
            return sum(
                (chosen == i)[:, None] * expert(x) for i, expert in enumerate(self.experts[:2])
            )

    model = Experts()
    with pytest.warns(UserWarning, match=r"never reaches 1 layers, such as 'experts\.2'"):
        th.activate(model, "teal", vectors(), sparsity=0.5, progress=False)
    assert [name for name, _ in attached(model)] == ["experts.0", "experts.1"]
    assert th.activation_record(model).unseen == ["experts.2"]


def test_a_fused_projection_has_one_threshold():
    model = gpt2()
    th.activate(model, "teal", tokens(), sparsity=0.5, progress=False, levels="uniform")
    assert ("transformer.h.0.attn.c_attn", "inputs") in attached(model)


def test_networks_that_no_method_of_neurons_knows_are_named():
    with pytest.raises(LayerError, match="use a method that drops inputs, such as 'teal'"):
        th.activate(cnn(), "cats", [images()], sparsity=0.5, progress=False)


def test_methods_that_are_none_are_named():
    with pytest.raises(OptionError, match="'wanda' does not make activations sparse"):
        th.activate(mlp(), "wanda", vectors(), sparsity=0.5)
    with pytest.raises(OptionError, match="did you mean 'teal'"):
        th.activate(mlp(), "teall", vectors(), sparsity=0.5)
    with pytest.raises(OptionError, match="'teal' does not prune"):
        th.prune(mlp(), "teal", vectors(), density=0.5)


def test_missing_pieces_are_named():
    with pytest.raises(OptionError, match=r"say how much to drop: sparsity=0\.5"):
        th.activate(mlp(), "teal", vectors())
    with pytest.raises(DataError, match="needs calibration data"):
        th.activate(mlp(), "teal", sparsity=0.5)
    with pytest.raises(DataError, match="empty"):
        th.activate(mlp(), "teal", [], sparsity=0.5)
    with pytest.raises(OptionError, match="did you mean 'greedy'"):
        th.activate(mlp(), "teal", vectors(), sparsity=0.5, levels="greeedy")


def test_a_selection_counts_what_it_drops_and_finds_zero():
    layer = nn.Linear(4, 2)
    attach("layer", layer, Threshold(torch.tensor(1.0)))
    with counting() as tallies:
        layer(torch.tensor([[0.5, 2.0, 0.0, -3.0]]))
    assert tallies["layer.sparse_inputs"].sparsity == 0.5


def test_set_aside_is_the_dense_model():
    model = llama()
    th.activate(model, "r-sparse", tokens(), sparsity=0.5, progress=False)
    rows = tokens(2, seed=4)
    with torch.no_grad():
        sparse = model(input_ids=rows).logits
        with set_aside(model):
            assert torch.equal(model(input_ids=rows).logits, llama()(input_ids=rows).logits)
            assert model.state_dict().keys() == llama().state_dict().keys()
        assert torch.equal(model(input_ids=rows).logits, sparse)


def test_inputs_by_keyword_are_selected():
    layer = nn.Linear(4, 2)
    attach("layer", layer, Threshold(torch.tensor(1.0)))
    x = torch.tensor([[0.5, 2.0, 0.1, -3.0]])
    torch.testing.assert_close(layer(input=x), layer(x))


def test_an_encoder_and_padding():
    rows = tokens(3)
    mask = torch.ones_like(rows)
    mask[:, 12:] = 0
    model = bert()
    data = [{"input_ids": rows, "attention_mask": mask}]
    th.activate(model, "teal", data, sparsity=0.5, progress=False)
    assert len(attached(model)) == 19


def test_a_model_that_was_compiled_before_drops_too():
    model = mlp()
    compiled = torch.compile(model, backend="eager")
    data = vectors(8, seed=5)
    with torch.no_grad():
        before = compiled(data)
        th.activate(compiled, "teal", vectors(), sparsity=0.5, progress=False)
        after = compiled(data)
        torch.testing.assert_close(after, model(data))
    assert not torch.equal(before, after)


def test_torchs_fused_encoder_does_not_pass_selections_by():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    data = torch.randn(8, 12, 16)
    with torch.no_grad():
        dense = model(data)
        th.activate(model, "teal", [data], sparsity=0.5, progress=False)
        with counting() as tallies:
            sparse = model(data)
    kinds = {name.rpartition(".")[2] for name, _ in attached(model)}
    assert kinds == {"linear1", "linear2"}
    assert len(tallies) == 4
    assert not torch.equal(dense, sparse)
    record = th.activation_record(model)
    assert record.coverage["kept"]["multiplied without a call of its own"] > 0
