"""Everything that is called by name: classes found by it, instances read from text."""

from __future__ import annotations

__all__ = ["Named", "Spelled"]

import sys
from typing import Any, ClassVar, Self

from .discovery import descendants, import_modules
from .errors import OptionError, unknown


class Named:
    """Mixin of a base class whose subclasses users call by name.

    The base class says of which ``kind`` they are; a subclass that defines ``name`` in
    its own body can be called by it, in this package or in a user's own file.

    Attributes
    ----------
    kind : str
        What subclasses are, as messages call it, such as ``"budget"``.
    name : str
        What users type, in lower case with hyphens.
    """

    kind: ClassVar[str]
    name: ClassVar[str]

    @classmethod
    def known(cls) -> dict[str, type[Self]]:
        """Return every class of this kind by name, sorted.

        Returns
        -------
        dict of str to type
            Those of the base's own package and those that user code has defined so far. A class
            that was defined again, as in a notebook, takes the place of its predecessor.

        Raises
        ------
        OptionError
            If two different classes have one name.
        """
        base = next(each for each in cls.__mro__ if "kind" in each.__dict__)
        import_modules(str(sys.modules[base.__module__].__package__))
        found: dict[str, type[Self]] = {}
        for child in descendants(cls):
            name = child.__dict__.get("name")
            if name is None:
                continue
            other = found.setdefault(name, child)
            if _place(other) != _place(child):
                raise OptionError(
                    f"two {cls.kind}s are named {name!r}: {_place(other)} and {_place(child)}; "
                    "rename one"
                )
            found[name] = child
        return dict(sorted(found.items()))

    @classmethod
    def named(cls, name: str) -> type[Self]:
        """Return the class called `name`.

        Raises
        ------
        OptionError
            If there is none; the message suggests the nearest.
        """
        known = cls.known()
        if name not in known:
            raise unknown(cls.kind, name, known)
        return known[name]


class Spelled(Named):
    """Mixin of a base class whose instances users write as text.

    Attributes
    ----------
    spellings : tuple of str
        Texts that :meth:`from_spec` reads, where that is not the name alone; an example of each
        form that holds numbers. Messages and helps list them.
    """

    spellings: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_spec(cls, text: str) -> Self | None:
        """Return the instance that `text` names, or None if it names none of this class.

        Parameters
        ----------
        text : str
            In lower case. By default the name alone is understood, for an instance with every
            argument at its default.
        """
        return cls() if text == cls.name else None

    @classmethod
    def parse(cls, text: str | Self) -> Self:
        """Return what `text` names; an instance is returned as it is.

        Parameters
        ----------
        text : str or instance
            Case and spaces around it do not matter.

        Raises
        ------
        OptionError
            If it names nothing; the message suggests the nearest.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise OptionError(f"a {cls.kind} is given by name or as an instance, got {text!r}")
        known = cls.known().values()
        for each in known:
            found = each.from_spec(text.strip().lower())
            if found is not None:
                return found
        raise unknown(cls.kind, text, [s for each in known for s in each.spelled()])

    @classmethod
    def spelled(cls) -> tuple[str, ...]:
        """Return :attr:`spellings`, or the name where there are none."""
        return cls.spellings or (cls.name,)


def _place(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
