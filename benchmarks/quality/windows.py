"""Which calibration windows a case is measured on.

At a hard cut perplexity moves by several percent with nothing but the calibration windows, on
both sides; disjoint sets of them show how far, and their geometric mean is what to compare.
"""

ALL = ":"


def window_slice(text: str) -> slice:
    """Return the slice that ``A:B`` or ``A:B:STEP`` names; each number may be left out.

    ``::-1`` is all windows backwards: the same sums of products, rounded otherwise.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise ValueError(f"{text!r} is not a range of windows A:B or A:B:STEP")
    return slice(*(int(part) if part else None for part in parts))


def label(case: str, windows: str) -> str:
    """Return the name under which results are kept: ``sparsegpt-2:4 windows 0:16``."""
    return case if windows == ALL else f"{case} windows {windows}"


def case_of(name: str) -> str:
    """Return the case of a name made by :func:`label`."""
    return name.split(" ")[0]
