"""The one "did you mean" of the project."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Find the candidate that *word* is most likely a slip of, whatever its case; None when none is close."""
    from difflib import get_close_matches  # only faults need it

    by_lower = {candidate.lower(): candidate for candidate in candidates}
    found = get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None
