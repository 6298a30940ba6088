"""What differences between seeds say; without torch, which the linear experiments do without."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def paired_margin(differences: Sequence[float]) -> float:
    """Return the mean of paired differences less its standard error.

    Positive means an advantage that exceeds the noise between seeds. One seed alone shows
    no noise, so its difference counts as it is.
    """
    values = np.asarray(differences, dtype=float)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean() - error)
