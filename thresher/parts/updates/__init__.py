"""Updates answer how the survivors make up for the removed.

An update maps (weight, mask chooser, statistics) to the new weight and its mask.
"""

from .admm import ADMM
from .base import Keep, Update
from .dense_target import DenseTarget
from .dsnot import DSnoT
from .fisher import FisherOBS
from .hard_thresholding import HardThresholding
from .least_squares import LeastSquares
from .obs import OBS
from .priority import PrioritySampling

__all__ = [
    "ADMM",
    "OBS",
    "DSnoT",
    "DenseTarget",
    "FisherOBS",
    "HardThresholding",
    "Keep",
    "LeastSquares",
    "PrioritySampling",
    "Update",
]
