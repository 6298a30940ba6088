"""A wide bank-balanced network against a narrow dense one: accuracy and speed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from thresher.core.evidence import Experiment, Outcome
from thresher.parts.patterns import NM
from thresher.run.layouts import BankBalanced
from thresher.run.measure.timing import compare

from .. import _models as models
from .._plots import lines
from .._statistics import paired_margin
from ._banks import BankedAccelerator

#: The sparse network is twice as wide: at 8 times sparsity it has half of the dense weights.
_FACTORS = (8, 16, 32)
_WIDTH = 512
_EPOCHS = 24
_BANK = 64
#: A round machine whose memory feeds one weight of 2 bytes for every 32 products.
_CHIP = BankedAccelerator(products_per_second=32e9, bytes_per_second=2e9, bank=_BANK)
_BATCH = 16


def _network(width: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))


def _prune_and_train(model: nn.Module, factor: int, seed: int, epochs: int) -> None:
    """Keep the largest weights of every bank of the middle layer, then train on."""
    weight = model.get_submodule("3").weight
    pattern = NM(_BANK // factor, _BANK)
    mask = pattern.mask(weight.detach().abs(), weight.numel() // factor)
    weight.data *= mask
    models.train_classifier(model, seed, epochs, masks={"3": mask})


def _speedup(dense: torch.Tensor, sparse: torch.Tensor) -> tuple[float, bool]:
    """Return dense over sparse time of the middle layers, in bfloat16, at batch 1."""
    packed, rival = BankBalanced.from_dense(sparse.bfloat16()), dense.bfloat16()
    inputs = [torch.randn(1, w.shape[1]).bfloat16() for w in (dense, sparse)]
    functions = {
        "dense": lambda: nn.functional.linear(inputs[0], rival),
        "sparse": lambda: packed.matmul(inputs[1]),
    }
    with torch.no_grad():
        compared = compare(functions, 15)
    return compared.best("dense") / compared.best("sparse"), compared.noisy


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    width = _BANK * models.amount(_WIDTH // _BANK, scale, 1)
    epochs = models.amount(_EPOCHS, scale, 2)
    found: dict[int, list[dict[str, float]]] = {factor: [] for factor in _FACTORS}
    noisy = False
    for seed in seeds:
        narrow = _network(width, seed)
        models.train_classifier(narrow, seed, epochs)
        dense_accuracy = models.accuracy(narrow)
        small = narrow.get_submodule("3").weight.detach()
        wide = _network(2 * width, seed)
        models.train_classifier(wide, seed, epochs // 2)
        start = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
        for factor in _FACTORS:
            wide.load_state_dict(start)
            _prune_and_train(wide, factor, seed, epochs - epochs // 2)
            sparse = wide.get_submodule("3").weight.detach()
            speedup, busy = _speedup(small, sparse)
            noisy |= busy
            found[factor].append(
                {
                    "gain": models.accuracy(wide) - dense_accuracy,
                    "dense_accuracy": dense_accuracy,
                    "speedup": speedup,
                    "predicted": _CHIP.seconds(small, _BATCH) / _CHIP.seconds(sparse, _BATCH),
                }
            )
    return _outcome(found, width, noisy)


def _outcome(found: dict[int, list[dict[str, float]]], width: int, noisy: bool) -> Outcome:
    table = []
    for factor, runs in found.items():
        gains = [run["gain"] for run in runs]
        table.append(
            {
                "sparsity": f"{factor}x",
                "weights_of_dense": 4 / factor,
                "dense_accuracy": float(np.mean([run["dense_accuracy"] for run in runs])),
                "accuracy_gain": float(np.mean(gains)),
                "gain_less_its_error": paired_margin(gains),
                "speedup_here": float(np.median([run["speedup"] for run in runs])),
                "speedup_on_banks": float(np.median([run["predicted"] for run in runs])),
            }
        )
    # Both must hold in one row: the smaller of the two, in points and in percent.
    margins = [min(row["gain_less_its_error"], row["speedup_here"] - 1) for row in table]
    margin = max(margins)
    summary = (
        f"A middle layer of {2 * width} x {2 * width} with balanced banks of {_BANK} against a "
        f"dense one of {width} x {width}, on digits: "
        + "; ".join(
            f"{row['sparsity']} sparse: accuracy {row['accuracy_gain']:+.4f}, "
            f"{row['speedup_here']:.2f} times as fast here, {row['speedup_on_banks']:.2f} "
            f"predicted for hardware with banks at batch {_BATCH}"
            for row in table
        )
        + ". The claim holds if at one sparsity the paired gain in accuracy exceeds its standard "
        "error and the layer is also faster here, in bfloat16 at batch 1; the margin is the "
        "smaller of the two advantages, at the best sparsity."
    )
    if max(row["speedup_here"] for row in table) <= 1:
        summary += " A processor has no multiplier for each bank, and looks every survivor up."
    if max(row["gain_less_its_error"] for row in table) <= 0:
        summary += " Digits are so easy that a wider network has nothing to gain."
    if noisy:
        summary += " The machine was busy while this was measured."
    figure = lines(
        [row["sparsity"] for row in table],
        {
            "measured on this processor": [row["speedup_here"] for row in table],
            "predicted for hardware with banks": [row["speedup_on_banks"] for row in table],
        },
        title="Wide sparse layer against narrow dense one",
        x_title="sparsity of the wide layer",
        y_title="dense time / sparse time",
    )
    return Outcome(margin > 0, margin, summary, table, figure)


experiment = Experiment(
    method="s4",
    claim="A sparse model of larger size can be both more accurate and faster than a dense model "
    "of smaller size.",
    baseline="a dense network of half the width, trained for as many epochs",
    run=_run,
    seeds=(0, 1, 2, 3, 4),
)
