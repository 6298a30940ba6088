"""What was done to an object, found again for as long as the object lives."""

from __future__ import annotations

__all__ = ["remember", "remembered"]

import weakref
from typing import Any

# Not as an attribute of the object, which would be pickled with it.
_RECORDS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def remember(owner: Any, record: Any) -> None:
    """Keep the record of what was done to an object, in place of an earlier one."""
    _RECORDS[owner] = record


def remembered(owner: Any) -> Any:
    """Return the record of what was last done to an object, None if there is none."""
    return _RECORDS.get(owner)
