"""Numbers out of range, for every class of the room and every part: each is named."""

import inspect
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest

from thresher import linear
from thresher.core.errors import OptionError
from thresher.linear import penalties, solvers

from . import problems
from .test_contracts import CASES

# A penalty or datafit of every class.
PARTS = {
    type(part): part for part in (*problems.every_penalty(12).values(), *problems.DATAFITS.values())
}.values()
# Values of parameters that are numbers, and most of them wrong for most parameters.
BAD = (1.5, 0, -1, np.nan, np.inf, "a")
# Which of them are right after all, by name or by class and name; for all others none is.
TAKES = {
    **dict.fromkeys(("tol", "alpha", "node_alpha", "threshold", "l1", "L1L2.ridge"), (0, 1.5)),
    **dict.fromkeys(("l1_ratio", "min_sensitivity", "max_false_positive_rate"), (0,)),
    **dict.fromkeys(("max_exchanges", "max_moves", "max_offset", "updates"), (0,)),
    **dict.fromkeys(("seed", "random_state", "ProjectedLasso.rank"), (0,)),
    **dict.fromkeys(("ridge", "smallest_variance", "noise", "difference"), (1.5,)),
    **dict.fromkeys(("step", "learning_rate", "run_length", "OneSidedCompletion.tol"), (1.5,)),
    **dict.fromkeys(("epsilon", "bound_x", "bound_y", "radius", "gamma"), (1.5,)),
    **dict.fromkeys(("background", "width", "Huber.delta"), (1.5,)),
    "Bounded.ridge": (0, 1.5),
    "Tweedie.power": (1.5,),
    "CompoundGaussian.alpha": (1.5,),
    "CompoundGaussianNetwork.alpha": (1.5,),
    "LassoMixtureOfExperts.alpha": (1.5,),
    "UnfoldedThresholding.alpha": (1.5,),
    "ListDecodableRegression.alpha": (),  # a share
    "TaskSelection.alpha": (),
    "SimultaneousGLM.l1_ratio": (),
    "ZeroImputedRegression.step": (),
    "n_jobs": (-1,),  # all cores
    "time_limit": (1.5, np.inf),
}


def numeric(subject):
    """Return the names of a class's parameters that are numbers."""
    fields = get_type_hints(subject)
    found = []
    for name, parameter in inspect.signature(subject).parameters.items():
        kinds = set(str(parameter.annotation).split(" | "))
        if name in fields:
            kind = fields[name]
            kinds = {getattr(part, "__name__", "") for part in get_args(kind) or (kind,)}
        if kinds & {"int", "float"}:
            found.append(name)
    return found


def wrong(subject, name):
    """Return those of the values that a parameter of a class does not take."""
    takes = TAKES.get(f"{subject.__name__}.{name}", TAKES.get(name, ()))
    return [value for value in BAD if value not in takes]


def every_number(things, subject):
    """Return each thing with the name of each parameter of its class that is a number."""
    return [
        pytest.param(thing, name, id=f"{subject(thing).__name__}-{name}")
        for thing in things
        for name in numeric(subject(thing))
    ]


def fit_with(case, name, value):
    """Fit the class of a contract with one parameter changed."""
    if case.subject is linear.ZerothOrderFrankWolfe:
        estimator = case.subject(penalties.L1Ball(2.0), **{name: value})  # no estimator: raises
    elif issubclass(case.subject, solvers.Solver):
        estimator = case.make().set_params(solver=case.subject(**{name: value}))
    else:
        estimator = case.make().set_params(**{name: value})
    estimator.fit(**case.data())


@pytest.mark.parametrize(("case", "name"), every_number(CASES, lambda case: case.subject))
def test_numbers_out_of_range_are_named(case, name):
    for value in wrong(case.subject, name):
        with pytest.raises(OptionError, match=rf"\b{name}\b.*{value!r}"):
            fit_with(case, name, value)


@pytest.mark.parametrize(("part", "name"), every_number(PARTS, type))
def test_numbers_of_parts_out_of_range_are_named(part, name):
    for value in wrong(type(part), name):
        with pytest.raises(OptionError, match=rf"\b{name}\b.*{value!r}"):
            replace(part, **{name: value})
