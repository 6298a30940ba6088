"""Essential sparsity of a character model and of digit encoders, by pre-training data and loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from thresher.core.evidence import Experiment, Outcome
from thresher.parts.scores import Random
from thresher.prune.essential_sparsity import EssentialSparsity, SparsitySweep

from .. import _models as models
from .._plots import lines
from .._statistics import paired_margin

#: Share of the text that the model with little pre-training data sees.
_LITTLE = 1 / 64
#: Two models are pre-trained per seed, so each gets half the usual steps.
_STEPS = 0.5


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    sweeps: dict[str, list[SparsitySweep]] = {
        "magnitude": [],
        "random": [],
        "magnitude, groups of 8": [],
        "little data": [],
        "supervised": [],
        "self-supervised": [],
    }
    steps = models.amount(20, min(scale, 1), 5)
    search = EssentialSparsity(sparsities=[step / steps for step in range(steps)])
    for seed in seeds:
        metric = partial(models.log_perplexity, scale=scale)
        whole = models.language_model(seed, _STEPS * scale)
        little = models.language_model(seed, _STEPS * scale, _LITTLE)
        of_loss = {"metric": metric, "lower_is_better": True}
        sweeps["magnitude"].append(search.sweep(whole, **of_loss))
        by_chance = replace(search, score=Random(seed))
        sweeps["random"].append(by_chance.sweep(whole, **of_loss))
        grouped = replace(search, group=8)
        sweeps["magnitude, groups of 8"].append(grouped.sweep(whole, **of_loss))
        sweeps["little data"].append(search.sweep(little, **of_loss))
        for name, train in (
            ("supervised", _train_supervised),
            ("self-supervised", _train_self_supervised),
        ):
            encoder = train(seed, scale)
            sweeps[name].append(search.sweep(encoder, _probe_accuracy))
    return _verdict(sweeps)


def _encoder(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()
    )


def _train_supervised(seed: int, scale: float) -> nn.Module:
    encoder = _encoder(seed)
    model = nn.Sequential(encoder, nn.Linear(128, 10))
    models.train_classifier(model, seed, models.amount(60, scale))
    return encoder


def _train_self_supervised(seed: int, scale: float) -> nn.Module:
    """Train an encoder to fill in half of an image's pixels, from the other half."""
    encoder = _encoder(seed)
    decoder = nn.Linear(128, 64)
    images = models.digits()[0]
    masking = torch.Generator().manual_seed(seed)

    def fill_in(batch: torch.Tensor) -> torch.Tensor:
        seen = torch.rand(batch.shape, generator=masking) < 0.5
        guess = decoder(encoder(batch * seen))
        return nn.functional.mse_loss(guess, batch.flatten(1))

    _train(nn.ModuleList([encoder, decoder]), images, fill_in, seed, models.amount(60, scale))
    return encoder


def _train(
    model: nn.Module,
    images: torch.Tensor,
    loss: Callable[[torch.Tensor], torch.Tensor],
    seed: int,
    epochs: int,
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=order).split(128):
            optimizer.zero_grad()
            loss(images[batch]).backward()
            optimizer.step()


@torch.no_grad()
def _probe_accuracy(encoder: nn.Module) -> float:
    """Return the accuracy of a linear classifier fitted to the encoder's features."""
    train_x, train_y, test_x, test_y = models.digits()
    probe = LogisticRegression(max_iter=200)
    probe.fit(encoder(train_x).numpy(), train_y.numpy())
    return float(probe.score(encoder(test_x).numpy(), test_y.numpy()))


def _verdict(sweeps: dict[str, list[SparsitySweep]]) -> Outcome:
    """Hold only if there is a sharp knee above chance that moves both ways as claimed."""
    knees = {name: np.array([sweep.knee for sweep in found]) for name, found in sweeps.items()}
    sharpness = float(np.mean([sweep.sharpness for sweep in sweeps["magnitude"]]))
    margins = {
        "sharpness above 1": sharpness - 1,
        "knee above random pruning's": paired_margin(knees["magnitude"] - knees["random"]),
        "knee rises with pre-training data": paired_margin(
            knees["magnitude"] - knees["little data"]
        ),
        "knee is higher for self-supervision": paired_margin(
            knees["self-supervised"] - knees["supervised"]
        ),
    }
    margin = min(margins.values())
    failed = [name for name, value in margins.items() if value <= 0]
    summary = (
        "Essential sparsity (1 % tolerance): "
        + ", ".join(f"{name} {values.mean():.2f}" for name, values in knees.items())
        + f". Beyond the knee the loss grows {sharpness:.1f} times faster than up to it."
    )
    if failed:
        summary += f" Not found here: {'; '.join(failed)}. Suspected reason: {_reason(sweeps)}."
    table = [
        {
            "sweep": name,
            "seed_index": index,
            "knee": sweep.knee,
            "sharpness": sweep.sharpness,
            **{
                f"loss_at_{at:g}": float(np.interp(at, sweep.sparsities, sweep.losses))
                for at in (0.25, 0.5, 0.75)
            },
        }
        for name, found in sweeps.items()
        for index, sweep in enumerate(found)
    ]
    grid = sweeps["magnitude"][0].sparsities
    figure = lines(
        grid,
        {
            name: 100 * np.mean([np.interp(grid, s.sparsities, s.losses) for s in found], axis=0)
            for name, found in sweeps.items()
        },
        title="Cost of one-shot pruning",
        x_title="sparsity",
        y_title="metric lost relative to dense (%)",
    )
    figure.update_yaxes(range=[-2, 30])
    return Outcome(margin > 0, margin, summary, table, figure)


def _reason(sweeps: dict[str, list[SparsitySweep]]) -> str:
    gain = -float(np.mean([min(sweep.losses) for sweep in sweeps["little data"]]))
    if gain > 0.01:
        return (
            "the model with little data has learnt it by heart, and pruning it first improves its "
            f"loss on other text, by {100 * gain:.1f} %; the encoders are small and of one task"
        )
    return "models this small learn from one narrow source, where the paper compares large ones"


experiment = Experiment(
    method="essential-sparsity",
    claim="One-shot magnitude pruning has a sharp drop point, higher with more pre-training data "
    "and with self-supervised than with supervised pre-training.",
    baseline="random pruning, little pre-training data, supervised pre-training",
    run=_run,
)
