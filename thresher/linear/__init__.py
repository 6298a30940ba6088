"""Sparse linear models and recovery, with scikit-learn's face and without torch."""

from . import datafits, penalties, solvers
from .bayes import SparseBayes
from .best_subset import BestSubset
from .cross_validation import ElasticNetCV, GroupLassoCV, LassoCV, SparseLogisticCV
from .display import CVDisplay, PathDisplay
from .glm import SparseGLM, SparseLogistic
from .lasso import ElasticNet, GroupLasso, Lasso, MultiTaskLasso
from .loss_omp import LossOMP
from .path import Path
from .pursuit import OrthogonalMatchingPursuit, batch_omp
from .representers import Representers
from .scoring import ScoringSystem
from .thresholding import ThresholdingWithFeedback

__all__ = [
    "BestSubset",
    "CVDisplay",
    "ElasticNet",
    "ElasticNetCV",
    "GroupLasso",
    "GroupLassoCV",
    "Lasso",
    "LassoCV",
    "LossOMP",
    "MultiTaskLasso",
    "OrthogonalMatchingPursuit",
    "Path",
    "PathDisplay",
    "Representers",
    "ScoringSystem",
    "SparseBayes",
    "SparseGLM",
    "SparseLogistic",
    "SparseLogisticCV",
    "ThresholdingWithFeedback",
    "batch_omp",
    "datafits",
    "penalties",
    "solvers",
]
