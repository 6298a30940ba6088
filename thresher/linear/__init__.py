"""Sparse linear models and recovery, with scikit-learn's face and without torch."""

from . import datafits, penalties, solvers
from .bayes import SparseBayes
from .best_subset import BestSubset
from .cross_validation import ElasticNetCV, GroupLassoCV, LassoCV, SparseLogisticCV
from .display import CVDisplay, PathDisplay
from .glm import SparseGLM, SparseLogistic
from .lasso import ElasticNet, GroupLasso, Lasso, MultiTaskLasso
from .path import Path
from .pursuit import OrthogonalMatchingPursuit, batch_omp

__all__ = [
    "BestSubset",
    "CVDisplay",
    "ElasticNet",
    "ElasticNetCV",
    "GroupLasso",
    "GroupLassoCV",
    "Lasso",
    "LassoCV",
    "MultiTaskLasso",
    "OrthogonalMatchingPursuit",
    "Path",
    "PathDisplay",
    "SparseBayes",
    "SparseGLM",
    "SparseLogistic",
    "SparseLogisticCV",
    "batch_omp",
    "datafits",
    "penalties",
    "solvers",
]
