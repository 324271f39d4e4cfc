"""A text that somebody wrote, places in it, and what is wrong there: shown with the line and a caret.

A line is shown without the secrets on it, and without characters that could steer a terminal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from attrs import frozen

__all__ = ["LIMIT", "Fault", "Place", "Source", "is_secret", "is_secret_name", "masked", "render"]

LIMIT = 100_000
"""The most bytes that are read: a reader of YAML takes a second for them."""
_WINDOW = 100
_MOST = 50
_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")  # where YAML breaks lines
_SHAPES = re.compile(
    r"\bsk-[\w-]{16,}|\b(?:gsk|hf|r8|gh[opsu]|github_pat|[rs]k_(?:live|test))_\w{16,}"
    r"|\b(?:xai|pplx|glpat)-[A-Za-z0-9_]{20,}|\bxox[abprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{8,999}\.[\w-]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY|\b[Bb]earer\s+[\w.~+/=-]{16,}"
    r"|(?<=://)[^/@\s]+@|(?<=[?&])(?:api[_-]?key|key|token|sig)=[^&\s]+"
    r"|\b(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{32,}\b"
)
_NAME = (
    r"(?<![^\W_])(?:api[_-]?key|apikey|key|(?:access|auth|bearer|refresh)token|token|password|passwd"
    r"|secret(?:[_-]?key)?|credentials?|authorization|bearer)"
)
_IS_NAME = re.compile(rf".*{_NAME}", re.IGNORECASE | re.DOTALL)
_NAMED = re.compile(  # what follows such a name: to the end of the line, and lines that are further in
    rf"^(?P<indent>[ \t-]*+)(?P<head>.*?{_NAME}[\"']?[ \t]*[:=])"
    r"(?P<value>[^\n]*(?:\n(?:(?P=indent)[ \t]+|[ \t]*[\"'])[^\n]*|\n[ \t]*(?=\n))*)",
    re.IGNORECASE | re.MULTILINE,
)


@frozen(slots=False)
class Source:
    """A text, and the name that its reader knows it by."""

    name: str
    text: str

    @classmethod
    def read(cls, path: Path, name: str) -> Source | Fault:
        """Read the file *path* as UTF-8, with a byte order mark or without; else tell what is wrong.

        Raises:
            FileNotFoundError: there is no such file.
        """
        empty = cls(name, "")
        try:
            if path.exists() and not path.is_file():
                return Fault(
                    Place(empty),
                    "expected a file, found a directory or a device; move it, or name another file",
                )
            with path.open("rb") as file:
                data = file.read(LIMIT + 1)
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or exc
            return Fault(Place(empty), f"can't be read ({reason}); expected a readable file of text")
        return _decoded(name, data)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The lines as they are."""
        return tuple(_BREAK.split(self.text))

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """The lines as they may be shown."""
        named = _NAMED.sub(_without_value, "\n".join(self.lines))
        return tuple(map(masked, named.split("\n")))

    def place(self, line: int, column: int, width: int = 1) -> Place:
        """The place at *line* and *column*, both counted from 0."""
        return Place(self, line + 1, column + 1, width)

    def place_at(self, index: int) -> Place:
        """The place of the character *index*."""
        before = _BREAK.split(self.text[:index])
        return self.place(len(before) - 1, len(before[-1]))


@frozen
class Place:
    """A place in a text: *line* and *column* from 1, and how many characters are meant. Line 0 is all of it."""

    source: Source
    line: int = 0
    column: int = 0
    width: int = 1

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}" if self.line else self.source.name


@frozen
class Fault:
    """What is wrong, and where. *place* is a place in a text, or the name of something else."""

    place: Place | str
    message: str


def render(faults: Iterable[Fault]) -> tuple[str, ...]:
    """Tell each fault in the order of the text, with its line and a caret; of several at one place the first."""
    first: dict[object, Fault] = {}
    for fault in faults:  # at one place one fault: others follow from it
        first.setdefault(str(fault.place) if isinstance(fault.place, Place) else fault, fault)
    found = sorted(first.values(), key=_order)
    more = (f"and {len(found) - _MOST} more",) if len(found) > _MOST else ()
    return (*map(_rendered, found[:_MOST]), *more)


def is_secret_name(name: str) -> bool:
    """Whether what is called *name* is a secret: ``api_key``, ``GITHUB_TOKEN``; not ``max_tokens``."""
    return ":" not in name and _IS_NAME.fullmatch(name) is not None


def is_secret(text: str) -> bool:
    """Whether *text* is shaped like a key, or holds one, as addresses may."""
    return _SHAPES.search(text) is not None


def masked(text: str) -> str:
    """*text* without what is shaped like a key."""
    return _SHAPES.sub("[redacted]", text)


def _decoded(name: str, data: bytes) -> Source | Fault:
    if len(data) > LIMIT:
        return Fault(
            Place(Source(name, "")),
            f"the file is too large: expected at most {LIMIT:,} bytes; is it the right one?",
        )
    try:
        return Source(name, data.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as exc:
        before = Source(name, data[: exc.start].decode())
        place = before.place_at(len(before.text))
        return Fault(
            place,
            f"expected text in UTF-8, found the byte 0x{data[exc.start]:02x}; save the file as UTF-8",
        )


def _without_value(found: re.Match[str]) -> str:
    lines = found["value"].split("\n")
    hidden = [" [redacted]" if line.strip() else line for line in lines]
    return found["indent"] + found["head"] + "\n".join(hidden)


def _order(fault: Fault) -> tuple[bool, int, int]:
    place = fault.place
    return (True, 0, 0) if isinstance(place, str) else (False, place.line, place.column)


def _rendered(fault: Fault) -> str:
    head = f"{fault.place}: {fault.message}"
    if isinstance(fault.place, str) or not fault.place.line:
        return head
    return "\n".join((head, *_excerpt(fault.place)))


def _excerpt(place: Place) -> tuple[str, str]:
    line, shown = place.source.lines[place.line - 1], place.source.shown[place.line - 1]
    same = next((i for i, (a, b) in enumerate(zip(line, shown, strict=False)) if a != b), len(shown))
    start = min(place.column - 1, same)  # what follows a secret has moved: point at that
    left = max(0, start - _WINDOW // 2)
    shown = ("…" if left else "") + shown[left : left + _WINDOW]
    start -= left - bool(left)
    width = max(1, min(place.width, len(shown) - start))
    number = f"{place.line:>5}"
    caret = "".join(map(_blank, shown[:start])) + "^" * width
    return f"{number} | {''.join(map(_plain, shown))}", f"{' ' * len(number)} | {caret}"


def _plain(char: str) -> str:
    return char if char.isprintable() else " " if char == "\t" else "\ufffd"


def _blank(char: str) -> str:
    if unicodedata.combining(char):
        return ""
    return "  " if unicodedata.east_asian_width(char) in "WF" else " "
