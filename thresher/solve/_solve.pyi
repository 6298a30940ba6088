"""Types of the compiled kernels; arrays are float32 or float64 throughout one call."""

import numpy as np

# criterion, rounds of working sets, passes, whether the tolerance was met
_Report = tuple[float, int, int, bool]

class Trail64: ...
class Trail32: ...

class Dense64:
    def __init__(self, x: np.ndarray, /) -> None: ...

class Dense32(Dense64): ...

class Csc64:
    def __init__(
        self, data: np.ndarray, indices: np.ndarray, starts: np.ndarray, rows: int, /
    ) -> None: ...

class Csc32(Csc64): ...

GivenDesign = Dense64 | Csc64

class Quadratic64:
    def __init__(
        self,
        target: np.ndarray | None,
        weights: np.ndarray | None,
        means: np.ndarray | None,
        curvature: np.ndarray,
        residual: np.ndarray | None,
    ) -> None: ...

class Quadratic32(Quadratic64): ...

Quadratic = Quadratic64

class Penalty64:
    def __init__(
        self,
        kind: int | None,
        alpha: float,
        shape: float,
        positive: bool,
        factors: np.ndarray | None,
        lower: np.ndarray | None,
        upper: np.ndarray | None,
    ) -> None: ...

class Penalty32(Penalty64): ...

Penalty = Penalty64

class Groups:
    def __init__(self, starts: np.ndarray, members: np.ndarray, l1: float) -> None: ...

class Centring:
    def __init__(self, roots: np.ndarray | None, means: np.ndarray | None) -> None: ...

class Options:
    def __init__(
        self,
        tolerance: float,
        max_iterations: int,
        max_epochs: int,
        gap: bool,
        verify: bool,
        start_size: int,
        threads: int,
    ) -> None: ...

_Trail = Trail64 | Trail32

def coordinates(
    design: GivenDesign,
    quadratic: Quadratic,
    penalty: Penalty,
    coefficients: np.ndarray,
    trail: _Trail | None,
    options: Options,
    /,
) -> _Report: ...
def groups(
    design: GivenDesign,
    quadratic: Quadratic,
    penalty: Penalty,
    groups: Groups,
    coefficients: np.ndarray,
    options: Options,
    /,
) -> _Report: ...
def tasks(
    design: GivenDesign,
    quadratic: Quadratic,
    penalty: Penalty,
    coefficients: np.ndarray,
    options: Options,
    /,
) -> _Report: ...
def moments(
    design: GivenDesign,
    weights: np.ndarray | None,
    centre: bool,
    means: np.ndarray,
    curvature: np.ndarray,
    threads: int,
    /,
) -> None: ...
def prox(x: np.ndarray, steps: np.ndarray, penalty: Penalty, out: np.ndarray, /) -> None: ...
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
def orthogonal_pursuit(
    design: GivenDesign,
    centring: Centring,
    residual: np.ndarray,
    tolerance: float,
    chosen: np.ndarray,
    coefficients: np.ndarray,
    threads: int,
    /,
) -> int: ...
def angle_regression(
    design: GivenDesign,
    centring: Centring,
    target: np.ndarray,
    lasso: bool,
    lowest: float,
    limit: int,
    steps: int,
    threads: int,
    /,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]: ...
