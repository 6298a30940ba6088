"""Every part that the package defines, with the arguments that those without defaults need.

A new class is tested by being defined; one that cannot be made without arguments, or a
pattern, whose constraint no test can guess, must be entered here once.
"""

import importlib
import inspect
import pkgutil

import torch

import thresher.parts
from thresher.parts import patterns, scores, updates
from thresher.parts.moments import Moment
from thresher.parts.statistics import Statistics


def concrete_subclasses(base):
    """Return the public classes of the package that derive from `base` and can be made."""
    for module in pkgutil.walk_packages(thresher.parts.__path__, "thresher.parts."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)
    found, waiting = set(), [base]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            public = kind.__module__.startswith("thresher.") and not kind.__name__.startswith("_")
            if public and not inspect.isabstract(kind):
                found.add(kind)
    return sorted(found, key=lambda kind: kind.__qualname__)


def instances(base, examples=None):
    """Return one or more instances of every concrete subclass of `base`."""
    made = []
    for kind in concrete_subclasses(base):
        made += (examples or {}).get(kind) or [kind()]
    return made


SCORES = {
    scores.Product: [scores.Magnitude() * scores.InputNorm()],
    scores.Sum: [scores.Magnitude() + scores.Random()],
    scores.Scaled: [2.5 * scores.Magnitude()],
    scores.Power: [scores.Magnitude() ** 2],
}


def _equal_rows(mask):
    return len(set(mask.flatten(0, -2).sum(-1).tolist())) == 1


def _equal_groups(m):
    return lambda mask: _equal_rows(mask.reshape(*mask.shape[:-1], -1, m).flatten(0, -2))


def _whole_blocks(rows, columns):
    def check(mask):
        *batch, height, width = mask.shape
        tiles = mask.reshape(*batch, height // rows, rows, width // columns, columns)
        counts = tiles.sum((-3, -1))
        return bool(((counts == 0) | (counts == rows * columns)).all())

    return check


def _shared_rows(size):
    def check(mask):
        for matrix in mask.reshape(-1, *mask.shape[-2:]):
            _, counts = matrix.unique(dim=0, return_counts=True)
            if bool((counts % size).any()):
                return False
        return True

    return check


#: Instances with the predicate that their masks must satisfy.
PATTERNS = {
    patterns.Unstructured: [
        (patterns.Unstructured(), lambda mask: True),
        (patterns.Unstructured("row"), _equal_rows),
    ],
    patterns.FanIn: [(patterns.FanIn(), _equal_rows)],
    patterns.NM: [
        (patterns.NM(2, 4), _equal_groups(4)),
        (patterns.NM(1, 2), _equal_groups(2)),
        (patterns.NM(4, 4), _equal_groups(4)),
        (patterns.NM(1, 2, "outputs"), lambda mask: _equal_groups(2)(mask.mT)),
    ],
    patterns.Block: [
        (patterns.Block(2, 2), _whole_blocks(2, 2)),
        (patterns.Block(1, 4), _whole_blocks(1, 4)),
    ],
    patterns.SharedRows: [
        (patterns.SharedRows(2), _shared_rows(2)),
        (patterns.SharedRows(1), lambda mask: True),
    ],
    patterns.Channels: [
        (patterns.Channels(), lambda mask: _whole_blocks(1, mask.shape[-1])(mask)),
        (patterns.Channels(2), lambda mask: _whole_blocks(2, mask.shape[-1])(mask)),
    ],
}


def pattern_cases():
    """Return (pattern, predicate) pairs of every pattern class."""
    missing = [k.__name__ for k in concrete_subclasses(patterns.Pattern) if k not in PATTERNS]
    assert not missing, f"enter {missing} with their constraint in tests/part_examples.py"
    return [case for cases in PATTERNS.values() for case in cases]


UPDATES = {
    updates.LeastSquares: [updates.LeastSquares(), updates.LeastSquares(support=updates.OBS())]
}


def correlated_inputs(rows, columns, seed=0, groups=None):
    """Return inputs whose columns depend on one another and have means."""
    generator = torch.Generator().manual_seed(seed)
    batch = () if groups is None else (groups,)
    sources = torch.randn(*batch, rows, columns, generator=generator)
    sources = sources * torch.logspace(0, -1.3, columns)
    mixing = torch.randn(*batch, columns, columns, generator=generator)
    return sources @ mixing + torch.randn(*batch, 1, columns, generator=generator)


def full_statistics(inputs, weight, name="layer", seed=0):
    """Return statistics that hold everything any score or update may ask for."""
    statistics = Statistics(name, concrete_subclasses(Moment))
    statistics.update(inputs)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        # As that of a linear layer: of an input that is always zero it is zero.
        outputs = torch.randn(*weight.shape[:-1], inputs.shape[-2], generator=generator)
        statistics.update_gradient(outputs @ inputs / inputs.shape[-2] ** 0.5)
        statistics.update_slope(torch.randn((), generator=generator))
    return statistics
