"""What was done to an object, found again in it and in its copies."""

from __future__ import annotations

__all__ = ["remember", "remembered"]

from typing import Any

_PLACE = "_thresher_records"


class _Records(dict[str, Any]):
    """Records by what they are of; a deep copy takes them along, a pickle does not."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Records:
        return _Records(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is pickled must load where this class is unknown.
        return dict, ()


def remember(owner: Any, record: Any, of: str = "weights") -> None:
    """Keep the record of what was done to an object, in place of an earlier one.

    Parameters
    ----------
    owner : Any
        The object, such as a module.
    record : Any
        What was done; not changed afterwards, as copies of the object share it.
    of : str, default "weights"
        To what of it.
    """
    kept = vars(owner).get(_PLACE)
    # Past the owner's own __setattr__: a module's would look the value over. A new holder, as a
    # shallow copy shares the old one.
    vars(owner)[_PLACE] = _Records({**(kept or {}), of: record})


def remembered(owner: Any, of: str = "weights") -> Any:
    """Return the record of what was last done to an object, None if there is none."""
    return vars(owner).get(_PLACE, {}).get(of)
