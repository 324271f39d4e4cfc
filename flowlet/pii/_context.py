"""What stands around a match: words that make it likelier, or no words at all."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["LIFT", "is_alone", "is_told", "lift"]

BEFORE, AFTER = 48, 24
"""How many characters count as near."""

LIFT = 0.4
"""What context adds to a score."""

_LETTER = re.compile(r"[^\W\d_]")


def is_told(text: str, start: int, end: int, words: str) -> bool:
    """Whether one of *words* is near the span."""
    return _pattern(words).search(_near(text, start, end)) is not None


def is_alone(text: str, start: int, end: int) -> bool:
    """Whether there are no words near the span, as in a cell of a table."""
    return _LETTER.search(_near(text, start, end)) is None


def lift(text: str, start: int, end: int, words: str) -> float:
    """Tell what the surroundings of a span add to its score.

    One of *words* adds, and so does a place without any words: there is nothing else to go by.
    """
    return LIFT if is_told(text, start, end, words) or is_alone(text, start, end) else 0.0


def _near(text: str, start: int, end: int) -> str:
    return f"{text[max(0, start - BEFORE) : start]}\n{text[end : end + AFTER]}"


@lru_cache(maxsize=64)
def _pattern(words: str) -> re.Pattern[str]:
    """Match one of *words*: as a whole word in ASCII, anywhere in scripts that do not part words."""
    ascii_ = "|".join(word for word in words.split() if word.isascii())
    others = [word for word in words.split() if not word.isascii()]
    return re.compile("|".join((rf"(?<![^\W\d_])(?:{ascii_})(?![^\W\d_])", *others)), re.IGNORECASE)
