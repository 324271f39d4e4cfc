"""All detectors over one text: which kinds there are, and what is found of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from .._suggest import nearest
from ..errors import DefinitionError, PluginError
from ._match import Match, PIIDetector, resolved
from ._net import find_addresses
from ._numbers import find_numbers
from ._phones import find_phones

__all__ = ["KINDS", "found_in", "kinds_of"]

KINDS = (
    "email", "phone", "card", "iban", "ip", "mac", "crypto",
    "us_ssn", "us_itin", "uk_nino", "uk_nhs", "au_abn", "au_tfn", "ca_sin", "de_tax_id", "es_nie", "es_nif", "fi_hetu",
    "in_aadhaar", "in_pan", "it_fiscal_code", "kr_rrn", "pl_pesel", "se_personnummer", "sg_nric", "th_id", "tr_id", "za_id",
)  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


def kinds_of(kinds: Iterable[str] | None) -> frozenset[str]:
    """The kinds to look for; None means all.

    Raises:
        DefinitionError: there is no such kind.
    """
    asked = frozenset(KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else kinds)
    for unknown in sorted(asked.difference(KINDS)):
        meant = nearest(unknown, KINDS)
        hint = f"did you mean {meant!r}?" if meant else f"There are: {', '.join(KINDS)}"
        raise DefinitionError(f"nothing is known of the kind {unknown!r}. {hint}")
    return asked


def found_in(
    text: str, kinds: Collection[str], detectors: Iterable[PIIDetector], at_least: float
) -> tuple[Match, ...]:
    """What is found in *text*, in order, without overlaps."""
    matches = (*_built_in(text, kinds), *(match for one in detectors for match in _by(one, text)))
    return resolved(match for match in matches if match.score >= at_least)


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
