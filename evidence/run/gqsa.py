"""Group-sparse 4-bit weights against 2:4, 2 bits and dense: error at equal bits, and speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thresher.core.evidence import Earlier, Experiment
from thresher.parts.patterns import NM, Block, Pattern
from thresher.run.layouts import GroupSparse4Bit, NofM

from .._statistics import least_ratio, lower
from .._study import Draw, Found, Judged, Slacks, times
from .._timing import Timed

_SHAPES = ((2048, 2048), (4096, 4096), (8192, 4096))
_OURS, _PAIRS, _PAIRS4, _TWO_BITS = "W4 S50%", "2:4 bfloat16", "2:4 W4", "W2"
_FASTER_THAN_PAIRS = 2.35
_GROUP, _TOKENS = 16, 256


@dataclass(frozen=True)
class _Layer:
    """A weight, and inputs with correlations and a few large ones, as activations have."""

    weight: Tensor
    inputs: Tensor

    @property
    def saliency(self) -> Tensor:
        """Squared weight times mean squared input: a diagonal second-order score."""
        return self.weight.square() * self.inputs.square().mean(0)

    def kept(self, pattern: Pattern) -> Tensor:
        """Return the weight with half of it kept, by saliency."""
        return self.weight * pattern.mask(self.saliency, self.weight.numel() // 2)


@dataclass(frozen=True)
class _Product:
    """A stored weight as it multiplies one row of inputs."""

    run: Callable[[], Tensor]
    weight: Tensor

    def __call__(self) -> Tensor:
        return self.run()


@dataclass(frozen=True)
class _Stored:
    """A weight in a format that has no kernel here: its error is measured, not its time."""

    weight: Tensor


def _draw(shape: tuple[int, int], drawn: Draw) -> _Layer:
    generator = torch.Generator().manual_seed(drawn.seed)
    rows, columns = (16 * drawn.amount(size // 16, 8) for size in shape)
    weight = torch.randn(rows, columns, generator=generator)
    factors = 64
    scales = torch.logspace(0, -1.3, factors)
    sources = torch.randn(_TOKENS, factors, generator=generator) * scales
    mixing = torch.randn(factors, columns, generator=generator)
    inputs = sources @ mixing + torch.randn(_TOKENS, columns, generator=generator)
    inputs[:, torch.randperm(columns, generator=generator)[: columns // 100]] *= 10
    return _Layer(weight, inputs)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Round groups of 16 consecutive inputs to levels between their least and largest."""
    groups = weight.reshape(-1, _GROUP)
    low, high = (bound(groups.clamp(**{side: 0}), -1, True) for bound, side in
                 ((torch.amin, "max"), (torch.amax, "min")))  # fmt: skip
    step = ((high - low) / (2**bits - 1)).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / step).round()
    codes = (groups / step + zero).round().clamp(0, 2**bits - 1)
    return ((codes - zero) * step).reshape(weight.shape)


def _row(layer: _Layer) -> Tensor:
    return layer.inputs[:1].bfloat16()


def _groups(layer: _Layer) -> _Product:
    packed = GroupSparse4Bit.from_dense(layer.kept(Block(1, _GROUP)).bfloat16())
    return _Product(partial(packed.matmul, _row(layer)), packed.to_dense().float())


def _pairs(layer: _Layer) -> _Product:
    packed = NofM.from_dense(layer.kept(NM(2, 4)).bfloat16(), 2, 4)
    return _Product(partial(packed.matmul, _row(layer)), packed.to_dense().float())


def _all_groups(layer: _Layer) -> _Product:
    packed = GroupSparse4Bit.from_dense(layer.weight.bfloat16())
    return _Product(partial(packed.matmul, _row(layer)), packed.to_dense().float())


def _dense(layer: _Layer) -> _Product:
    weight = layer.weight.bfloat16()
    return _Product(partial(nn.functional.linear, _row(layer), weight), weight.float())


def _error(answer: Any, layer: _Layer) -> float:
    change = layer.inputs @ (answer.weight - layer.weight).T
    return float(change.square().sum() / (layer.inputs @ layer.weight.T).square().sum())


def _rule(found: Found) -> Slacks:
    return {
        f"output error below {rival}'s at {shape}": float(slack)
        for rival in (_PAIRS4, _TWO_BITS)
        for shape, slack in zip(
            found.study.settings, lower(found.lead("error", _OURS, rival)), strict=True
        )
    } | {
        f"times faster than {_PAIRS} at {shape}, less {_FASTER_THAN_PAIRS}": float(least)
        - _FASTER_THAN_PAIRS
        for shape, least in zip(
            found.study.settings, least_ratio(found.times("seconds", _OURS, _PAIRS)), strict=True
        )
    }


experiment = Experiment(
    method=GroupSparse4Bit.card.name,
    claim="4 bits and 50 % of the groups (W4S50%) is more accurate than 2:4 pruning and than 2 "
    "bits (W2), and 2.35 times faster than 2:4. (Judged without the paper's two stages of "
    "optimisation, in which its accuracy lies. That it is 1.26 times faster than W2 is not judged: "
    "there is no 2-bit kernel here.)",
    baseline="for accuracy 2:4 in 4 bits and 2 bits in groups of 16; for speed 2:4 in bfloat16, "
    "of four times the bits, since there is no 4-bit 2:4 kernel here; dense in the same 4-bit "
    "kernel and in bfloat16 are shown",
    run=Judged(
        study=Timed(
            over=("rows x columns",),
            settings={f"{rows}x{columns}": (rows, columns) for rows, columns in _SHAPES},
            draw=_draw,
            methods={
                _OURS: _groups,
                _PAIRS: _pairs,
                _PAIRS4: lambda layer: _Stored(rounded(layer.kept(NM(2, 4)), 4)),
                _TWO_BITS: lambda layer: _Stored(rounded(layer.weight, 2)),
                "W4 dense": _all_groups,
                "dense bfloat16": _dense,
            },
            measures={"error": _error},
            repeats=15,
        ),
        rule=_rule,
        view=times("seconds", _OURS, "Batch 1: times faster than"),
        against={_OURS: (_PAIRS, _PAIRS4, _TWO_BITS)},
        note="Random weights and correlated inputs; the error is that of the output, squared, over "
        "the output. Weights are kept by squared weight times mean squared input, and rounded to "
        "nearest. The paper's task-centric split of skewed rows among many processors is not "
        "rerun.",
    ),
    earlier=(
        Earlier(
            rule="faster than 2:4 in bfloat16 at all three shapes, by the median of three seeds, "
            "beside the claim of 2.35 times",
            reproduced=True,
            margin=0.439603,
            why="it asked for more than 1 where the claim says 2.35, of rivals of four times the "
            "bits, and left the accuracy out",
        ),
    ),
)
