"""Recipes as YAML: every part by its class, with its arguments."""

from __future__ import annotations

__all__ = ["Written"]

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Self

import yaml

from ..core.card import Catalogued, find
from ..core.discovery import descendants, import_modules
from ..core.errors import OptionError, ThresherError, unknown
from ..core.named import Spelled

_TRUTHS = {"true": True, "false": False}
_NUMBERS = {
    int: re.compile(r"[-+]?\d+"),
    float: re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE),
}


class Written:
    """Mixin of recipes, dataclasses of parts that are dataclasses: to YAML and back."""

    def to_data(self) -> dict[str, Any]:
        """Return the recipe as dictionaries, texts and numbers, with every argument.

        Returns
        -------
        dict
            ``method``, the name on the card, where the recipe is that of a method; then its fields.
            A part is its class's name, or that name over its arguments.
        """
        card = getattr(self, "card", None)
        named = {"method": card.name} if card else {}
        return named | _arguments(self)

    def recorded(self) -> dict[str, Any]:
        """Return :meth:`to_data` for a record, empty where a part cannot be written so."""
        try:
            return self.to_data()
        except OptionError:
            return {}

    def to_yaml(self) -> str:
        """Return the recipe as YAML, which :meth:`from_yaml` and ``--recipe`` read."""
        return str(yaml.safe_dump(self.to_data(), sort_keys=False))

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Return the recipe that a text in YAML spells.

        Parameters
        ----------
        text : str
            A mapping of fields, as :meth:`to_yaml` writes them; what is left out has the method's
            default, and a part may be spelled as the command line does, such as ``pattern: 2:4``.
            Without ``method``, the recipe is composed of its fields alone.

        Raises
        ------
        OptionError
            If the text is no such mapping; the message says where.
        """
        try:
            # Texts alone: what YAML itself takes for numbers is 124 where 2:4 is written.
            data = yaml.load(text, Loader=_Texts)
        except yaml.YAMLError as error:
            place = getattr(error, "problem_mark", None)
            line = f" at line {place.line + 1}" if place else ""
            problem = getattr(error, "problem", None) or "no text of it"
            raise OptionError(f"the recipe is not YAML{line}: {problem}") from error
        if not isinstance(data, dict):
            raise OptionError(
                "a recipe is a mapping such as 'method: sparsegpt', with a line for every part; "
                f"got {text.strip()[:40]!r}"
            )
        fields = dict(data)
        name = fields.pop("method", None)
        kind = cls._composed(fields) if name is None else cls._method(name)
        return typing.cast(Self, _made(kind, fields, kind.__name__))

    @classmethod
    def _composed(cls, fields: Mapping[str, Any]) -> type:
        """Return the kind of recipe that has most of some fields."""
        every = _families(Written) if cls is Written else [cls]
        kinds = [kind for kind in every if not inspect.isabstract(kind)]
        return max(kinds, key=lambda kind: len(fields.keys() & _names(kind)))

    @classmethod
    def _method(cls, name: Any) -> type:
        if not isinstance(name, str):
            raise OptionError(f"method is the name of a method, such as sparsegpt; got {name!r}")
        found: type[Catalogued] = find(name)
        if not issubclass(found, cls):
            raise OptionError(f"method {name!r} has no recipe of parts; name one that has")
        return found


class _Texts(yaml.BaseLoader):
    """Reads texts alone, and no key twice, of which YAML's own loaders keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is said twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _families(base: type) -> list[type]:
    """Return the nearest dataclasses below a class, methods apart: what recipes are composed as."""
    found: list[type] = []
    kind: type
    for kind in base.__subclasses__():
        if "__dataclass_fields__" not in vars(kind):
            found += _families(kind)
        elif not issubclass(kind, Catalogued):
            found.append(kind)
    return found


def _names(kind: type) -> set[str]:
    return {each.name for each in dataclasses.fields(kind)}  # type: ignore[arg-type]


def _arguments(part: Any) -> dict[str, Any]:
    return {f.name: _data(getattr(part, f.name), part, f.name) for f in dataclasses.fields(part)}


def _data(value: Any, owner: Any, name: str) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        arguments = _arguments(value)
        return {type(value).__name__: arguments} if arguments else type(value).__name__
    raise OptionError(
        f"{type(owner).__name__}.{name} is {value!r}, which a recipe in YAML cannot hold; make the "
        "part a dataclass whose arguments are numbers, texts and parts"
    )


def _made(kind: type, data: Mapping[str, Any], where: str) -> Any:
    """Return an object of a dataclass, of arguments that are still texts."""
    hints = typing.get_type_hints(kind)
    fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in data:
        if name not in fields:
            raise unknown(f"argument of {where}", name, fields)
    for name, each in fields.items():
        no_default = each.default is dataclasses.MISSING is each.default_factory
        if no_default and name not in data:
            raise OptionError(f"{where} needs {name!r}, which the recipe does not give")
    given = {name: _value(hints[name], data[name], f"{where}.{name}") for name in data}
    try:
        return kind(**given)
    except ThresherError as error:
        raise OptionError(f"{where}: {error}") from error


def _value(hint: Any, data: Any, where: str) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if data in ("", "~", "null"):
            return None
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    if hint is bool:
        return _checked(data, _TRUTHS.get(str(data).lower()), where, "true or false")
    if hint in _NUMBERS:
        fits = isinstance(data, str) and _NUMBERS[hint].fullmatch(data)
        # A 2 that is to be a float stays a 2, so that the recipe is written as it was.
        number = int if fits and _NUMBERS[int].fullmatch(data) else float
        what = "a whole number" if hint is int else "a number"
        return _checked(data, number(data) if fits else None, where, what)
    if hint is str:
        return _checked(data, data if isinstance(data, str) else None, where, "a text")
    return _part(hint, data, where)


def _part(base: type, data: Any, where: str) -> Any:
    """Return the part that a class's name, or that name over its arguments, spells."""
    if isinstance(data, Mapping) and len(data) == 1:
        name, arguments = next(iter(data.items()))
    else:
        name, arguments = _checked(data, data if isinstance(data, str) else None, where, _PART), {}
    import_modules(str(sys.modules[base.__module__].__package__))
    known = {
        each.__name__: each
        for each in (base, *descendants(base))
        if not inspect.isabstract(each) and not each.__name__.startswith("_")
    }
    if name in known:
        arguments = {} if arguments in ("", "~", "null") else arguments
        arguments = _checked(
            arguments, arguments if isinstance(arguments, Mapping) else None, where, "arguments"
        )
        return _made(known[name], arguments, f"{where}.{name}")
    if issubclass(base, Spelled) and isinstance(data, str):
        return base.parse(data)
    raise unknown(f"{base.__name__.lower()} for {where}", str(name), known)


_PART = "a part, by its class's name or that name over its arguments"


def _checked(data: Any, found: Any, where: str, what: str) -> Any:
    if found is None:
        raise OptionError(f"{where} is to be {what}; got {data!r}")
    return found
