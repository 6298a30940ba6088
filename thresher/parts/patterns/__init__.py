"""Patterns: which supports are allowed? The projection of a score onto the allowed masks.

A pattern sees a score as a matrix of shape (..., rows, columns) and keeps a number of
entries of greatest total score among those its constraint allows.
"""

__all__ = [
    "NM",
    "Block",
    "Channels",
    "FanIn",
    "Pattern",
    "SharedRows",
    "Unstructured",
]

from .base import Pattern
from .blocks import Block, Channels
from .nm import NM
from .shared_rows import SharedRows
from .unstructured import FanIn, Unstructured
