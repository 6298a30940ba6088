"""Essential sparsity of a character model and of digit encoders, by pre-training data and loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from thresher.core.evidence import Earlier, Experiment
from thresher.parts.scores import Random
from thresher.prune.essential_sparsity import EssentialSparsity, SparsitySweep

from .. import _models as models
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, means

#: Share of the text that the model with little pre-training data sees.
_LITTLE = 1 / 64
#: Two models are pre-trained per seed, so each gets half the usual steps.
_STEPS = 0.5
_GRID, _GROUP = 16, 8
_SPARSITIES = tuple(step / _GRID for step in range(_GRID))
_TOLERANCE = 0.01
#: The drop is looked for up to the first loss above this, beyond which curves flatten out, but
#: among no fewer points, since three parameters fit a few of them whatever the curve.
_FAR, _POINTS = 0.5, 8
_SHARP, _GROUPED = "magnitude", f"magnitude, N of {_GROUP}"


@functools.lru_cache(maxsize=6)
def _sweep(drawn: Draw, name: str) -> SparsitySweep:
    """Return the losses along the grid of sparsities; each model of a draw is swept once."""
    search = EssentialSparsity(tolerance=_TOLERANCE, sparsities=_SPARSITIES)
    if name in ("supervised", "self-supervised"):
        train = _train_supervised if name == "supervised" else _train_self_supervised
        return search.sweep(train(drawn.seed, drawn.scale), _probe_accuracy)
    search = {
        "random": replace(search, score=Random(drawn.seed)),
        _GROUPED: replace(search, group=_GROUP),
    }.get(name, search)
    share = _LITTLE if name == "little data" else 1.0
    model = models.language_model(drawn.seed, _STEPS * drawn.scale, share)
    metric = partial(models.log_perplexity, scale=drawn.scale)
    return search.sweep(model, metric, lower_is_better=True)


def _loss(name: str) -> Callable[[tuple[Draw, float]], float | None]:
    """Return the method that sweeps a model and reads its loss at a sparsity."""

    def at(problem: tuple[Draw, float]) -> float | None:
        drawn, sparsity = problem
        sweep = _sweep(drawn, name)
        return dict(zip(sweep.sparsities, sweep.losses, strict=True)).get(sparsity)

    return at


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
    encoder, decoder = _encoder(seed), nn.Linear(128, 64)
    images = models.digits()[0]
    order, masking = (torch.Generator().manual_seed(seed) for _ in range(2))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    for _ in range(models.amount(60, scale)):
        for chosen in torch.randperm(len(images), generator=order).split(128):
            batch = images[chosen]
            seen = torch.rand(batch.shape, generator=masking) < 0.5
            optimizer.zero_grad()
            nn.functional.mse_loss(decoder(encoder(batch * seen)), batch.flatten(1)).backward()
            optimizer.step()
    return encoder


@torch.no_grad()
def _probe_accuracy(encoder: nn.Module) -> float:
    """Return the accuracy of a linear classifier fitted to the encoder's features."""
    train_x, train_y, test_x, test_y = models.digits()
    probe = LogisticRegression(max_iter=200)
    probe.fit(encoder(train_x).numpy(), train_y.numpy())
    return float(probe.score(encoder(test_x).numpy(), test_y.numpy()))


def knees(found: Found, name: str) -> np.ndarray:
    """Return the last sparsity before the loss first exceeds the tolerance, of every draw."""
    return np.array(
        [SparsitySweep(*_curve(found, name, d), _TOLERANCE).knee for d in range(_draws(found))]
    )


def sharpness(sparsities: np.ndarray, losses: np.ndarray) -> float:
    """Return the logarithm of how much better a broken line fits a curve than any smooth one.

    The line has two slopes and a break; smooth curves are a line plus a power of the sparsity,
    an exponential, or a power of the density, with as many parameters. Growing ever faster is not
    enough to be above zero: the slope must change at one place.
    """
    over = np.flatnonzero(losses > _FAR)
    end = max(_POINTS, over[0] + 1) if len(over) else len(losses)
    s, y = np.asarray(sparsities[:end]), np.asarray(losses[:end])
    broken = [np.maximum(0, s - at) for at in np.linspace(0, s[-1], 200, endpoint=False)]
    smooth = [
        *(s**power for power in np.linspace(1.05, 40, 400)),
        *(np.expm1(rate * s) / np.expm1(rate) for rate in np.geomspace(0.1, 80, 200)),
        *((1 - s) ** -power - 1 for power in np.geomspace(0.05, 20, 200)),
    ]
    return float(np.log(_residual(s, y, smooth) / _residual(s, y, broken)))


def _residual(s: np.ndarray, y: np.ndarray, bends: list[np.ndarray]) -> float:
    """Return the least root mean square residual of a line from zero plus one of the bends."""
    residuals = []
    for bend in bends:
        design = np.stack([s, bend], axis=1)
        residuals.append(float(np.linalg.norm(y - design @ np.linalg.lstsq(design, y)[0])))
    # Rounding alone, when a curve is fitted to the last digit.
    return max(min(residuals), 1e-9 * float(np.linalg.norm(y)), 1e-300) / len(y) ** 0.5


def _curve(found: Found, name: str, draw: int) -> tuple[np.ndarray, np.ndarray]:
    losses = found.of("loss", name)[:, draw]
    kept = ~np.isnan(losses)
    return np.array(found.study.keys)[kept, 0], losses[kept]


def _draws(found: Found) -> int:
    return found.of("loss", _SHARP).shape[1]


def _rule(found: Found) -> Slacks:
    knee = {name: knees(found, name) for name in found.study.methods}
    parts = {
        "magnitude: knee above random pruning's": knee[_SHARP] - knee["random"],
        f"N of {_GROUP}: knee above random pruning's": knee[_GROUPED] - knee["random"],
        "knee rises with pre-training data": knee[_SHARP] - knee["little data"],
        "knee is higher for self-supervision": knee["self-supervised"] - knee["supervised"],
    }
    for name in (_SHARP, _GROUPED):
        sharp = [sharpness(*_curve(found, name, d)) for d in range(_draws(found))]
        parts[f"{name}: a broken line fits better than smooth curves"] = np.array(sharp)
    return {part: float(lower(values)) for part, values in parts.items()}


def _knees(found: Found) -> str:
    means = {name: float(knees(found, name).mean()) for name in found.study.methods}
    return "Knees: " + ", ".join(f"{name} {knee:.2f}" for name, knee in means.items()) + "."


_SWEEPS = (_SHARP, "random", _GROUPED, "little data", "supervised", "self-supervised")

experiment = Experiment(
    method=EssentialSparsity.card.name,
    claim="One-shot magnitude pruning has a sharp drop point, unstructured and N:M, which is "
    "higher with more pre-training data and with self-supervised than with supervised "
    "pre-training. (That BERT becomes sparse abruptly while it is pre-trained is not judged.)",
    baseline="random pruning, smooth convex curves, little pre-training data, supervised "
    "pre-training",
    run=Judged(
        study=Study(
            over=("sparsity",),
            settings={sparsity: sparsity for sparsity in _SPARSITIES},
            draw=lambda sparsity, drawn: (drawn, sparsity),
            methods={name: _loss(name) for name in _SWEEPS},
            measures={"loss": lambda loss, _: loss},
            workers=2,
        ),
        rule=_rule,
        view=means("loss", "Loss of one-shot pruning relative to dense", "loss"),
        against={
            _SHARP: ("random", "little data"),
            _GROUPED: ("random",),
            "self-supervised": ("supervised",),
        },
        say=_knees,
        note="A knee is the last sparsity before the loss first exceeds "
        f"{_TOLERANCE:.0%} of the dense model's; slacks are differences of knees, and for "
        "sharpness logarithms of residuals. Character models of 0.15 M weights and encoders of "
        "digits stand for large language and vision models.",
    ),
    seeds=(0, 1, 2, 3),
    earlier=(
        Earlier(
            rule="the loss grows faster beyond the knee than the tolerance allows up to it, and "
            "the knee is above random pruning's, rises with data, and is higher for "
            "self-supervision, by one standard error",
            reproduced=False,
            margin=-0.260763,
            why="any smooth convex curve passes that test of sharpness, and N:M was not judged",
        ),
    ),
)
