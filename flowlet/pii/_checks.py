"""Whether a number can be what it looks like: checksums and ranges that need no library."""

from __future__ import annotations

import re
from calendar import monthrange

__all__ = [
    "iban_length",
    "is_card",
    "is_iban",
    "is_itin",
    "is_luhn",
    "is_nino",
    "is_nric",
    "is_south_african",
    "is_ssn",
    "plain",
]

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_NOT_ALNUM = re.compile(r"[^A-Za-z0-9]+")

# Issuer ranges of payment cards with their lengths (ISO/IEC 7812).
_BRANDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d+(?<=^\d{16})"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|095|[689]\d)\d+(?<=^\d{14})"  # Diners Club
    r"|35\d{14}|(?:2131|1800)\d{11}"  # JCB
    r"|(?:6011|64[4-9]|65|62|60|81|82|508)\d+(?<=^\d{16})|62\d{15,17}"  # Discover, UnionPay, RuPay
    r"|220[0-4]\d{12}"  # Mir
    r"|1\d{14}"  # UATP
    r"|(?:50|5[6-9]|6\d)\d{10,17}|0604\d{8}"  # Maestro
)


def plain(number: str) -> str:
    """Leave letters and digits, in capitals."""
    return _NOT_ALNUM.sub("", number).upper()


def is_luhn(digits: str) -> bool:
    """Whether *digits* end with the check digit of ISO/IEC 7812."""
    values = [*map(int, digits)]
    return (sum(values[-1::-2]) + sum(_DOUBLED[value] for value in values[-2::-2])) % 10 == 0


def is_card(number: str) -> bool:
    """Whether *number* is a payment card's: a length and beginning that some brand has, and Luhn's digit."""
    digits = plain(number)
    return _BRANDS.fullmatch(digits) is not None and is_luhn(digits) and len(set(digits)) > 1


_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 "
    "EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 "
    "KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 "
    "PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 "
    "UA29 VA22 VG24 XK20 YE30"
)
_IBAN_LENGTHS = {one[:2]: int(one[2:]) for one in _IBANS.split()}
"""How long the IBAN of each country is (the SWIFT registry)."""


def iban_length(country: str) -> int:
    """The length of an IBAN of *country*, 0 where there are none."""
    return _IBAN_LENGTHS.get(country.upper(), 0)


def is_iban(number: str) -> bool:
    """Whether *number* has the length of its country and the check digits of ISO 13616 (mod 97)."""
    iban = plain(number)
    if len(iban) != iban_length(iban[:2]):
        return False
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1


_SAMPLE_SSNS = frozenset({"078051120", "123456789", "987654321", "219099999", "457555462"})


def is_ssn(number: str) -> bool:
    """Whether *number* may have been given out as a US social security number."""
    digits = plain(number)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    never = area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000"
    return not never and digits not in _SAMPLE_SSNS and len(set(digits)) > 1


def is_itin(number: str) -> bool:
    """Whether *number* has an area and a group of US individual taxpayer numbers."""
    digits = plain(number)
    group = int(digits[3:5])
    return digits[0] == "9" and (
        50 <= group <= 65 or 70 <= group <= 88 or (90 <= group <= 99 and group != 93)
    )


def is_south_african(number: str) -> bool:
    """Whether *number* begins with a date, tells a status (citizen, resident, refugee), and ends with Luhn's digit."""
    digits = plain(number)
    return _is_date(digits[:6]) and digits[10] in "012" and is_luhn(digits)


def _is_date(digits: str) -> bool:
    """Whether *digits* are the last two of a year, a month and a day."""
    year, month, day = (int(digits[at : at + 2]) for at in (0, 2, 4))
    return 1 <= month <= 12 and 1 <= day <= monthrange(2000 + year, month)[1]


def is_nino(number: str) -> bool:
    """Whether *number* has a prefix and a suffix of UK national insurance numbers."""
    nino = plain(number)
    first, second = nino[0], nino[1]
    bad = first in "DFIQUV" or second in "DFIQUVO" or nino[:2] in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
    return not bad and nino[-1] in "ABCD"


def is_nric(number: str) -> bool:
    """Whether *number* ends with the check letter of Singapore's identity cards (NRIC, FIN)."""
    nric = plain(number)
    letters = {
        "S": "JZIHGFEDCBA",
        "T": "JZIHGFEDCBA",
        "F": "XWUTRQPNMLK",
        "G": "XWUTRQPNMLK",
        "M": "KLJNPQRTUWX",
    }
    if nric[0] not in letters:
        return False
    extra = {"T": 4, "G": 4, "M": 3}.get(nric[0], 0)
    total = sum(int(digit) * weight for digit, weight in zip(nric[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    place = (total + extra) % 11
    return nric[-1] == letters[nric[0]][10 - place if nric[0] == "M" else place]
