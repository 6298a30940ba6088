"""Sparse linear models and recovery, with scikit-learn's face and without torch."""

from . import datafits, penalties, solvers
from .cross_validation import ElasticNetCV, GroupLassoCV, LassoCV, SparseLogisticCV
from .display import CVDisplay, PathDisplay
from .glm import SparseGLM, SparseLogistic
from .lasso import ElasticNet, GroupLasso, Lasso, MultiTaskLasso
from .path import Path

__all__ = [
    "CVDisplay",
    "ElasticNet",
    "ElasticNetCV",
    "GroupLasso",
    "GroupLassoCV",
    "Lasso",
    "LassoCV",
    "MultiTaskLasso",
    "Path",
    "PathDisplay",
    "SparseGLM",
    "SparseLogistic",
    "SparseLogisticCV",
    "datafits",
    "penalties",
    "solvers",
]
