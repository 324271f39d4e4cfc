"""Finds what tells of a person: ``find(text)`` gives typed spans, ``mask(text)`` a text without them.

:class:`Guard` does that to every model call, before anything leaves. Phone numbers and national ids need the
extra ``pii`` (``pip install 'flowlet[pii]'``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._guard import Guard, Guarded
from ._match import Match, PIIDetector

if TYPE_CHECKING:
    from ._finding import find, kinds, mask

__all__ = ["Guard", "Guarded", "Match", "PIIDetector", "find", "kinds", "mask"]


def __getattr__(name: str) -> object:
    """Import what finds when it is first asked for: its patterns take a while to make."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module("._finding", __name__), name)
    globals()[name] = found
    return found
