"""Method cards, and the catalogue that is read off the classes that carry them."""

from __future__ import annotations

__all__ = ["Card", "Catalogued", "area_of", "catalogue", "find", "load_plugin"]

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .errors import OptionError, nearest

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
        holder = _METHODS.get(card.name)
        if holder is not None and holder.__qualname__ != cls.__qualname__:
            raise OptionError(
                f"two methods are named {card.name!r}: {holder.__module__}.{holder.__qualname__} "
                f"and {cls.__module__}.{cls.__qualname__}; rename one card"
            )
        _METHODS[card.name] = cls


def catalogue() -> dict[str, type[Catalogued]]:
    """Import every room and installed plug-in, and return all methods by name.

    Returns
    -------
    dict of str to type
        Sorted by name. Other packages take part through the entry-point group
        ``thresher.methods``; single files through :func:`load_plugin`.
    """
    for room in _rooms():
        _import_room(room)
    for entry in importlib.metadata.entry_points(group="thresher.methods"):
        entry.load()
    return dict(sorted(_METHODS.items()))


def find(name: str) -> type[Catalogued]:
    """Return the method called `name`.

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
    # Room by room, so that pruning does not wait for scikit-learn to be imported.
    for room in ("core", *_rooms()):
        if wanted in _METHODS:
            return _METHODS[wanted]
        _import_room(room)
    methods = catalogue()
    if wanted not in methods:
        raise OptionError(f"there is no method {name!r}; {nearest(wanted, methods)}")
    return methods[wanted]


def _rooms() -> list[str]:
    """Return the packages that can hold methods; pruning, the most used, first."""
    here = Path(__file__).parents[1]
    found = {m.name for m in pkgutil.iter_modules([str(here)]) if m.ispkg}
    return sorted(found - {"core", "evidence", "report"}, key=lambda room: (room != "prune", room))


def _import_room(room: str) -> None:
    package = importlib.import_module(f"thresher.{room}")
    for module in pkgutil.walk_packages(
        [str(Path(str(package.__file__)).parent)], f"thresher.{room}."
    ):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)


def area_of(method: type[Catalogued]) -> str:
    """Return the room a method lives in, such as ``"prune"``; ``"plugin"`` outside the package."""
    package, _, rest = method.__module__.partition(".")
    return rest.partition(".")[0] if package == "thresher" else "plugin"


def load_plugin(path: str | Path) -> None:
    """Run a user's own Python file so that the methods it defines are registered.

    Parameters
    ----------
    path : str or Path
        A ``.py`` file. It is executed: load only files you trust.

    Raises
    ------
    OptionError
        If the file does not exist.
    """
    file = Path(path)
    if not file.is_file():
        raise OptionError(f"plug-in file {str(path)!r} does not exist")
    spec = importlib.util.spec_from_file_location(f"thresher_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise OptionError(
            f"plug-in file {str(path)!r} is not a Python file; name one ending in .py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
