"""An adapter for Microsoft's presidio-analyzer, which also finds names and places: ``presidio()`` is a detector.

presidio is large and is not part of any extra: install ``presidio-analyzer`` and a model of its language.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from ..errors import ConfigError
from ._match import Match, PIIDetector

__all__ = ["Analyzer", "kind_of", "presidio"]

_KINDS = {
    "CREDIT_CARD": "card",
    "EMAIL_ADDRESS": "email",
    "FI_PERSONAL_IDENTITY_CODE": "fi_hetu",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "MAC_ADDRESS": "mac",
    "PHONE_NUMBER": "phone",
    "SG_NRIC_FIN": "sg_nric",
    "TH_TNIN": "th_id",
    "TR_NATIONAL_ID": "tr_id",
    "ZA_ID_NUMBER": "za_id",
}
"""What flowlet calls by another name; all others are in small letters: ``PERSON`` is ``person``."""


def kind_of(entity: str) -> str:
    """Give flowlet's name of one of presidio's entities."""
    return _KINDS.get(entity, entity.lower())


class Analyzer(Protocol):
    """As much of presidio's ``AnalyzerEngine`` as is used; ``analyze`` may be called from several threads."""

    def analyze(self, text: str, language: str, entities: list[str] | None = None) -> Sequence[Any]:
        """Find entities: objects with ``entity_type``, ``start``, ``end`` and ``score``."""
        ...


def presidio(
    analyzer: Analyzer | None = None, *, language: str = "en", entities: Iterable[str] | None = None
) -> PIIDetector:
    """Make a detector of presidio: ``find(text, detectors=[presidio()])``.

    Args:
        analyzer: the engine; one with presidio's defaults is made with the first text otherwise.
        language: of the texts.
        entities: which of presidio's to look for; all that the engine knows where nothing is said.

    Raises:
        ConfigError: (with the first text) presidio is not installed.
    """
    wanted = None if entities is None else list(entities)

    def detect(text: str, /) -> Iterable[Match]:
        for found in (analyzer or _engine()).analyze(text=text, language=language, entities=wanted):
            yield Match(kind_of(found.entity_type), found.start, found.end, found.score)

    return detect


@cache
def _engine() -> Analyzer:
    try:
        module: Any = import_module("presidio_analyzer")
    except ImportError as exc:
        raise ConfigError("presidio is not installed: pip install presidio-analyzer") from exc
    made: Analyzer = module.AnalyzerEngine()
    return made
