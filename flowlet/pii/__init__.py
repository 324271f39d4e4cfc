"""Finds what tells of a person: ``find(text)`` gives typed spans, ``mask(text)`` a text without them.

:class:`Guard` does that to every model call, before anything leaves. Phone numbers and national ids need the
extra ``pii`` (``pip install 'flowlet[pii]'``).
"""

from __future__ import annotations

from collections.abc import Iterable

from ._guard import Guard, Guarded
from ._match import LIKELY, Match, PIIDetector

__all__ = ["Guard", "Guarded", "Match", "PIIDetector", "find", "kinds", "mask"]


def find(
    text: str,
    kinds: Iterable[str] | None = None,
    *,
    detectors: Iterable[PIIDetector] = (),
    at_least: float = LIKELY,
) -> tuple[Match, ...]:
    """Find what tells of a person in *text*: matches in order, which don't overlap.

    Args:
        text: what is looked through.
        kinds: which of :func:`kinds` to look for; all where nothing is said.
        detectors: further ones, whose matches count as those of flowlet do.
        at_least: the lowest score that counts, from 0 to 1.

    Raises:
        DefinitionError: there is no such kind.
        ConfigError: a kind needs the extra ``pii``, which is not installed.
        PluginError: a detector gave something else than matches in the text.
    """
    from ._finding import found_in, kinds_of  # patterns are made when they are needed

    return found_in(text, kinds_of(kinds), detectors, at_least)


def mask(
    text: str,
    kinds: Iterable[str] | None = None,
    *,
    detectors: Iterable[PIIDetector] = (),
    at_least: float = LIKELY,
) -> str:
    """Replace what :func:`find` finds: ``"write to <EMAIL_1>"``. Equal values have equal placeholders."""
    from ._masking import Masking

    return Masking([text]).mask(text, find(text, kinds, detectors=detectors, at_least=at_least))


def kinds() -> tuple[str, ...]:
    """The kinds that flowlet finds by itself."""
    from ._finding import KINDS

    return KINDS
