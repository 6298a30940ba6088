"""Solvers: each takes every datafit and penalty that it can, and says which it cannot."""

from .base import Solver
from .descent import CoordinateDescent, GroupDescent
from .problem import Problem, Solution
from .proximal_gradient import ProximalGradient

__all__ = ["CoordinateDescent", "GroupDescent", "Problem", "ProximalGradient", "Solution", "Solver"]
