"""What is found in a text: typed spans with scores, and which of them stay where several overlap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from attrs import frozen

from .._value import Shown

__all__ = ["Match", "PIIDetector", "resolved"]


@frozen(order=False, repr=False)
class Match(Shown):
    """A piece of a text that tells of a person: its *kind*, where it is, how sure that is (0 to 1).

    It does not hold the piece itself, so that it may be logged: that is ``text[match.start:match.end]``.
    """

    kind: str
    start: int
    end: int
    score: float = 1.0

    @property
    def span(self) -> tuple[int, int]:
        """The place in the text, as a slice has it."""
        return self.start, self.end


class PIIDetector(Protocol):
    """Finds pieces of one or several kinds: any function of a text that gives matches."""

    def __call__(self, text: str, /) -> Iterable[Match]:
        """Find them, in any order; they may overlap."""
        ...


def resolved(matches: Iterable[Match]) -> tuple[Match, ...]:
    """Those of *matches* that stay: of two that overlap the surer one, then the longer, then the first."""
    kept: dict[int, Match] = {}
    taken = bytearray()
    for match in sorted(matches, key=lambda m: (-m.score, m.start - m.end, m.start)):
        if match.end > len(taken):
            taken.extend(bytes(match.end - len(taken)))
        if not any(taken[match.start : match.end]):
            taken[match.start : match.end] = b"\1" * (match.end - match.start)
            kept[match.start] = match
    return tuple(kept[start] for start in sorted(kept))
