"""Datafits: losses of linear predictions, one class each."""

from .base import Datafit
from .generalized import Cox, Logistic, Multinomial, Poisson, PoissonIdentity
from .regression import Huber, MultiTaskSquares, SmoothQuantile, SquareRoot, Squares

__all__ = [
    "Cox",
    "Datafit",
    "Huber",
    "Logistic",
    "MultiTaskSquares",
    "Multinomial",
    "Poisson",
    "PoissonIdentity",
    "SmoothQuantile",
    "SquareRoot",
    "Squares",
]
