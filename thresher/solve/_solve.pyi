"""Types of the compiled kernels; arrays are float32 or float64 throughout one call."""

from typing import Any

import numpy as np

# (kind, alpha, shape, positive)
_Penalty = tuple[int | None, float, float, bool]
# criterion, rounds of working sets, passes, whether the tolerance was met
_Report = tuple[float, int, int, bool]

class Trail64: ...
class Trail32: ...

def coordinates(*arguments: Any) -> _Report: ...
def groups(*arguments: Any) -> _Report: ...
def tasks(*arguments: Any) -> _Report: ...
def moments(*arguments: Any) -> None: ...
def prox(
    x: np.ndarray,
    steps: np.ndarray,
    penalty: _Penalty,
    weights: np.ndarray | None,
    out: np.ndarray,
    /,
) -> None: ...
def total_variation(x: np.ndarray, threshold: float, out: np.ndarray, /) -> None: ...
def batch_pursuit(
    gram: np.ndarray,
    correlations: np.ndarray,
    squares: np.ndarray,
    tolerances: np.ndarray,
    chosen: np.ndarray,
    coefficients: np.ndarray,
    threads: int,
    /,
) -> None: ...
def gram_descents(
    grams: np.ndarray,
    linears: np.ndarray,
    l1: np.ndarray,
    ridge: np.ndarray,
    tolerances: np.ndarray,
    passes: int,
    coefs: np.ndarray,
    threads: int,
    /,
) -> None: ...
def orthogonal_pursuit(*arguments: Any) -> int: ...
def angle_regression(
    *arguments: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]: ...
