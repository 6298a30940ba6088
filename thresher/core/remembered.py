"""What was done to an object, found again for as long as the object lives."""

from __future__ import annotations

__all__ = ["remember", "remembered"]

import weakref
from typing import Any

# Not as an attribute of the object, which would be pickled with it.
_RECORDS: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def remember(owner: Any, record: Any, of: str = "weights") -> None:
    """Keep the record of what was done to an object, in place of an earlier one.

    Parameters
    ----------
    owner : Any
        The object.
    record : Any
        What was done.
    of : str, default "weights"
        To what of it.
    """
    _RECORDS.setdefault(owner, {})[of] = record


def remembered(owner: Any, of: str = "weights") -> Any:
    """Return the record of what was last done to an object, None if there is none."""
    return _RECORDS.get(owner, {}).get(of)
