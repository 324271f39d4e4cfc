"""Finds numbers by their shapes: cards, IBANs, national ids, addresses of coins.

One pass goes from digit to digit. Pieces that are joined by single signs make a stretch; every part of a stretch
whose shape is known is checked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ._checks import iban_length, is_iban
from ._context import lift
from ._forms import WORDS, Form, is_coin, shape, shapes
from ._match import Match

__all__ = ["find_numbers", "stretches"]

_DIGIT = re.compile(r"[0-9]")
_PIECE = re.compile(r"[^\W_]+")
# A piece with a digit, and after single signs others, or a letter that ends a number (PR 12 36 12 C).
_STRETCH = re.compile(r"[^\W_]+(?:[ .+-](?:[^\W\d_]?[0-9][^\W_]*|[A-Za-z](?![^\W_])))*")
_IBAN = re.compile(r"[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_COIN = re.compile(r"bc1[02-9ac-hj-np-z]{11,71}|[13][1-9A-HJ-NP-Za-km-z]{25,34}")
_TAPROOT = re.compile(r"bc1p[02-9ac-hj-np-z]{58}")  # its checksum (BIP 350) is not in python-stdnum

SHORTEST = 7
"""Fewer characters tell of nobody."""

SHORTEST_COIN = 14
_MOST_PIECES = 5


def stretches(text: str) -> Iterator[tuple[int, int, int]]:
    """Every stretch of *text* with a digit and more than three characters: where it starts, where its first piece with a digit starts, its end."""
    found = _DIGIT.search(text)
    end = 0
    while found is not None:
        start = found.start()
        while start > end and text[start - 1].isalnum():
            start -= 1
        stretch = _STRETCH.match(text, start)
        if stretch is None:  # a digit of another script, or a letter that is a digit too
            end = found.end()
        else:
            if stretch.end() - start > 3:
                yield _before(text, start, end), start, stretch.end()
            end = stretch.end()
        found = _DIGIT.search(text, end)


def _before(text: str, start: int, least: int) -> int:
    """Where one or two letters begin that may stand before a number (PR 123612C, X-1234567-L), or *start*."""
    if start - least < 2 or text[start - 1] not in " -":
        return start
    at = start - 1
    while at > max(least, start - 4) and text[at - 1].isalpha():
        at -= 1
    alone = not (at and text[at - 1].isalnum())
    return at if alone and 0 < start - 1 - at < 3 else start


def find_numbers(text: str, kinds: Collection[str]) -> Iterator[Match]:
    """Find numbers of *kinds* in *text*."""
    ibans, coins = "iban" in kinds, "crypto" in kinds
    for before, start, end in stretches(text):
        if ibans and text[start + 2 : start + 4].isdigit() and (found := _iban(text, start)) is not None:
            yield found
        if end - before < SHORTEST:
            continue
        if coins and end - start >= SHORTEST_COIN:
            yield from _coins(text, start, end)
        yield from _shaped(text, before, end, kinds)


def _iban(text: str, start: int) -> Match | None:
    length = iban_length(text[start : start + 2])
    found = _IBAN.match(text, start) if length else None
    if found is None:
        return None
    end, left = start, length
    while left and end < found.end():
        left -= text[end].isalnum()
        end += 1
    whole = left == 0 and not text[end : end + 1].isalnum()
    return Match("iban", start, end, 1.0) if whole and is_iban(text[start:end]) else None


def _coins(text: str, start: int, end: int) -> Iterator[Match]:
    for piece in _PIECE.finditer(text, start, end):
        if _COIN.fullmatch(piece[0]) and (_TAPROOT.fullmatch(piece[0]) or is_coin(piece[0])):
            yield Match("crypto", *piece.span(), 0.9)


def _shaped(text: str, start: int, end: int, kinds: Collection[str]) -> Iterator[Match]:
    known, whole = shapes(), shape(text[start:end])
    pieces = [piece.span() for piece in _PIECE.finditer(text, start, end)]
    for index, (first, _) in enumerate(pieces):
        if index and text[first - 1] == ".":
            continue  # decimals
        for _, last in pieces[index : index + _MOST_PIECES]:
            forms = known.get(whole[first - start : last - start])
            if forms is not None and (found := _surest(text, first, last, forms, kinds)) is not None:
                yield found


def _surest(text: str, start: int, end: int, forms: tuple[Form, ...], kinds: Collection[str]) -> Match | None:
    number = text[start:end]
    scores = {
        form: min(1.0, form.score + lift(text, start, end, WORDS[form.kind]))
        for form in forms
        if form.kind in kinds and form.check(number)
    }
    if not scores:
        return None
    best = max(scores, key=lambda form: scores[form])
    return Match(best.kind, start, end, scores[best])
