"""Axes of tensors as terms: sums and products of the independent axes that they are made of.

A concatenation is a sum, a view that merges axes is a product. Two axes that an operation matches
are unified, as terms are in logic: what is left free in the end can lose indices by itself, and
every axis that a free one is part of says which of its own indices go with them.
"""

from __future__ import annotations

__all__ = ["Axis", "concatenated", "merged"]

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np


class NestingError(Exception):
    """Two divisions of an axis do not nest, so that no term says both."""


class Axis:
    """An axis of a tensor.

    Parameters
    ----------
    size : int
        Number of indices.
    pinned : str, optional
        Why it must stay whole.
    kind : {"free", "sum", "product"}, default "free"
        Whether it is made of others, one after another or the first varying slowest.
    parts : sequence of Axis, optional
        What it is made of.

    Attributes
    ----------
    consumed : bool
        Whether something sums over it, so that an index that is zero does nothing.
    """

    def __init__(
        self, size: int, pinned: str | None = None, kind: str = "free", parts: Sequence[Axis] = ()
    ) -> None:
        self.size = size
        self.pinned = pinned
        self.consumed = False
        self._kind = kind
        self._parts = tuple(parts)
        self._same: Axis | None = None

    def __repr__(self) -> str:
        if self._same is not None:
            return repr(self._same)
        joint = {"sum": " + ", "product": " x "}.get(self._kind)
        if joint is None:
            return f"{self.size}{'!' if self.pinned else ''}"
        return f"({joint.join(map(repr, self._parts))})"

    @property
    def same(self) -> Axis:
        """The axis that stands for this one."""
        axis = self
        while axis._same is not None:
            axis = axis._same
        return axis

    def free(self) -> Iterator[Axis]:
        """Yield the axes that it is made of in the end, in order."""
        axis = self.same
        if axis._kind == "free":
            yield axis
        for part in axis._parts:
            yield from part.free()

    @property
    def is_pinned(self) -> bool:
        """Whether all of it must stay."""
        return all(axis.pinned or axis.size == 1 for axis in self.free())

    def pin(self, reason: str) -> None:
        """Have all of it stay, for the first reason given."""
        for axis in self.free():
            axis.pinned = axis.pinned or reason

    def consume(self) -> None:
        """Note that something sums over it."""
        for axis in self.free():
            axis.consumed = True

    def kept(self, masks: Mapping[Axis, np.ndarray]) -> np.ndarray:
        """Return which indices stay.

        Parameters
        ----------
        masks : mapping of Axis to array of bool
            What stays of free axes; of those that are not there, everything.
        """
        axis = self.same
        if axis._kind == "free":
            found = masks.get(axis)
            return np.ones(axis.size, dtype=bool) if found is None else found
        parts = [part.kept(masks) for part in axis._parts]
        if axis._kind == "sum":
            return np.concatenate(parts)
        whole = parts[0]
        for part in parts[1:]:
            whole = np.logical_and.outer(whole, part).reshape(-1)
        return whole

    def unify(self, other: Axis, reason: str) -> None:
        """Have two axes of one size lose the same indices.

        Parameters
        ----------
        other : Axis
        reason : str
            Why both are pinned where they are divided in ways that do not nest.
        """
        try:
            _unify(self, other)
        except NestingError:
            self.pin(reason)
            other.pin(reason)

    def split(self, outer: int) -> tuple[Axis, Axis]:
        """Return the two axes that it is the product of.

        Parameters
        ----------
        outer : int
            Size of the first.

        Raises
        ------
        NestingError
            If it is made in a way that does not nest with that.
        """
        axis = self.same
        inner, odd = divmod(axis.size, outer)
        if odd:
            raise NestingError
        if outer == 1:
            return Axis(1), axis
        if inner == 1:
            return axis, Axis(1)
        if axis._kind == "free":
            return axis._become("product", (axis._like(outer), axis._like(inner)))
        if axis._kind == "product":
            return axis._split_product(outer)
        pairs = []
        for part in axis.summands():
            if part.size % inner:
                raise NestingError
            pairs.append(part.split(part.size // inner))
        for _, each in pairs[1:]:
            _unify(pairs[0][1], each)
        return concatenated([each for each, _ in pairs]), pairs[0][1]

    def cut(self, start: int, stop: int) -> Axis:
        """Return a range of it.

        Raises
        ------
        NestingError
            If a bound lies within something that is not divided there.
        """
        for bound in (start, stop):
            self._divide(bound)
        found, at = [], 0
        for part in self.summands():
            if start <= at and at + part.size <= stop:
                found.append(part)
            at += part.size
        return concatenated(found)

    def summands(self) -> list[Axis]:
        """Return what it is the sum of: itself where it is no sum."""
        axis = self.same
        if axis._kind != "sum":
            return [axis]
        return [each for part in axis._parts for each in part.summands()]

    def factors(self) -> list[Axis]:
        """Return what it is the product of: itself where it is no product."""
        axis = self.same
        if axis._kind != "product":
            return [axis]
        return [each for part in axis._parts for each in part.factors()]

    def _like(self, size: int) -> Axis:
        part = Axis(size, self.pinned)
        part.consumed = self.consumed
        return part

    def _become(self, kind: str, parts: tuple[Axis, Axis]) -> tuple[Axis, Axis]:
        self._kind, self._parts = kind, parts
        return parts

    def _split_product(self, outer: int) -> tuple[Axis, Axis]:
        before: list[Axis] = []
        factors = self.factors()
        while outer > 1:
            factor = factors.pop(0)
            if outer % factor.size == 0:
                before.append(factor)
                outer //= factor.size
            elif factor.size % outer == 0:
                first, second = factor.split(outer)
                before.append(first)
                factors.insert(0, second)
                outer = 1
            else:
                raise NestingError
        return merged(before), merged(factors)

    def _divide(self, at: int) -> None:
        """Make it a sum that has a bound at an index."""
        axis = self.same
        if at in (0, axis.size):
            pass
        elif axis._kind == "free":
            axis._become("sum", (axis._like(at), axis._like(axis.size - at)))
        elif axis._kind == "sum":
            for part in axis._parts:
                if 0 < at < part.size:
                    part._divide(at)
                at -= part.size
        else:
            factors = axis.factors()
            inner = axis.size // factors[0].size
            if at % inner:
                raise NestingError
            factors[0]._divide(at // inner)
            parts = [merged([part, *factors[1:]]) for part in factors[0].summands()]
            axis._kind, axis._parts = "sum", tuple(parts)


def concatenated(parts: Sequence[Axis]) -> Axis:
    """Return the sum of axes, one after another."""
    parts = [part for part in parts if part.size]
    if len(parts) == 1:
        return parts[0]
    return Axis(sum(part.size for part in parts), kind="sum", parts=parts)


def merged(factors: Sequence[Axis]) -> Axis:
    """Return the product of axes, the first varying slowest."""
    factors = [factor for factor in factors if factor.size != 1]
    if not factors:
        return Axis(1)
    if len(factors) == 1:
        return factors[0]
    size = math.prod(factor.size for factor in factors)
    return Axis(size, kind="product", parts=factors)


def _bounds(axis: Axis) -> list[int]:
    return list(itertools.accumulate(part.size for part in axis.summands()))


def _unify(one: Axis, other: Axis) -> None:
    one, other = one.same, other.same
    if one is other:
        return
    if one._kind != "free":
        one, other = other, one
    if one._kind == "free":
        if one.pinned:
            other.pin(one.pinned)
        if one.consumed:
            other.consume()
        one._same = other
    elif one._kind == other._kind == "product":
        _unify_products(one, other)
    else:
        _unify_sums(one, other)


def _unify_products(one: Axis, other: Axis) -> None:
    ours, theirs = one.factors(), other.factors()
    while ours:
        a, b = ours.pop(0), theirs.pop(0)
        if a.size < b.size:
            b, rest = b.split(a.size)
            theirs.insert(0, rest)
        elif b.size < a.size:
            a, rest = a.split(b.size)
            ours.insert(0, rest)
        _unify(a, b)


def _unify_sums(one: Axis, other: Axis) -> None:
    # A cut in one may be a cut in the other as well, which has parts in common with it.
    while (ours := _bounds(one)) != (theirs := _bounds(other)):
        for at in theirs:
            one._divide(at)
        for at in ours:
            other._divide(at)
    for a, b in zip(one.summands(), other.summands(), strict=True):
        _unify(a, b)
