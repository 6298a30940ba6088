"""Sparse linear models and recovery, with scikit-learn's face and without torch."""

from . import datafits, penalties, solvers
from .alternating_completion import AlternatingCompletion
from .bayes import SparseBayes
from .best_subset import BestSubset
from .clustered_bayes import ClusteredBayes
from .compound_gaussian import CompoundGaussian
from .cross_validation import (
    ElasticNetCV,
    GroupLassoCV,
    LassoCV,
    SparseGLMCV,
    SparseLogisticCV,
)
from .display import CVDisplay, PathDisplay
from .feedback import ThresholdingWithFeedback
from .gamp_bayes import GAMPBayes
from .glm import SparseGLM, SparseLogistic
from .hyper_lista import HyperLISTA
from .kronecker_bayes import KroneckerBayes
from .kronecker_pursuit import kronecker_omp
from .lars import LARS, lars_path
from .lasso import ElasticNet, GroupLasso, Lasso, MultiTaskLasso
from .list_decodable import ListDecodableRegression
from .loss_omp import LossOMP
from .mixture_of_experts import LassoMixtureOfExperts
from .one_sided_completion import OneSidedCompletion
from .path import Path
from .phase_retrieval import SparsePhaseRetrieval
from .private import LocallyPrivateRegression
from .pursuit import OrthogonalMatchingPursuit, batch_omp
from .random_supports import ProjectedLasso
from .representers import Representers
from .scoring import ScoringSystem
from .self_calibration import SelfCalibration
from .signatures import SignatureLasso
from .simultaneous import SimultaneousGLM
from .sketching import SketchedRegression
from .synthetic_control import SyntheticControl
from .task_selection import TaskSelection
from .thresholding import amp, cosamp, hard_thresholding_pursuit, iht
from .zero_imputation import ZeroImputedRegression
from .zeroth_order import ZerothOrderFrankWolfe

__all__ = [
    "LARS",
    "AlternatingCompletion",
    "BestSubset",
    "CVDisplay",
    "ClusteredBayes",
    "CompoundGaussian",
    "ElasticNet",
    "ElasticNetCV",
    "GAMPBayes",
    "GroupLasso",
    "GroupLassoCV",
    "HyperLISTA",
    "KroneckerBayes",
    "Lasso",
    "LassoCV",
    "LassoMixtureOfExperts",
    "ListDecodableRegression",
    "LocallyPrivateRegression",
    "LossOMP",
    "MultiTaskLasso",
    "OneSidedCompletion",
    "OrthogonalMatchingPursuit",
    "Path",
    "PathDisplay",
    "ProjectedLasso",
    "Representers",
    "ScoringSystem",
    "SelfCalibration",
    "SignatureLasso",
    "SimultaneousGLM",
    "SketchedRegression",
    "SparseBayes",
    "SparseGLM",
    "SparseGLMCV",
    "SparseLogistic",
    "SparseLogisticCV",
    "SparsePhaseRetrieval",
    "SyntheticControl",
    "TaskSelection",
    "ThresholdingWithFeedback",
    "ZeroImputedRegression",
    "ZerothOrderFrankWolfe",
    "amp",
    "batch_omp",
    "cosamp",
    "datafits",
    "hard_thresholding_pursuit",
    "iht",
    "kronecker_omp",
    "lars_path",
    "penalties",
    "solvers",
]
