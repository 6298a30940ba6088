"""Which calibration windows a case is measured on.

At a hard cut perplexity moves by several percent with nothing but the calibration windows, on
both sides; disjoint sets of them show how far, and their geometric mean is what to compare.
"""

ALL = ":"


def window_slice(text: str) -> slice:
    """Return the slice that ``A:B`` names; either end may be left out."""
    start, colon, stop = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} is not a range of windows A:B")
    return slice(int(start) if start else None, int(stop) if stop else None)


def label(case: str, windows: str) -> str:
    """Return the name under which results are kept: ``sparsegpt-2:4 windows 0:16``."""
    return case if windows == ALL else f"{case} windows {windows}"


def case_of(name: str) -> str:
    """Return the case of a name made by :func:`label`."""
    return name.split(" ")[0]
