"""Sparse linear models and recovery, with scikit-learn's face and without torch."""

from ..solve import datafits, penalties, solvers
from ..solve.path import Path
from .bayes.clustered import ClusteredBayes
from .bayes.gamp import GAMPBayes
from .bayes.kronecker import KroneckerBayes
from .bayes.sparse_bayes import SparseBayes
from .completion.alternating import AlternatingCompletion
from .completion.one_sided import OneSidedCompletion
from .greedy.best_subset import BestSubset
from .greedy.lars import LARS, lars_path
from .greedy.loss_omp import LossOMP
from .greedy.pursuit import OrthogonalMatchingPursuit, batch_omp
from .interpret.representers import Representers
from .interpret.scoring import ScoringSystem
from .penalised.cross_validation import (
    ElasticNetCV,
    GroupLassoCV,
    LassoCV,
    MultiTaskElasticNetCV,
    MultiTaskLassoCV,
    SparseGLMCV,
    SparseLogisticCV,
)
from .penalised.debiased import DebiasedLasso
from .penalised.display import CVDisplay, PathDisplay
from .penalised.glm import SparseGLM, SparseLogistic
from .penalised.knockoffs import KnockoffSelection
from .penalised.lasso import ElasticNet, GroupLasso, Lasso, MultiTaskElasticNet, MultiTaskLasso
from .penalised.moments import design_of_moments
from .penalised.random_supports import ProjectedLasso
from .penalised.simultaneous import SimultaneousGLM
from .penalised.stability import StabilitySelection
from .penalised.survival import SurvivalCurves
from .penalised.synthetic_control import SyntheticControl
from .recovery.compound_gaussian import CompoundGaussian
from .recovery.feedback import ThresholdingWithFeedback
from .recovery.hyper_lista import HyperLISTA
from .recovery.kronecker_pursuit import kronecker_omp
from .recovery.phase_retrieval import SparsePhaseRetrieval
from .recovery.self_calibration import SelfCalibration
from .recovery.thresholding import amp, cosamp, hard_thresholding_pursuit, iht
from .regimes.list_decodable import ListDecodableRegression
from .regimes.mixture_of_experts import LassoMixtureOfExperts
from .regimes.private import LocallyPrivateRegression
from .regimes.signatures import SignatureLasso
from .regimes.sketching import SketchedRegression
from .regimes.task_selection import TaskSelection
from .regimes.zero_imputation import ZeroImputedRegression
from .regimes.zeroth_order import ZerothOrderFrankWolfe

__all__ = [
    "LARS",
    "AlternatingCompletion",
    "BestSubset",
    "CVDisplay",
    "ClusteredBayes",
    "CompoundGaussian",
    "DebiasedLasso",
    "ElasticNet",
    "ElasticNetCV",
    "GAMPBayes",
    "GroupLasso",
    "GroupLassoCV",
    "HyperLISTA",
    "KnockoffSelection",
    "KroneckerBayes",
    "Lasso",
    "LassoCV",
    "LassoMixtureOfExperts",
    "ListDecodableRegression",
    "LocallyPrivateRegression",
    "LossOMP",
    "MultiTaskElasticNet",
    "MultiTaskElasticNetCV",
    "MultiTaskLasso",
    "MultiTaskLassoCV",
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
    "StabilitySelection",
    "SurvivalCurves",
    "SyntheticControl",
    "TaskSelection",
    "ThresholdingWithFeedback",
    "ZeroImputedRegression",
    "ZerothOrderFrankWolfe",
    "amp",
    "batch_omp",
    "cosamp",
    "datafits",
    "design_of_moments",
    "hard_thresholding_pursuit",
    "iht",
    "kronecker_omp",
    "lars_path",
    "penalties",
    "solvers",
]
