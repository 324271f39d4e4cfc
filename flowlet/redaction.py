"""Takes registered secrets, and what looks like an API key, out of texts.

A secret is found whole or by its first 12 characters, as it is, URL-encoded, JSON-escaped (once or
twice, as in JSON within a log line) and in base64 wherever it starts. What follows the 12 characters
goes too, as far as it belongs to the secret.
"""

from __future__ import annotations

import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote_plus, urlsplit

from attrs import frozen

from ._source import is_secret_name

__all__ = ["REDACTED", "Redactor"]

REDACTED = "[redacted]"
_SHORTEST = 8
_PREFIX = 12
_ALSO_KEYS = ("code", "sig")  # in addresses

# Each alternative begins with plain characters: the search skips to them. A key may follow an escape,
# as in "\nsk-…" or "%3Dsk-…", whose last character looks like a word's.
_KEY_SHAPES = re.compile(
    r"(?P<key>sk-(?:(?<![^\W_]sk-)|(?<=\\[nrt]sk-)|(?<=%[0-9A-Fa-f]{2}sk-))[\w-]{16,})"
    r"|[bB](?i:earer(?:\s|%20|\+)+)(?P<token>[\w.~+/=-]{16,})"
)

_Letters = tuple[tuple[str, ...], ...]
"""A text as the ways in which each of its characters may be written."""


class Redactor:
    """The secrets of a process, and the one pattern that finds them in every spelling.

    Any thread may register and redact. A secret never leaves it, in its ``repr`` neither.
    """

    __slots__ = ("_finder", "_lock", "_secrets")

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._finder = _finder(())
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent process may have held."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._secrets)} secrets>"

    def register(self, secret: str) -> None:
        """Redact *secret* from now on. One shorter than 8 characters is ignored: words would match it."""
        secret = secret.strip()
        if len(secret) < _SHORTEST or secret in self._secrets:
            return
        with self._lock:
            secrets = self._secrets | {secret}
            self._finder = _finder(secrets)
            self._secrets = secrets

    def register_address(self, url: str) -> None:
        """Redact what is a key in *url*: its user or password, and in its query what has the name of a key."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return
        named = [pair.partition("=") for pair in parts.query.split("&")]
        secrets = [value for name, _, value in named if is_secret_name(name) or name in _ALSO_KEYS]
        for secret in (parts.password or parts.username or "", *secrets):
            self.register(secret)
            self.register(unquote_plus(secret))

    def redact(self, text: str) -> str:
        """Replace every registered secret, and every text shaped like a key, with ``[redacted]``."""
        if not self.contains_secret(text) and _KEY_SHAPES.search(text) is None:
            return text
        spans = [*self._finder.spans(text), *_shapes(text)]
        pieces: list[str] = []
        end = 0
        for start, stop in sorted(spans):
            if start >= end:
                pieces += (text[end:start], REDACTED)
            end = max(end, stop)
        return "".join((*pieces, text[end:]))

    def contains_secret(self, text: str) -> bool:
        """Whether a registered secret is in *text*; a text that is only shaped like a key does not count."""
        return self._finder.pattern.search(text) is not None


def _shapes(text: str) -> Iterator[tuple[int, int]]:
    return (found.span(found.lastgroup or 0) for found in _KEY_SHAPES.finditer(text))


@frozen(eq=False, repr=False)  # it would show the secrets
class _Finder:
    """One pattern that finds the beginnings of *forms*, each a secret in one encoding."""

    pattern: re.Pattern[str]
    forms: tuple[_Letters, ...]

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Find all occurrences, overlapping ones too."""
        found = self.pattern.search(text)
        while found is not None:
            start = found.start()
            yield start, max(_end(text, start, form) for form in self.forms)
            found = self.pattern.search(text, start + 1)


def _finder(secrets: Iterable[str]) -> _Finder:
    forms = {tuple(map(_spellings, form)) for secret in secrets for form in _forms(secret)}
    beginnings = {form[:_PREFIX] for form in forms}
    # The first character is spelled out, so that each alternative begins with a plain one: 50 times faster.
    sources = {
        re.escape(first) + "".join(map(_either, others)) for firsts, *others in beginnings for first in firsts
    }
    return _Finder(re.compile("|".join(sorted(sources)) or r"(?!)"), tuple(forms))


def _forms(secret: str) -> set[str]:
    """Give *secret* as it is, and in both alphabets of base64 behind 0, 1 and 2 other bytes.

    A character of base64 that a neighbour has a part in is left out: it differs from place to place.
    """
    forms = {secret}
    data = secret.encode("utf-8", "surrogatepass")
    for before, mixed in enumerate((0, 2, 3)):
        encoded = b64encode(bytes(before) + data).decode()
        own = encoded[mixed : 8 * (before + len(data)) // 6]
        forms |= {own, own.translate(str.maketrans("+/", "-_"))}
    return forms


def _spellings(char: str) -> tuple[str, ...]:
    """Give every way of writing *char*: plain, in a URL, in a literal, in JSON, in JSON within JSON."""
    if char.isascii() and char.isalnum():
        return (char,)
    plain = {char, json.dumps(char)[1:-1], json.dumps(char, ensure_ascii=False)[1:-1], repr(char)[1:-1]}
    if char in "/'\"":
        plain.add("\\" + char)
    twice = {json.dumps(one)[1:-1] for one in plain}
    url = quote(char, safe="", errors="surrogatepass")
    spaces = {"+"} if char == " " else set[str]()
    return tuple(sorted({*plain, *twice, url, url.lower(), *spaces}))


def _either(spellings: tuple[str, ...]) -> str:
    escaped = [re.escape(one) for one in spellings]
    return escaped[0] if len(escaped) == 1 else f"(?:{'|'.join(escaped)})"


def _end(text: str, start: int, form: _Letters) -> int:
    """Tell where *form*, or a long enough part of it, ends; *start* if it does not begin there."""
    ends = {start}
    for count, spellings in enumerate(form):
        longer = {end + len(one) for end in ends for one in spellings if text.startswith(one, end)}
        if not longer:
            return max(ends) if count >= _PREFIX else start
        ends = longer
    return max(ends)
