import pytest
import torch
from small_models import bert, cnn, gpt2, llama, mlp
from torch import nn

from thresher.core.errors import LayerError, NumericalError
from thresher.parts.coverage import find_layers
from thresher.parts.layers import Layer

CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3), (2, 4, 11)),
    (nn.Conv1d(4, 6, 5, stride=2, padding=2, dilation=2, groups=2), (2, 4, 20)),
    (nn.Conv2d(3, 5, 3), (2, 3, 8, 9)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 4, 9, 8)),
    (nn.Conv2d(4, 8, 3, padding="same", groups=4), (2, 4, 7, 7)),
    (nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 7, 7)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 7)),
    (nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular", stride=3), (2, 4, 7, 7)),
    (nn.Conv3d(2, 4, 2, stride=2, groups=2), (2, 2, 6, 6, 6)),
]


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS, ids=str)
def test_the_matrix_times_the_inputs_is_the_modules_output(module, shape):
    layer = Layer("conv", module)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rows, matrix = layer.inputs(x), layer.matrix()
    assert matrix.shape == layer.shape
    product = rows @ matrix.mT
    if matrix.dim() == 3:
        product = product.movedim(0, 1).flatten(1)
    expected = module(x)
    if module.bias is not None:
        expected = expected - module.bias.reshape(-1, *[1] * len(module.kernel_size))
    channel = 0 if x.dim() == len(module.kernel_size) + 1 else 1
    expected = expected.movedim(channel, -1).reshape(-1, module.out_channels)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-5)


def test_linear_and_hugging_face_conv1d():
    from transformers.pytorch_utils import Conv1D

    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    for module in (nn.Linear(4, 3), Conv1D(3, 4)):
        layer = Layer("layer", module)
        assert layer.shape == tuple(layer.matrix().shape) == (3, 4)
        product = layer.inputs(x) @ layer.matrix().T + module.bias
        torch.testing.assert_close(product, module(x).reshape(-1, 3))


@pytest.mark.parametrize("module", [module for module, _ in CONVOLUTIONS], ids=str)
def test_storing_undoes_the_matrix_form(module):
    layer = Layer("conv", module)
    assert torch.equal(layer.store(layer.matrix()), module.weight)


def test_input_channels_vary_fastest():
    layer = Layer("conv", nn.Conv2d(4, 2, 3))
    assert torch.equal(layer.matrix()[1, 4:8], layer.weight[1, :, 0, 1])


@pytest.mark.parametrize(
    ("make", "dense"),
    [
        (llama, {"lm_head", "model.embed_tokens"}),
        (lambda: llama(tied=True), {"lm_head", "model.embed_tokens"}),
        (gpt2, {"lm_head", "transformer.wte"}),
        (bert, {"embeddings.word_embeddings"}),
    ],
)
def test_heads_and_embeddings_stay_dense(make, dense):
    model = make()
    found = {layer.name for layer in find_layers(model)}
    assert found
    assert not found & dense


def test_every_layer_of_plain_models_is_found_in_order():
    assert [layer.name for layer in find_layers(mlp())] == ["0", "2", "4"]
    names = [layer.name for layer in find_layers(cnn())]
    assert names[0] == "stem"
    assert names[-1] == "classifier"
    assert len(names) == 8


def test_include_and_exclude():
    names = {layer.name for layer in find_layers(llama(), include=["lm_head"])}
    assert "lm_head" in names
    names = {layer.name for layer in find_layers(llama(), exclude=["*.mlp.*"])}
    assert names
    assert not any(".mlp." in name for name in names)
    both = find_layers(llama(), include=["lm_head"], exclude=["lm_head"])
    assert "lm_head" not in {layer.name for layer in both}


def test_nothing_to_prune_is_named():
    with pytest.raises(LayerError, match="Sequential has no layer to prune"):
        find_layers(nn.Sequential(nn.Embedding(4, 4), nn.ReLU()))
    with pytest.raises(LayerError, match=r"exclude=\['\*'\]"):
        find_layers(mlp(), exclude=["*"])


def test_bad_weights_name_the_layer_and_count():
    model = mlp()
    with torch.no_grad():
        model[2].weight[0, :3] = torch.nan
        model[2].weight[1, 0] = torch.inf
    with pytest.raises(NumericalError, match="'2' has 4 NaN or infinite weights of 1024"):
        find_layers(model)[1].check_finite()
