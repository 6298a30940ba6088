"""Parameters of the estimators: their types, with what they may be, and those of parts."""

from __future__ import annotations

__all__ = [
    "Bounds",
    "ClassWeight",
    "Jobs",
    "Loss",
    "Method",
    "Ratio",
    "Regulariser",
    "Share",
    "Shares",
    "Strength",
    "Switch",
    "Whole",
    "check_jobs",
    "check_parameters",
    "nested",
    "with_inner",
]

import numbers
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cache, partial
from typing import Annotated, Any, get_type_hints

from ...core.errors import OptionError, nearest
from ...core.options import check_boolean, check_number, check_whole
from ...solve.datafits import Datafit
from ...solve.penalties import Penalty
from ...solve.solvers import Solver


def _check_part(kind: type, example: str, name: str, value: Any) -> None:
    if value is None or isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        raise OptionError(f"{name} is the class {value.__name__}; write {value.__name__}()")
    raise OptionError(f"{name} must be a {kind.__name__}, such as {example}, got {value!r}")


def _check_penalty(name: str, value: Any) -> None:
    if not (isinstance(value, str) and value == "l1"):
        _check_part(Penalty, "penalties.MCP()", name, value)


def _check_class_weight(name: str, value: Any) -> None:
    known = value is None or isinstance(value, dict)
    if not known and not (isinstance(value, str) and value == "balanced"):
        raise OptionError(
            f"{name} must be None, 'balanced' or a dictionary from labels to weights, got {value!r}"
        )


def _check_bounds(name: str, value: Any) -> None:
    if value is not None and not (isinstance(value, tuple | list) and len(value) == 2):
        raise OptionError(f"{name} must be a pair (lower, upper), such as (0, 1), got {value!r}")


def check_jobs(name: str, value: Any) -> None:
    """Raise unless a value says how many jobs run at a time, as joblib takes it."""
    if value is not None and (not isinstance(value, numbers.Integral) or value == 0):
        raise OptionError(
            f"{name} must be None or a whole number, below 0 to count from all cores, got {value!r}"
        )


# The types of parameters, each with the check that its values must pass.
Strength = Annotated[float, check_number]
Share = Annotated[float, partial(check_number, most=1.0)]
#: One share, or several; these are checked one by one, as the estimator that each of them makes.
Shares = Annotated[Any, partial(check_number, most=1.0)]
Ratio = Annotated[float, partial(check_number, above=0.0, below=1.0)]
Whole = Annotated[int, check_whole]
Jobs = Annotated[int | None, check_jobs]
Switch = Annotated[bool, check_boolean]
Bounds = Annotated[Any, _check_bounds]
Loss = Annotated[Datafit | None, partial(_check_part, Datafit, "datafits.Huber()")]
Regulariser = Annotated[Penalty | str | None, _check_penalty]
Method = Annotated[Solver | None, partial(_check_part, Solver, "solvers.CoordinateDescent()")]
ClassWeight = Annotated[Any, _check_class_weight]


def check_parameters(estimator: Any) -> None:
    """Raise if a parameter of an estimator has a wrong type, or lies outside its range.

    Parameters
    ----------
    estimator : BaseEstimator
        Parameters whose type is one of those here are checked, others are left to it.

    Raises
    ------
    OptionError
        Naming the parameter, its value and what it may be.
    """
    kind: Any = type(estimator)
    checks = _checks(kind)
    for name, value in estimator.get_params(deep=False).items():
        for check in checks.get(name, ()):
            check(name, value)


@cache
def _checks(kind: type) -> dict[str, tuple[Callable[[str, Any], None], ...]]:
    """Return the checks of the types of a class's fields."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}


def nested(parts: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of parts, and of their parts, under names with double underscores."""
    found: dict[str, Any] = {}
    for name, part in parts.items():
        if is_dataclass(part) and not isinstance(part, type):
            inner = {f.name: getattr(part, f.name) for f in fields(part) if f.init}
            found |= {f"{name}__{key}": value for key, value in (inner | nested(inner)).items()}
    return found


def with_inner(part: Any, name: str, inner: str, value: Any) -> Any:
    """Return a part with one of its fields, or a field of one of its parts, replaced."""
    if not is_dataclass(part) or isinstance(part, type):
        raise OptionError(f"{name} is {part!r}, which has no parameter {inner!r}; set {name} first")
    key, _, rest = inner.partition("__")
    known = [f.name for f in fields(part) if f.init]
    if key not in known:
        kind = type(part).__name__
        raise OptionError(f"{kind} has no parameter {key!r}; {nearest(key, known)}")
    if rest:
        value = with_inner(getattr(part, key), f"{name}__{key}", rest, value)
    return replace(part, **{key: value})
