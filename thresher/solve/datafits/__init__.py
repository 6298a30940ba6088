"""Datafits: losses of linear predictions, one class each."""

from .base import Datafit
from .generalized import (
    Cox,
    Logistic,
    Multinomial,
    Poisson,
    PoissonIdentity,
)
from .kinked import AbsoluteError, IntensityError, Kinked
from .regression import (
    Huber,
    MultiTaskSquares,
    SmoothQuantile,
    SquareRoot,
    Squares,
)

__all__ = [
    "AbsoluteError",
    "Cox",
    "Datafit",
    "Huber",
    "IntensityError",
    "Kinked",
    "Logistic",
    "MultiTaskSquares",
    "Multinomial",
    "Poisson",
    "PoissonIdentity",
    "SmoothQuantile",
    "SquareRoot",
    "Squares",
]
