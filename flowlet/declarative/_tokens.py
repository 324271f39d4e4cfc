"""The words of the two small languages in a workflow's file, types and conditions, with their places."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from attrs import define, field, frozen

from .._source import Fault, Place
from .._yaml import Node

__all__ = ["Misread", "Token", "Tokens"]

DEPTH = 20
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<name>   [^\W\d][\w.]*(?::\w+)? | \{\s*[\w.]+\s*\} )
  | (?P<number> [-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)? )
  | (?P<text>   "[^"]*" | '[^']*' )
  | (?P<sign>   == | != | <= | >= | \.\.\. | \S )
  )""",
    re.VERBOSE,
)


class Misread(Exception):
    """A text can't be read; *fault* says where and why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


@frozen
class Token:
    """A word, its kind, and where it begins. After the last one comes one of the kind ``end``."""

    kind: str
    text: str
    at: int


def _split(text: str) -> list[Token]:
    found = [
        Token(str(match.lastgroup), match[str(match.lastgroup)], match.start(str(match.lastgroup)))
        for match in _TOKEN.finditer(text)
    ]
    return [*found, Token("end", "", len(text))]


@define
class Tokens:
    """The words of a node's text, read one by one. *depth* is how many brackets are open."""

    node: Node
    depth: int = 0
    _left: list[Token] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = _split(self.node.text or "")[::-1]

    @property
    def next(self) -> Token:
        """The next word, which stays the next."""
        return self._left[-1]

    def take(self) -> Token:
        """The next word."""
        return self._left.pop() if len(self._left) > 1 else self._left[0]

    def skip(self, *texts: str) -> str:
        """Take the next word if it is one of *texts*, and give it; else nothing."""
        token = self.next
        return self.take().text if token.text in texts and token.kind in ("sign", "name") else ""

    def expect(self, *texts: str) -> str:
        """Take the next word, which is one of *texts*.

        Raises:
            Misread: it is not.
        """
        found = self.skip(*texts)
        if not found:
            raise self.misread(f"expected {' or '.join(texts)}")
        return found

    @contextmanager
    def deeper(self) -> Generator[None]:
        """Read one level deeper.

        Raises:
            Misread: that is too deep.
        """
        self.depth += 1
        if self.depth > DEPTH:
            raise self.misread(f"nested too deep; expected at most {DEPTH} levels", told=False)
        yield
        self.depth -= 1

    def place_of(self, token: Token) -> Place:
        """Where *token* is."""
        return self.node.part(token.at, len(token.text)) if token.text else self.node.place

    def misread(self, message: str, token: Token | None = None, *, told: bool = True) -> Misread:
        """What is wrong at *token*, or at the next word."""
        token = token or self.next
        found = f", found {token.text or 'the end'}" if told else ""
        return Misread(Fault(self.place_of(token), message + found))
