"""Batch norms, padding and activations joined with convolutions, dense and packed."""

from __future__ import annotations

import torch
from thresher.evidence._folding import fold_convolutions, fuse_activations
from torch import nn

from thresher.run import pack
from thresher.run.packed.conv import PackedConv2d


def small_network():
    torch.manual_seed(0)
    block = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16))
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)),
        nn.ReLU6(),
        nn.Sequential(block, nn.ReLU()),
        nn.Conv2d(16, 16, 1, padding_mode="reflect", padding=0),
        nn.Flatten(),
        nn.Linear(16 * 64, 10),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.Conv2d):
            module.weight.data *= torch.rand_like(module.weight) < 0.2
    return model.eval()


def test_pack_and_fuse_keep_outputs(capsys):
    model = small_network()
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)
    fold_convolutions(model)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.ZeroPad2d) for m in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    pack(model, batch=(1,), repeats=1, gain=0.0, example=x)
    assert isinstance(model[0][0], PackedConv2d)
    assert isinstance(model[2][0][1], PackedConv2d)
    assert type(model[3]) is nn.Conv2d
    fuse_activations(model)
    assert not any(isinstance(m, nn.ReLU | nn.ReLU6) for m in model.modules())
    assert (model[0][0].low, model[0][0].high) == (0, 6)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert "16 x 72" in capsys.readouterr().out


def test_pads_that_differ_stay():
    model = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(2, 2, 2))
    x = torch.randn(1, 2, 5, 5)
    expected = model(x)
    fold_convolutions(model)
    assert type(model[0]) is nn.ZeroPad2d
    torch.testing.assert_close(model(x), expected)
