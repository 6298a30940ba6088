"""Datafits: losses of linear predictions, one class each."""

from .base import Datafit
from .binary import Binary, Probit, SquaredHinge
from .generalized import Logistic, Multinomial, Poisson, PoissonIdentity
from .kinked import AbsoluteError, IntensityError, Kinked
from .offset import Offset
from .powers import Gamma, Tweedie
from .regression import Huber, MultiTaskSquares, SmoothQuantile, SquareRoot, Squares
from .survival import Cox

__all__ = [
    "AbsoluteError",
    "Binary",
    "Cox",
    "Datafit",
    "Gamma",
    "Huber",
    "IntensityError",
    "Kinked",
    "Logistic",
    "MultiTaskSquares",
    "Multinomial",
    "Offset",
    "Poisson",
    "PoissonIdentity",
    "Probit",
    "SmoothQuantile",
    "SquareRoot",
    "SquaredHinge",
    "Squares",
    "Tweedie",
]
