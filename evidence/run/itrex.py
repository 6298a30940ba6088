"""Int8 weights in 4 x 1 blocks against oneDNN's dense int8 product and MKL's CSR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.core.evidence import Earlier, Experiment
from thresher.parts.patterns import Block
from thresher.run.layouts import Int8Blocks

from .._statistics import least_ratio
from .._study import Draw, Found, Judged, Slacks, grid, times
from .._timing import Timed
from ..dense_int8 import dense_int8

#: Outputs and inputs of the layers of BERT-Large, and tokens at once.
_SHAPES = ((1024, 1024), (4096, 1024), (1024, 4096))
_BATCHES = (1, 16, 128)
_SPARSITIES = (0.7, 0.75, 0.8, 0.85, 0.9)
_OURS, _DENSE, _CSR = "4x1", "dense int8", "CSR fp32"
_UP_TO, _ORDER = 5.0, 10.0


@dataclass(frozen=True)
class _Problem:
    dense: Tensor
    sparse: Tensor
    x: Tensor


@dataclass(frozen=True)
class _Blocks:
    """A packed weight and the inputs that it multiplies."""

    packed: Int8Blocks
    x: Tensor

    def __call__(self) -> Tensor:
        return self.packed.matmul(self.x)


def _draw(setting: tuple[str, int, float], drawn: Draw) -> _Problem:
    named, batch, sparsity = setting
    rows, columns = (16 * drawn.amount(int(size) // 16, 8) for size in named.split("x"))
    generator = torch.Generator().manual_seed(drawn.seed)
    weight = torch.randn(rows, columns, generator=generator)
    pattern = Block(4, 1)
    score = torch.rand(weight.shape, generator=generator)
    mask = pattern.mask(score, pattern.count(weight.shape, 1 - sparsity))
    return _Problem(weight, weight * mask, torch.randn(batch, columns, generator=generator))


def _csr(problem: _Problem) -> Any:
    csr, columns = problem.sparse.to_sparse_csr(), problem.x.t()
    return lambda: csr @ columns


def _inexact(answer: Any, problem: _Problem) -> float:
    """Return whether the product differs from that of the rounded operands in 64 bits."""
    if not isinstance(answer, _Blocks):
        return np.nan
    largest = problem.x.abs().amax(1, keepdim=True)
    # `127 / largest` would multiply with the reciprocal, which rounds twice.
    levels = (problem.x * (torch.tensor(127.0) / largest)).round()
    integers = levels.to(torch.int64) @ answer.packed.codes().to(torch.int64).T
    scales = answer.packed.tensors()["scales"] * (largest / 127)
    return float(not torch.equal(integers.float() * scales, answer()))


def _rule(found: Found) -> Slacks:
    dense = found.times("seconds", _OURS, _DENSE)
    csr = found.times("seconds", _OURS, _CSR)
    over_settings = np.exp(np.log(csr).mean(axis=0))
    best = float(least_ratio(dense, best_of=len(dense)).max())
    return {
        f"at best {_UP_TO:g} times faster than {_DENSE}": best - _UP_TO,
        f"{_ORDER:g} times faster than {_CSR} in the geometric mean": float(
            least_ratio(over_settings) - _ORDER
        ),
        # Half of the smallest count above none.
        "products equal those of integers": 0.5 - float(found.of("inexact", _OURS).sum()),
    }


experiment = Experiment(
    method=Int8Blocks.card.name,
    claim="A sparse int8 product of constant blocks is an order of magnitude faster than oneMKL's "
    "sparse one on a wide range of shapes at 70 to 90 % sparsity, and up to 5 times faster than "
    "oneDNN's dense int8 product. (The comparisons of whole models are not judged.)",
    baseline="MKL's CSR in float32 as torch calls it, and torch.ops.quantized.linear_dynamic with "
    "oneDNN, which rounds its inputs as they come in too; same shapes, threads and run",
    run=Judged(
        study=Timed(
            over=("shape", "tokens", "sparsity"),
            settings=grid([f"{r}x{c}" for r, c in _SHAPES], _BATCHES, _SPARSITIES),
            draw=_draw,
            methods={
                _OURS: lambda p: _Blocks(Int8Blocks.from_dense(p.sparse), p.x),
                _DENSE: lambda p: dense_int8(p.dense, p.x),
                _CSR: _csr,
            },
            measures={"inexact": _inexact},
            repeats=7,
        ),
        rule=_rule,
        view=times("seconds", _OURS, "Shapes of BERT-Large: times faster than", log_y=True),
        against={_OURS: (_DENSE, _CSR)},
        note=f"The best of {len(_SHAPES) * len(_BATCHES) * len(_SPARSITIES)} settings is judged as "
        "the best of so many. TVM and LIBXSMM are not measured.",
        reason="the kernel is compiled once and not generated for every shape, and with one token "
        "both products take what reading their weights takes, of which 10 % in blocks are an "
        "eighth of the dense bytes.",
    ),
    earlier=(
        Earlier(
            rule="faster than oneDNN's dense int8 in every setting by the median of three seeds, "
            "and exact, beside the claim of up to 5 times",
            reproduced=True,
            margin=0.0340904,
            why="it asked for more than 1 where the claim says 5, and MKL was not in it",
        ),
    ),
)
