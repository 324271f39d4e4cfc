"""Finds phone numbers, by the numbering plans of the library ``phonenumbers``.

A number with its country code counts when it is one. A number without counts when a word near it speaks of
calling, or when it is written as those of a common country are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ._context import is_alone, is_told
from ._extra import library
from ._match import Match

__all__ = ["find_phones"]

_GAP = r"(?:[ \t\u00a0]?[-./–][ \t\u00a0]?|[ \t\u00a0]?\(|\)[-./ \t\u00a0]?\(?|[ \t\u00a0])"
_RUN = re.compile(rf"[0-9]+(?:{_GAP}[0-9]+)*")
_PART = re.compile(r"[0-9]\S*")
_REST = re.compile(r"(?:\s?(?:x|ext\.?|extension)\s?[0-9]{1,6})?(?![^\W_])", re.IGNORECASE)
_OTHER = re.compile(
    r"(?:1[89]|20)[0-9]{2}([-./ ])[01]?[0-9]\1[0-3]?[0-9](?![0-9]).*"  # a date, and what follows
    r"|[0-3]?[0-9]([-./ ])[0-3]?[0-9]\2(?:1[89]|20)[0-9]{2}(?![0-9]).*"
    r"|(?:1[89]|20)[0-9]{2} ?[-–/] ?(?:1[89]|20)[0-9]{2}"  # years
    r"|[0-9]+\.[0-9]+|0123456789"
)
_GROUPS = re.compile(r"[0-9]+")
_ABROAD = (0.0, 0.6, 0.9, 0.9)
_WORDS = (
    "phones? telephones? tel fax mobiles? mob cell cellphones? cellular calls? called calling ring text sms "
    "whatsapp contact reach messages? answering office desk telefono?\\w* handy cep hotline landline pager "
    "telef[óo]n\\w* móvil теле\\w+ тел 电话 手机 電話 携帯 전화 โทร"
)
_OTHER_WORDS = "zip postcode postal order invoice licen[cs]e isbn account version serial ticket box tracking passport policy case reference ref ssn social card iban"
_NUMBER = "numbers? nummer numara\\w* número numéro"

_PLAIN = tuple("US TR IN CN BR ES PL DK NO SG".split())  # noqa: SIM905
_ZERO = tuple("GB DE FR IT CH AT NL BE SE FI TR IN PH ZA AU JP KR IL".split())  # noqa: SIM905
"""Countries whose numbers are tried: those that begin with no zero, and those that do."""


def find_phones(text: str) -> Iterator[Match]:
    """Find phone numbers in *text*."""
    for run in _RUN.finditer(text):
        start, end = run.span()
        if end - start > 6:
            match = _phone(text, start, end)
            yield from _within(text, run) if match is None else (match,)


def _within(text: str, run: re.Match[str]) -> Iterator[Match]:
    """Phone numbers that a space parts from other numbers, such as a date."""
    for part in _PART.finditer(text, *run.span()) if " " in run[0] else ():
        if 6 < len(part[0]) < len(run[0]) and (match := _phone(text, *part.span())) is not None:
            yield match


def _phone(text: str, start: int, end: int) -> Match | None:
    rest = _REST.match(text, end)
    digits = "" if rest is None else "".join(_GROUPS.findall(text, start, end))
    if rest is None or not 7 <= len(digits) <= 15:
        return None
    if text[start - 1 : start] == "+":
        start -= 1
    if text[start - 1 : start] == "(" and ")" in text[start:end]:
        start -= 1
    if text[start - 1 : start] == "+":
        start -= 1
    if start and (text[start - 1].isalnum() or (text[start - 1] in "._" and text[start - 2].isalnum())):
        return None
    score = _score(text, start, end, digits)
    return Match("phone", start, rest.end(), score) if score else None


def _score(text: str, start: int, end: int, digits: str) -> float:
    """How sure it is that this is a phone number: 0 that it is none."""
    written = text[start:end]
    if "+" in written:
        return _ABROAD[_fits(written, None)]
    if digits.startswith("00") and (score := _ABROAD[_fits(f"+{digits[2:]}", None)]):
        return score
    groups = len(_GROUPS.findall(written))
    if len(digits) > (11 if groups == 1 else 13) or _OTHER.fullmatch(written):
        return 0.0
    if is_told(text, start, end, _WORDS):
        return 0.58
    if is_told(text, start, end, _OTHER_WORDS):
        return 0.0
    alone, numbered = is_alone(text, start, end), is_told(text, start, end, _NUMBER)
    if numbered and groups > 1:
        return 0.5
    usual = alone or numbered or (digits[0] == "0" and len(digits) > 8) or groups > 2
    return (0.6 if alone else 0.5) * (usual and _is_common(written, digits, mobile=groups == 1))


def _is_common(written: str, digits: str, *, mobile: bool) -> bool:
    """Whether a common country has the number, written so; *mobile* asks for one that may be a mobile phone's."""
    least = 3 if mobile else 2
    return any(_fits(written, region) >= least for region in (_ZERO if digits[0] == "0" else _PLAIN))


def _fits(written: str, region: str | None) -> int:
    """How well: 3 for a number in use that may be a mobile phone's, 2 for another, 1 for a right length, else 0."""
    phonenumbers = library("phonenumbers")
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return 0
    if not phonenumbers.is_valid_number(number):
        return int(phonenumbers.is_possible_number(number))
    return 3 if phonenumbers.number_type(number) in (1, 2) else 2  # MOBILE, FIXED_LINE_OR_MOBILE
