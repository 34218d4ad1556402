"""What Python knows of a class: slots, bases made in C, and whether attributes are all that its objects hold."""

from __future__ import annotations

import weakref
from types import MemberDescriptorType
from typing import Any

HEAP = 1 << 9  # Py_TPFLAGSHEAPTYPE: made at run time, as by a class statement

_slots_known: weakref.WeakKeyDictionary[type, tuple[Any, ...]] = weakref.WeakKeyDictionary()
_bases_known: weakref.WeakKeyDictionary[type, tuple[type, ...]] = weakref.WeakKeyDictionary()


def slots_of(kind: type) -> tuple[Any, ...]:
    """The descriptors of slots: by them, whatever Python calls those whose names begin with two underscores."""
    found = _slots_known.get(kind)
    if found is None:
        held = [value for each in kind.__mro__ if each.__flags__ & HEAP for value in vars(each).values()]
        found = _slots_known[kind] = tuple(value for value in held if type(value) is MemberDescriptorType)
    return found


def static_bases(kind: type) -> tuple[type, ...]:
    """The classes of C among the bases of a class, whose objects hold what no attribute shows."""
    found = _bases_known.get(kind)
    if found is None:
        found = _bases_known[kind] = tuple(each for each in kind.__mro__[:-1] if not each.__flags__ & HEAP)
    return found


_transparent: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def shows_all(kind: type, value: object) -> bool:
    """Whether attributes and slots are all that an object has, and C holds nothing besides.

    Python itself knows: it refuses to pickle an object of another size than its attributes account for.
    """
    known = _transparent.get(kind)
    if known is None:
        own = ("__reduce_ex__", "__reduce__", "__getstate__")
        known = all(getattr(kind, name, None) is getattr(object, name, None) for name in own)
        try:
            if known:
                object.__reduce_ex__(value, 2)
        except Exception:  # a TypeError mostly; what somebody's slots raise is as good
            known = False
        _transparent[kind] = known
    return known
