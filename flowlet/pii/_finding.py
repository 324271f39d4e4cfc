"""All detectors over one text: which kinds there are, and what is found of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache

from .._suggest import nearest
from ..errors import DefinitionError, PluginError
from ._extra import require
from ._masking import Masking
from ._match import Match, PIIDetector, resolved
from ._net import find_addresses
from ._numbers import find_numbers
from ._phones import find_phones

__all__ = ["find", "kinds", "mask"]

_KINDS = (
    "email", "phone", "card", "iban", "ip", "mac", "crypto",
    "us_ssn", "us_itin", "uk_nino", "uk_nhs", "au_abn", "au_tfn", "ca_sin", "de_tax_id", "es_nie", "es_nif", "fi_hetu",
    "in_aadhaar", "in_pan", "it_fiscal_code", "kr_rrn", "pl_pesel", "se_personnummer", "sg_nric", "th_id", "tr_id", "za_id",
)  # fmt: skip
_ALL = frozenset(_KINDS)
_require = cache(require)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


def find(
    text: str,
    kinds: Iterable[str] | None = None,
    *,
    detectors: Iterable[PIIDetector] = (),
    at_least: float = 0.5,
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
    asked = _ALL if kinds is None else _known(kinds)
    _require(asked)
    found = [match for match in _built_in(text, asked) if match.score >= at_least]
    for detector in detectors:
        found += (match for match in _by(detector, text) if match.score >= at_least)
    return resolved(found) if found else ()


def mask(
    text: str,
    kinds: Iterable[str] | None = None,
    *,
    detectors: Iterable[PIIDetector] = (),
    at_least: float = 0.5,
) -> str:
    """Replace what :func:`find` finds: ``"write to <EMAIL_1>"``. Equal values have equal placeholders."""
    return Masking([text]).mask(text, find(text, kinds, detectors=detectors, at_least=at_least))


def kinds() -> tuple[str, ...]:
    """The kinds that flowlet finds by itself."""
    return _KINDS


def _known(kinds: Iterable[str]) -> frozenset[str]:
    asked = frozenset((kinds,) if isinstance(kinds, str) else kinds)
    for unknown in sorted(asked - _ALL):
        meant = nearest(unknown, _KINDS)
        hint = f"did you mean {meant!r}?" if meant else f"There are: {', '.join(_KINDS)}"
        raise DefinitionError(f"nothing is known of the kind {unknown!r}. {hint}")
    return asked


def _built_in(text: str, kinds: Collection[str]) -> Iterator[Match]:
    yield from find_addresses(text, kinds)
    yield from find_numbers(text, kinds)
    if "phone" in kinds:
        yield from find_phones(text)


def _by(detector: PIIDetector, text: str) -> Iterator[Match]:
    for match in detector(text):
        if not isinstance(match, Match):  # pyright: ignore[reportUnnecessaryIsInstance]
            fault = f"{type(match).__name__}, not a Match"
        elif not 0 <= match.start < match.end <= len(text):
            fault = f"the span {match.span} of a text of {len(text)} characters"
        elif not _NAME.fullmatch(match.kind):
            fault = f"the kind {match.kind!r}, which is not a name such as 'staff_id'"
        else:
            yield match
            continue
        name = getattr(detector, "__qualname__", type(detector).__qualname__)
        raise PluginError(f"the detector {name} gave {fault}")
