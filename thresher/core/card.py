"""Method cards, and the catalogue that is read off the classes that carry them."""

from __future__ import annotations

__all__ = [
    "VERBS",
    "Card",
    "Catalogued",
    "Entry",
    "area_of",
    "catalogue",
    "entries",
    "entry_of",
    "find",
    "load_plugin",
    "names_in_papers",
]

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .errors import OptionError, ThresherError, unknown
from .index import index
from .paths import missing

_METHODS: dict[str, type[Catalogued]] = {}


@dataclass(frozen=True)
class Card:
    """Where a method comes from and what it does, as data.

    Parameters
    ----------
    name : str
        The name users type, in lower case with hyphens.
    title : str
        Exact title of the paper.
    authors : str
        Authors, ``"First Author et al."`` from four on.
    year : int
        Year of first publication.
    summary : str
        One line on what the method does.
    arxiv : str, optional
        arXiv identifier, such as ``"2301.00774"``.
    """

    name: str
    title: str
    authors: str
    year: int
    summary: str
    arxiv: str | None = None


class Catalogued:
    """Mixin that enters a class in the catalogue by the card it carries.

    A subclass that defines ``card`` in its own body is registered when it is defined,
    in this package or in a user's own file; nothing keeps a list by hand.

    Raises
    ------
    OptionError
        At class definition, when another class already carries the card's name.
    """

    card: ClassVar[Card]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        card = cls.__dict__.get("card")
        if card is None:
            return
        mine = entry_of(cls)
        held = _METHODS.get(card.name)
        other = entry_of(held) if held else None
        if other is None and mine.area == "plugin":
            other = _own_entries().get(card.name)
        # A class that is defined again, as in a notebook, takes its own place.
        if other is not None and other.qualname != mine.qualname:
            raise OptionError(
                f"two methods are named {card.name!r}: {other.module}.{other.qualname} and "
                f"{mine.module}.{mine.qualname}; rename one card"
            )
        _METHODS[card.name] = cls


#: The verbs of the package, and of which classes a method is that they take by name.
VERBS = {
    "prune": frozenset({"Recipe", "SmallerRecipe"}),
    "activate": frozenset({"ActivationRecipe"}),
}


@dataclass(frozen=True)
class Entry:
    """A method as the catalogue lists it, whose class need not have been imported.

    Parameters
    ----------
    card : Card
        The paper.
    module, qualname : str
        Where the class is.
    bases : tuple of str
        Names of the classes that it derives from.
    """

    card: Card
    module: str
    qualname: str
    bases: tuple[str, ...]

    @property
    def area(self) -> str:
        """The room it lives in, such as ``"prune"``; ``"plugin"`` outside the package."""
        package, _, rest = self.module.partition(".")
        return rest.partition(".")[0] if package == "thresher" else "plugin"

    @property
    def verb(self) -> str | None:
        """The verb of the package that takes it by name, None if none does."""
        return next((verb for verb, kinds in VERBS.items() if kinds & set(self.bases)), None)

    def load(self) -> type[Catalogued]:
        """Import and return the class."""
        found: type[Catalogued] = getattr(importlib.import_module(self.module), self.qualname)
        return found


def entry_of(method: type[Catalogued]) -> Entry:
    """Return the entry of a class that carries a card."""
    bases = tuple(each.__name__ for each in method.__mro__[1:])
    return Entry(method.card, method.__module__, method.__qualname__, bases)


def entries() -> dict[str, Entry]:
    """Return every method by name, without importing those of this package.

    Returns
    -------
    dict of str to Entry
        Sorted by name. Other packages take part through the entry-point group
        ``thresher.methods``; single files through :func:`load_plugin`.
    """
    _load_installed_plugins()
    found = {name: entry_of(method) for name, method in _METHODS.items()}
    return dict(sorted((found | _own_entries()).items()))


def catalogue() -> dict[str, type[Catalogued]]:
    """Import and return every method by name, sorted; see :func:`entries`."""
    return {name: _METHODS.get(name) or entry.load() for name, entry in entries().items()}


def find(name: str) -> type[Catalogued]:
    """Import and return the method called `name`.

    Parameters
    ----------
    name : str
        A card name; case and underscores do not matter.

    Returns
    -------
    type
        The class that carries the card.

    Raises
    ------
    OptionError
        If no method has that name; the message suggests the nearest.
    """
    wanted = name.lower().replace("_", "-")
    own = _own_entries()
    if wanted not in _METHODS and wanted in own:
        return own[wanted].load()
    if wanted not in _METHODS:
        _load_installed_plugins()
    if wanted not in _METHODS:
        titles = {each: own[each].card.title for each in own}
        titles |= {each: held.card.title for each, held in _METHODS.items()}
        raise unknown(
            "method", name, titles, "`thresher methods` lists them", names_in_papers(titles)
        )
    return _METHODS[wanted]


def names_in_papers(titles: Mapping[str, str]) -> dict[str, str]:
    """Return what papers call methods, where that stands before a colon in their titles.

    Parameters
    ----------
    titles : mapping of str to str
        By the names of cards.

    Returns
    -------
    dict of str to str
        Names of cards, by such names in lower case: ``"2ssp"`` is ``"two-ssp"``. Of several
        methods of a paper the one with the shortest name.
    """
    longest_first = sorted(titles, key=len, reverse=True)
    heads = {name: titles[name].partition(":")[0].lower() for name in longest_first}
    return {head: name for name, head in heads.items() if head != titles[name].lower()}


def _own_entries() -> dict[str, Entry]:
    return {
        name: Entry(Card(**found["card"]), found["module"], found["class"], tuple(found["bases"]))
        for name, found in index()["methods"].items()
    }


@functools.cache
def _load_installed_plugins() -> None:
    for entry in importlib.metadata.entry_points(group="thresher.methods"):
        entry.load()


def area_of(method: type[Catalogued]) -> str:
    """Return the room a method lives in, see :attr:`Entry.area`."""
    return entry_of(method).area


def load_plugin(path: str | Path) -> None:
    """Run a user's own Python file so that the methods it defines are registered.

    Parameters
    ----------
    path : str or Path
        A ``.py`` file. It is executed: load only files you trust.

    Raises
    ------
    OptionError
        If the file does not exist, or fails; the message names the line.
    """
    file = Path(path)
    if file.is_dir():
        raise OptionError(f"plug-in file {str(path)!r} is a folder; name a file ending in .py")
    if not file.is_file():
        raise missing("plug-in file", file, OptionError)
    spec = importlib.util.spec_from_file_location(f"thresher_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise OptionError(
            f"plug-in file {str(path)!r} is not a Python file; name one ending in .py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except ThresherError:
        raise
    except Exception as error:
        del sys.modules[spec.name]
        raise OptionError(
            f"plug-in file {str(path)!r} fails{_line_of(error, file)}: {type(error).__name__}: "
            f"{error}; mend it there"
        ) from error


def _line_of(error: Exception, file: Path) -> str:
    """Return where in a file an error came up, in words."""
    if isinstance(error, SyntaxError):
        return f" in line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == file.absolute()]
    return f" in line {lines[-1]}" if lines else ""
