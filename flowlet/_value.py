"""What frozen values share: their ``repr``, without secrets, equality and hash, once instead of for each class.

attrs would generate them, which takes half of the time in which a class is made, and so a good part of
the start of a program. So a class says ``@frozen(eq=False, repr=False)`` and has one of these as its base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from attrs import Attribute, AttrsInstance, fields

__all__ = ["Shown", "Value", "address", "hiding", "without_secrets"]


class _Hiding:
    """How secrets are taken out of what is shown: the process, which knows them, says so when it is there."""

    hide: Callable[[str], str] = str


hiding = _Hiding()


def without_secrets(text: str) -> str:
    """Take the secrets out of *text* that the process knows by now."""
    return hiding.hide(text)


def address(url: str | None) -> str:
    """Show *url* without what may be a key in it: user, password and query."""
    if url is None:
        return "None"
    scheme, separator, rest = url.partition("?")[0].rpartition("://")
    host, slash, path = rest.partition("/")
    return repr(scheme + separator + host.rpartition("@")[2] + slash + path)


class Shown:
    """A ``repr`` that tells the fields, but no secret: ``Budget(calls=3, tokens=None, cost=None)``."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = (f"{a.name}={_repr_of(a)(getattr(self, a.name))}" for a in _fields(self) if a.repr)
        return without_secrets(f"{type(self).__qualname__.rpartition('>.')[2]}({', '.join(shown)})")

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        """The fields for rich, which would go by attrs and past ``__repr__``."""
        return ((a.name, _pretty(getattr(self, a.name))) for a in _fields(self) if a.repr is True)


class Value(Shown):
    """What is equal to every value of its class with the same fields."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return _compared(self) == _compared(other)

    def __hash__(self) -> int:
        return hash((type(self), _compared(self)))


def _pretty(value: object) -> object:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, tuple | list):
        return [_pretty(one) for one in cast("Sequence[object]", value)]
    if isinstance(value, Mapping):
        return {name: _pretty(one) for name, one in cast("Mapping[str, object]", value).items()}
    return value


def _repr_of(attribute: Attribute[Any]) -> Callable[[object], str]:
    return attribute.repr if callable(attribute.repr) else repr


def _compared(value: object) -> tuple[object, ...]:
    return tuple(getattr(value, a.name) for a in _fields(value) if a.eq)


def _fields(value: object) -> tuple[Attribute[Any], ...]:
    found: tuple[Attribute[Any], ...] = fields(cast("type[AttrsInstance]", type(value)))
    return found
