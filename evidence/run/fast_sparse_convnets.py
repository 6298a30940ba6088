"""EfficientNet-Lite0 with sparse 1x1 convolutions against the dense network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from thresher.core.evidence import Experiment, Outcome
from thresher.run.measure.timing import compare

from .. import _convolutions as convolutions
from .. import _models as models
from .._plots import lines

_SPARSITIES = (0.7, 0.8, 0.9, 0.95)
_JUDGED, _LEAST = 0.8, 1.3


def _times(density: float, seed: int, repeats: int) -> tuple[dict[str, float], bool]:
    networks, x, _ = convolutions.packed_network(density, seed, repeats=1)
    with torch.no_grad():
        # Warm: images pass from layer to layer through the caches, and the weights fit as well.
        compared = compare(
            {name: partial(run, x) for name, run in networks.items()}, repeats, cold=False
        )
    return {name: compared.best(name) for name in networks}, compared.noisy


def _ratios(table: list[dict[str, float]]) -> tuple[float, float]:
    """Return the judged ratios, to torch and to the same kernels without zeros."""
    (judged,) = (row for row in table if row["sparsity"] == _JUDGED)
    return judged["faster_than_torch"], judged["faster_than_own_dense"]


def _summary(table: list[dict[str, float]], noisy: bool) -> str:
    torch_ratio, own_ratio = _ratios(table)
    summary = (
        f"EfficientNet-Lite0, one image, at {_JUDGED:.0%} sparsity of the 1x1 convolutions: "
        f"{torch_ratio:.2f} times faster than the faster of torch's two dense orders of memory, "
        f"{own_ratio:.2f} times faster than the same kernels without zeros. The claim holds if "
        f"both are at least {_LEAST}; the margin is the smaller less that."
    )
    if min(torch_ratio, own_ratio) < _LEAST:
        summary += (
            " Why it falls short: sparsity shortens the 1x1 convolutions only, and those without "
            "zeros are already fast here, so that depthwise convolutions and additions weigh more."
        )
    summary += " Random weights: accuracy is not measured here."
    if noisy:
        summary += " The machine was busy while this was measured."
    return summary


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    repeats = models.amount(15, scale, 3)
    sparsities = _SPARSITIES if scale >= 1 else (_JUDGED,)
    table, noisy = [], False
    for sparsity in sparsities:
        found = [_times(1 - sparsity, seed, repeats) for seed in seeds]
        noisy |= any(busy for _, busy in found)
        times = [times for times, _ in found]
        torch_dense = [min(t[convolutions.DENSE], t[convolutions.LAST]) for t in times]
        table.append(
            {
                "sparsity": sparsity,
                "ms": 1e3 * float(np.median([t["packed"] for t in times])),
                "faster_than_torch": float(
                    np.median([d / t["packed"] for d, t in zip(torch_dense, times, strict=True)])
                ),
                "faster_than_own_dense": float(
                    np.median([t[convolutions.OWN] / t["packed"] for t in times])
                ),
            }
        )
    ratio = min(_ratios(table))
    figure = lines(
        [row["sparsity"] for row in table],
        {
            "against torch": [row["faster_than_torch"] for row in table],
            "against the same kernels without zeros": [
                row["faster_than_own_dense"] for row in table
            ],
        },
        title="EfficientNet-Lite0, dense time over sparse time",
        x_title="sparsity of the 1x1 convolutions",
        y_title="ratio",
    )
    return Outcome(ratio >= _LEAST, ratio - _LEAST, _summary(table, noisy), table, figure)


experiment = Experiment(
    method="fast-sparse-convnets",
    claim="With sparse kernels for 1x1 convolutions, whole networks run 1.3 to 2.4 times faster "
    "than their dense equivalents.",
    baseline="the same network dense, the fastest of: torch channel by channel, torch "
    "channels-last, this library's kernels at density 1; batch norms folded in all",
    run=_run,
)
