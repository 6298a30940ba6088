"""Solvers: each takes every datafit and penalty that it can, and says which it cannot."""

from ..problem import Problem, Solution
from .base import Solver
from .class_descent import ClassDescent
from .descent import CoordinateDescent, GroupDescent
from .frank_wolfe import FrankWolfe
from .greedy_blocks import GreedyBlocks
from .local_search import LocalSearch
from .nonconvex_acceleration import AcceleratedConcave
from .proximal_gradient import ProximalGradient
from .spiral import Spiral
from .stochastic_models import StochasticModels

__all__ = [
    "AcceleratedConcave",
    "ClassDescent",
    "CoordinateDescent",
    "FrankWolfe",
    "GreedyBlocks",
    "GroupDescent",
    "LocalSearch",
    "Problem",
    "ProximalGradient",
    "Solution",
    "Solver",
    "Spiral",
    "StochasticModels",
]
