"""Penalties: what a solver needs to know of a regulariser, one class each."""

from .balls import Ball, L1Ball, NuclearBall, Polytope, Simplex
from .base import Penalty
from .blocks import Grouped, Rows, group_lasso, sparse_group_lasso
from .bounded import Bounded
from .magnitudes import Separable
from .multiscale import DyadicPartition, HaarL1
from .separable import L0, L1, L1L2, MCP, SCAD, LogSum, Lq, NonNegative
from .structured import KSupport, L1LInf, LInf, Slope, TotalVariation

__all__ = [
    "L0",
    "L1",
    "L1L2",
    "MCP",
    "SCAD",
    "Ball",
    "Bounded",
    "DyadicPartition",
    "Grouped",
    "HaarL1",
    "KSupport",
    "L1Ball",
    "L1LInf",
    "LInf",
    "LogSum",
    "Lq",
    "NonNegative",
    "NuclearBall",
    "Penalty",
    "Polytope",
    "Rows",
    "Separable",
    "Simplex",
    "Slope",
    "TotalVariation",
    "group_lasso",
    "sparse_group_lasso",
]
