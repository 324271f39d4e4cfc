"""The numbers that are known by how they are written: cards and national ids, as a table.

A shape has a 9 for each digit, an A for each letter, and the signs between groups. A dash stands for each sign in
``between``, the same throughout; a shape without dashes is one unbroken piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from attrs import frozen

from ._checks import is_card, is_itin, is_nino, is_nric, is_south_african, is_ssn, plain
from ._extra import Check, checked_by

__all__ = ["FORMS", "WORDS", "Form", "is_coin", "shape", "shapes"]

_SHAPES = bytes.maketrans(
    bytes(range(128)),
    bytes(
        ord("9") if chr(code).isdigit() else ord("A") if chr(code).isalpha() else code for code in range(128)
    ),
)


def shape(text: str) -> bytes:
    """The shape of *text*."""
    return text.encode("ascii", "replace").translate(_SHAPES)


@frozen(eq=False)
class Form:
    """One way of writing numbers of a *kind*; *score* is how sure a match is that no word near it confirms."""

    kind: str
    shapes: str
    check: Check
    score: float
    between: str = "-"

    def spelled(self) -> Iterator[bytes]:
        """Every shape, with each sign between the groups."""
        for one in self.shapes.split():
            yield from {one.replace("-", sign).encode() for sign in self.between}


def _is_german(number: str) -> bool:
    return number[0] != "0" and _mod_11_10(plain(number))


def _is_korean(number: str) -> bool:
    """Whether it is an RRN, leaving out the two digits of people born before 1900."""
    return plain(number)[6] not in "09" and _korean(number)


def _is_thai(number: str) -> bool:
    """Whether it is a Thai id with a province that there is (ISO 3166-2:TH)."""
    province = int(plain(number)[1:3])
    tens, ones = divmod(province, 10)
    last = {1: 7, 2: 7, 3: 9, 4: 9, 5: 8, 6: 7, 7: 7, 8: 6, 9: 6}.get(tens, -1)
    return ones <= last and province not in (28, 29, 59) and _thai(number)


def _is_polish(number: str) -> bool:
    """Whether it is a PESEL of somebody born by now; the months of later centuries are told by 41 and more."""
    return not 40 < int(number[2:4]) < 80 and _pesel(number)


def _is_spanish(number: str) -> bool:
    return _dni(plain(number).zfill(9))


def _is_italian(number: str) -> bool:
    """Whether the letter of the month is one."""
    return number[8].upper() in "ABCDEHLMPRST"


def _is_swedish(number: str) -> bool:
    digits = plain(number)
    written = number if digits != number else f"{digits[:-4]}-{digits[-4:]}"
    return _swedish(written)


def _any(number: str) -> bool:
    return True


_mod_11_10, _korean, _thai, _dni = map(checked_by, ("iso7064.mod_11_10", "kr.rrn", "th.pin", "es.dni"))
_swedish, _pesel, is_coin = map(checked_by, ("se.personnummer", "pl.pesel", "bitcoin"))

WORDS = {
    "card": "card cards credit debit visa mastercard amex cc payment",
    "us_ssn": "ssn ssns ss# social",
    "us_itin": "itin taxpayer tax",
    "uk_nino": "nino insurance ni",
    "uk_nhs": "nhs patient health",
    "au_abn": "abn business",
    "au_tfn": "tfn tax",
    "ca_sin": "sin social",
    "de_tax_id": "steuer\\w* idnr tin tax id",
    "es_nie": "nif dni nie documento",
    "es_nif": "nif dni nie documento",
    "fi_hetu": "hetu henkilötunnus personal",
    "in_aadhaar": "aadhaar aadhar uidai uid आधार",
    "in_pan": "pan permanent income tax",
    "it_fiscal_code": "codice fiscale",
    "kr_rrn": "rrn resident 주민등록번호 주민번호 주민",
    "pl_pesel": "pesel",
    "se_personnummer": "personnummer personal pnr id samordningsnummer",
    "sg_nric": "nric fin",
    "th_id": "thai national citizen id บัตรประชาชน ประจำตัวประชาชน เลข",
    "tr_id": "tc kimlik tckn turkish id",
    "za_id": "rsa sa id identity",
}
"""The words that confirm a kind; a ``\\w*`` stands for any ending."""

FORMS = (
    Form("card", "9999-9999-9999-9999 9999-999999-99999 9999-999999-9999", is_card, 0.7, "- "),
    Form("card", "9999999999999999 999999999999999 99999999999999 9999999999999999999", is_card, 0.7),
    Form("card", "9999-9999-9999-9999-999 9999-9999-9999 9999-9999-9999-9", is_card, 0.4, "- "),
    Form("card", "999999999999 9999999999999 99999999999999999 999999999999999999", is_card, 0.4),
    Form("us_ssn", "999-99-9999", is_ssn, 0.6, "- ."),
    Form("us_ssn", "999999999 999-999999 99999-9999", is_ssn, 0.3),
    Form("us_itin", "999-99-9999", is_itin, 0.6, "- "),
    Form("us_itin", "999999999 999-999999 99999-9999", is_itin, 0.3),
    Form("uk_nino", "AA999999A AA-999999-A AA-999999A AA-99-99-99-A AA99-99-99A", is_nino, 0.7, " -"),
    Form("uk_nhs", "999-999-9999", checked_by("gb.nhs"), 0.4, "- "),
    Form("uk_nhs", "9999999999", checked_by("gb.nhs"), 0.3),
    Form("au_abn", "99-999-999-999", checked_by("au.abn"), 0.6, " -"),
    Form("au_abn", "99999999999", checked_by("au.abn"), 0.5),
    Form("au_tfn", "999-999-999 99999999 999999999", checked_by("au.tfn"), 0.35, " -"),
    Form("ca_sin", "999-999-999 999999999", checked_by("ca.sin"), 0.4, " -"),
    Form("de_tax_id", "99999999999 99-999-999-999", checked_by("de.idnr"), 0.5, " "),
    Form("de_tax_id", "99999999999 99-999-999-999", _is_german, 0.2, " "),
    Form("es_nie", "A9999999A A9999999-A A-9999999-A", checked_by("es.nie"), 0.7),
    Form("es_nif", "99999999A 99999999-A 9999999-A", _is_spanish, 0.6),
    Form("fi_hetu", "999999-999A 999999-9999", checked_by("fi.hetu", allow_temporary=True), 0.7, "-+"),
    Form("fi_hetu", "999999A999A 999999A9999", checked_by("fi.hetu", allow_temporary=True), 0.7),
    Form("in_aadhaar", "9999-9999-9999", checked_by("in_.aadhaar"), 0.45, " -"),
    Form("in_aadhaar", "999999999999", checked_by("in_.aadhaar"), 0.3),
    Form("in_pan", "AAAAA9999A", checked_by("in_.pan"), 0.6),
    Form("in_pan", "AAAAA9999A", _any, 0.3),
    Form("it_fiscal_code", "AAAAAA99A99A999A", checked_by("it.codicefiscale"), 0.8),
    Form("it_fiscal_code", "AAAAAA99A99A999A", _is_italian, 0.5),
    Form("kr_rrn", "999999-9999999 9999999999999", _is_korean, 0.55),
    Form("pl_pesel", "99999999999", _is_polish, 0.5),
    Form("se_personnummer", "999999-9999 99999999-9999", _is_swedish, 0.6, "-+"),
    Form("se_personnummer", "999999999999", _is_swedish, 0.5),
    Form("se_personnummer", "9999999999", _is_swedish, 0.35),
    Form("sg_nric", "A9999999A", is_nric, 0.6),
    Form("sg_nric", "A9999999A", _any, 0.15),
    Form("th_id", "9999999999999 9-9999-99999-99-9", _is_thai, 0.4, "- "),
    Form("tr_id", "99999999999", checked_by("tr.tckimlik"), 0.55),
    Form("za_id", "9999999999999 999999-9999-999", is_south_african, 0.55, " "),
)
"""All forms. Of several that fit one text the surest counts, and of equals the first."""


@cache
def shapes() -> dict[bytes, tuple[Form, ...]]:
    """The forms by their shapes."""
    found: dict[bytes, tuple[Form, ...]] = {}
    for form in FORMS:
        for one in form.spelled():
            found[one] = (*found.get(one, ()), form)
    return found
