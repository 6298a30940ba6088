"""Comparing data classes that hold arrays."""

from __future__ import annotations

__all__ = ["ComparedByValue"]

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


class ComparedByValue:
    """Base of data classes whose fields may be arrays: equal if all fields are.

    The methods that ``dataclass`` writes compare fields by ``==``, which has no truth value for
    arrays; it leaves alone what a class defines already.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__eq__ = ComparedByValue.__eq__  # type: ignore[method-assign]
        cls.__hash__ = ComparedByValue.__hash__  # type: ignore[method-assign]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            # So does scikit-learn's SelectFromModel ask whether what is not zero is to be kept.
            return other == "l1"
        if type(other) is not type(self) or not is_dataclass(self):
            return self is other
        return all(map(_same, _values(self), _values(other)))

    def __hash__(self) -> int:
        if not is_dataclass(self):
            return id(self)
        parts = (v.tobytes() if isinstance(v, np.ndarray) else v for v in _values(self))
        return hash((type(self), *parts))


def _values(part: Any) -> list[Any]:
    return [getattr(part, f.name) for f in fields(part)]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)
