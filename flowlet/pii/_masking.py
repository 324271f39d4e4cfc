"""Texts without what tells of a person: each value is a placeholder, and may come back.

A value has one placeholder throughout (``<EMAIL_1>``), and none that was in the texts before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ._match import Match

__all__ = ["Masking", "Refill"]

_PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*_[0-9]+>")
_LONGEST = 64
"""Characters of a placeholder at most; no more are held back of a stream."""


class Masking:
    """The values of some *texts*, and what stands for them."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._taken = {found for text in texts for found in _PLACEHOLDER.findall(text)}
        self._values: dict[str, str] = {}
        self._placeholders: dict[tuple[str, str], str] = {}

    def mask(self, text: str, matches: Sequence[Match]) -> str:
        """Replace *matches*, which are in order and don't overlap."""
        pieces: list[str] = []
        end = 0
        for match in matches:
            pieces += (text[end : match.start], self._placeholder(match.kind, text[match.start : match.end]))
            end = match.end
        return "".join((*pieces, text[end:]))

    def _placeholder(self, kind: str, value: str) -> str:
        known = self._placeholders.get((kind, value))
        if known is not None:
            return known
        number = 1
        while (placeholder := f"<{kind.upper()}_{number}>") in self._taken:
            number += 1
        self._taken.add(placeholder)
        self._values[placeholder] = value
        self._placeholders[kind, value] = placeholder
        return placeholder

    def restore(self, text: str) -> str:
        """Put the values back."""
        return _PLACEHOLDER.sub(lambda found: self._values.get(found[0], found[0]), text)


class Refill:
    """Puts values back into a text that comes in pieces, as a stream does."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take *piece*, and give what is certain by now: the beginning of a placeholder is held back."""
        text = self._held + piece
        start = text.rfind("<")
        open_ = start >= 0 and ">" not in text[start:] and len(text) - start <= _LONGEST
        cut = start if open_ else len(text)
        self._held = text[cut:]
        return self._masking.restore(text[:cut])

    def rest(self) -> str:
        """Give what was held back, at the end."""
        held, self._held = self._held, ""
        return held
