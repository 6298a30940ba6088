"""The lazy neuron phenomenon: zeros that training makes, and what top k neurons are good for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from thresher.activate import activate
from thresher.activate.lazy_neuron import LazyNeuron
from thresher.core.evidence import Experiment
from thresher.parts.activations.attached import counting

from .. import _models as models
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, means

_WIDTH, _NEURONS, _BLOCKS, _EPOCHS = 32, 256, 2, 30
#: Neurons of 256 that are dropped: 16 are kept, a share as the paper's 128 of 3,072.
_SPARSITY = 1 - 16 / 256
#: Share of wrong labels, and standard deviation of noise on pixels from 0 to 1.
_WRONG_LABELS, _NOISE, _BINS = 0.4, 0.3, 10
_CLEAN, _LABELS, _INPUTS = "clean", "noisy labels", "corrupted inputs"


class Transformer(nn.Module):
    """A transformer that classifies images by their 16 patches of 2 x 2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(4, _WIDTH), nn.Parameter(torch.zeros(16, _WIDTH))
        self.blocks = nn.ModuleList(_Block() for _ in range(_BLOCKS))
        self.head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of ten classes."""
        x = self.embed(nn.functional.unfold(images, 2, stride=2).mT) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(_WIDTH) for _ in range(2))
        self.projections, self.mixed = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.up, self.down = nn.Linear(_WIDTH, _NEURONS), nn.Linear(_NEURONS, _WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            self.projections(self.norms[0](x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.mixed(seen.transpose(1, 2).flatten(2))
        return x + self.down(torch.relu(self.up(self.norms[1](x))))


@dataclass(frozen=True)
class Answer:
    """What a classifier does on held-out images."""

    wrong: float
    calibration_error: float
    density: float


@functools.lru_cache(maxsize=4)
def _trained(drawn: Draw, noisy: bool, sparsity: float, share: float) -> nn.Module:
    """Return a classifier with its selections, after a share of the training."""
    images, labels = models.digits()[:2]
    if noisy:
        rng = drawn.rng
        wrong = torch.from_numpy(rng.random(len(labels)) < _WRONG_LABELS)
        others = torch.from_numpy(rng.integers(0, 10, len(labels)))
        labels = torch.where(wrong, others, labels)
    torch.manual_seed(drawn.seed)
    model = Transformer()
    activate(model, LazyNeuron(sparsity=sparsity), images[:64], progress=False)
    epochs = drawn.amount(_EPOCHS) if share else 0
    models.train_classifier(model, drawn.seed, epochs, data=(images, labels))
    return model


def _method(sparsity: float, share: float) -> Callable[[tuple[str, Draw]], Answer]:
    def run(problem: tuple[str, Draw]) -> Answer:
        setting, drawn = problem
        model = _trained(drawn, setting == _LABELS, sparsity, share)
        images, labels = models.digits()[2:]
        if setting == _INPUTS:
            generator = torch.Generator().manual_seed(drawn.seed)
            images = images + _NOISE * torch.randn(images.shape, generator=generator)
        with counting() as tallies, torch.no_grad():
            odds = model(images).softmax(dim=-1)
        zeros = np.mean([tally.sparsity for tally in tallies.values()])
        wrong = 100 * float((odds.argmax(-1) != labels).float().mean())
        return Answer(wrong, calibration_error(odds, labels), 1 - float(zeros))

    return run


def calibration_error(odds: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the expected calibration error: how far confidence is from accuracy, by its bins."""
    confidence, guess = odds.max(dim=-1)
    right = (guess == labels).float()
    place = (confidence * _BINS).long().clamp(max=_BINS - 1)
    gaps = [(right - confidence)[place == b].sum().abs() for b in range(_BINS)]
    return float(torch.stack(gaps).sum() / len(labels))


def _rule(found: Found) -> Slacks:
    slacks = {}
    for setting, measure in (
        (_LABELS, "wrong"), (_INPUTS, "wrong"), (_CLEAN, "calibration_error")
    ):  # fmt: skip
        there = found.where(problem=setting)
        slack = lower(there.lead(measure, "Top-k", "ReLU"))
        slacks[f"{setting}: {measure} of Top-k below ReLU's"] = float(slack[0])
    for setting in (_CLEAN, _LABELS):
        there = found.where(problem=setting)
        slack = lower(there.lead("density", "ReLU", "untrained"))
        slacks[f"{setting}: fewer neurons active than before training"] = float(slack[0])
    return slacks


experiment = Experiment(
    method=LazyNeuron.card.name,
    claim="Training makes the neurons of a transformer with ReLUs mostly zero, also on labels that "
    "are partly random; and keeping the k largest of a token is less sensitive to noisy labels, "
    "more robust to corrupted inputs and better calibrated. (That larger models are sparser is not "
    "judged.)",
    baseline="the same transformer without Top-k; the transformer before training",
    run=Judged(
        study=Study(
            over=("problem",),
            settings={name: name for name in (_CLEAN, _LABELS, _INPUTS)},
            draw=lambda setting, drawn: (setting, drawn),
            methods={
                "Top-k": _method(_SPARSITY, 1.0),
                "ReLU": _method(0.0, 1.0),
                "untrained": _method(0.0, 0.0),
            },
            measures={
                "wrong": lambda answer, _: answer.wrong,
                "calibration_error": lambda answer, _: answer.calibration_error,
                "density": lambda answer, _: answer.density,
            },
            workers=2,
        ),
        rule=_rule,
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={"Top-k": ("ReLU",), "ReLU": ("untrained",)},
        say=lambda found: (
            "Active neurons: "
            + "; ".join(
                f"{name} " + ", ".join(f"{v:.0%}" for v in found.mean("density", name))
                for name in found.study.methods
            )
            + "."
        ),
        note="Slacks are points of accuracy, calibration errors and shares of neurons. A "
        f"transformer of {_BLOCKS} blocks of {_WIDTH} channels and {_NEURONS} neurons classifies "
        f"digits of 8 x 8 pixels; {_WRONG_LABELS:.0%} of the labels are drawn anew, and corrupted "
        f"inputs have noise of deviation {_NOISE}. The paper has ViT on ImageNet.",
        reason="a thousand images and 256 neurons leave little that k could leave out.",
    ),
    seeds=(0, 1, 2, 3),
)
