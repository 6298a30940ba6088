"""Fixtures of the linear room."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def sensing():
    """Return unit columns and a vector of eight non-zeros to be measured by them."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((80, 200))
    A /= np.linalg.norm(A, axis=0)
    x = np.zeros(200)
    x[rng.choice(200, 8, replace=False)] = rng.choice([-1, 1], 8) * rng.uniform(1, 2, 8)
    return A, x
