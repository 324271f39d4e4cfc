"""The values that are one scalar of JSON: how each is told, read, written and described.

Durations are ISO 8601 (``PT1H30M``), bytes base64 (RFC 4648). A Decimal is text, so that no digit is lost.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from pathlib import Path, PurePath
from types import NoneType
from typing import Any
from uuid import UUID

from attrs import frozen

from .._value import Shown

BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
DECIMAL = r"^[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"
INTEGER = r"^[+-]?[0-9]+$"
_DURATION = re.compile(
    r"(-)?P(?=.)(?:([0-9]+)W)?(?:([0-9]+)D)?"
    r"(?:T(?=.)(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)(?:\.([0-9]{1,6}))?S)?)?"
)
_KINDS: Mapping[type, str] = {
    NoneType: "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def kind_of(data: object) -> str:
    """The kind of JSON that *data* is, as JSON Schema names it, or "" for what is not JSON."""
    found = _KINDS.get(type(data))
    if found is None:  # a YAML reader gives subclasses
        found = next((kind for cls, kind in _KINDS.items() if isinstance(data, cls)), "")
    return found


@frozen(eq=False, repr=False)
class Scalar(Shown):
    """A type whose values are one scalar of JSON.

    *read* (from JSON), *write* (to JSON) and *parse* (from text) raise ValueError for what does not fit.
    *words* name it in Python, *json_words* in JSON. Where several types of a union can hold the same
    JSON, the lowest *rank* is tried first.
    """

    types: tuple[type, ...]
    words: str
    json_words: str
    schema: Mapping[str, Any]
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    parse: Callable[[str], Any]
    but: tuple[type, ...] = ()
    rank: float = 0
    kinds: tuple[str, ...] = ("string",)

    def accepts(self, value: object) -> bool:
        """Whether the Python *value* is of this type."""
        return isinstance(value, self.types) and not isinstance(value, self.but)


def _nothing(text: str) -> None:
    if text not in ("", "null"):
        raise ValueError


def _truth(text: str) -> bool:
    found = {"true": True, "yes": True, "false": False, "no": False}.get(text.strip().lower())
    if found is None:
        raise ValueError
    return found


def _integer(text: str) -> int:
    if not re.fullmatch(INTEGER, text.strip()):
        raise ValueError
    return int(text)


def _whole(value: int) -> int:
    value = int(value)
    if abs(value) >= 2**63:
        str(value)  # ValueError, past the digits that Python prints and reads
    return value


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError
    return value


def _float(data: float) -> float:
    try:
        value = _finite(float(data))
    except OverflowError:
        raise ValueError from None
    if value != data:  # an integer that has more digits than a float can hold
        raise ValueError
    return value


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError
    return _finite(float(text))


def _text(value: str) -> str:
    value.encode()  # UnicodeEncodeError, for a lone surrogate, is a ValueError
    return str.__str__(value)  # plain text also from a StrEnum


def _bytes(text: str) -> bytes:
    if not re.fullmatch(BASE64, text):
        raise ValueError
    return base64.b64decode(text)


def _datetime(text: str) -> datetime:
    if text[10:11] not in ("T", " "):  # Python would read a date, too
        raise ValueError
    return datetime.fromisoformat(text)


def _date(text: str) -> date:
    if len(text) != len("2024-05-31"):
        raise ValueError
    return date.fromisoformat(text)


def _time(text: str) -> time:
    if text[2:3] != ":":
        raise ValueError
    return time.fromisoformat(text)


def _timedelta(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError
    sign, weeks, days, hours, minutes, seconds, part = found.groups(default="")
    value = timedelta(
        weeks=int(weeks or 0),
        days=int(days or 0),
        hours=int(hours or 0),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0),
        microseconds=int(part.ljust(6, "0")),
    )
    return -value if sign else value


def _write_timedelta(value: timedelta) -> str:
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    part = f".{value.microseconds:06}" if value.microseconds else ""
    return f"{sign}P{value.days}DT{value.seconds}{part}S"


def _decimal(data: str | float) -> Decimal:
    text = data if isinstance(data, str) else repr(data)
    if not re.fullmatch(DECIMAL, text):
        raise ValueError
    return Decimal(text)


def _write_decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError
    return str(value)


def _uuid(text: str) -> UUID:
    value = UUID(text)
    if str(value) != text.lower():
        raise ValueError
    return value


def _isoformat(value: date | time) -> str:
    return value.isoformat()


def _string(
    types: tuple[type, ...],
    json_words: str,
    schema: Mapping[str, Any],
    read: Callable[[Any], Any],
    write: Callable[[Any], str] = str,
    **more: Any,
) -> Scalar:
    schema = {"type": "string", **schema}
    return Scalar(types, f"a {types[0].__name__}", json_words, schema, read, write, read, **more)


def _plain(data: Any) -> Any:
    return data


TEXT = Scalar((str,), "text", "text", {"type": "string"}, _text, _text, _text, rank=3)
NOTHING = Scalar(
    (NoneType,), "None", "null", {"type": "null"}, _plain, _plain, _nothing, kinds=("null",), rank=-1
)
_ALL = (
    TEXT,
    NOTHING,
    Scalar(
        (bool,),
        "True or False",
        "true or false",
        {"type": "boolean"},
        _plain,
        _plain,
        _truth,
        kinds=("boolean",),
    ),
    Scalar(
        (int,),
        "a whole number",
        "a whole number",
        {"type": "integer"},
        int,
        _whole,
        _integer,
        but=(bool,),
        rank=1,
        kinds=("integer",),
    ),
    Scalar(
        (float, int),
        "a number",
        "a number",
        {"type": "number"},
        _float,
        _float,
        _number,
        but=(bool,),
        rank=2,
        kinds=("number", "integer"),
    ),
    _string(
        (Decimal,),
        "a decimal number as text",
        {"pattern": DECIMAL},
        _decimal,
        _write_decimal,
        rank=2.5,
        kinds=("string", "number", "integer"),
    ),
    _string(
        (bytes,),
        "bytes in base64",
        {"pattern": BASE64},
        _bytes,
        lambda value: base64.b64encode(value).decode(),
        rank=2.7,
    ),
    _string(
        (datetime,),
        "a date and time such as 2024-05-31T12:30:00Z",
        {"format": "date-time"},
        _datetime,
        _isoformat,
    ),
    _string((date,), "a date such as 2024-05-31", {"format": "date"}, _date, _isoformat, but=(datetime,)),
    _string((time,), "a time such as 12:30:00", {"format": "time"}, _time, _isoformat),
    _string((timedelta,), "a duration such as PT1H30M", {"format": "duration"}, _timedelta, _write_timedelta),
    _string((UUID,), "a UUID", {"format": "uuid"}, _uuid),
    _string((Path,), "a path", {}, lambda text: Path(_text(text)), lambda path: _text(str(path)), rank=4),
    _string(
        (PurePath,), "a path", {}, lambda text: PurePath(_text(text)), lambda path: _text(str(path)), rank=4
    ),
)
SCALARS: Mapping[type, Scalar] = {scalar.types[0]: scalar for scalar in _ALL}


def all_plain(scalar: object, values: Collection[Any]) -> bool:
    """Whether *values*, of which there may be many, are JSON as they are, and are read as they are."""
    plain = _PLAIN.get(scalar)
    return plain is not None and plain[0].issuperset(map(type, values)) and all(map(plain[1], values))


_PLAIN: Mapping[object, tuple[frozenset[type], Callable[[Any], bool]]] = {
    TEXT: (frozenset([str]), str.isascii),
    SCALARS[bool]: (frozenset([bool]), lambda _: True),
    SCALARS[int]: (frozenset([int]), lambda value: -(2**63) < value < 2**63),
    SCALARS[float]: (frozenset([float]), isfinite),
}


def scalar_of(value: object) -> Scalar | None:
    """The scalar type that *value* is of, also as an instance of a subclass."""
    found = SCALARS.get(type(value))
    return found if found is not None else _first(_ALL, value)


def _first(scalars: Iterable[Scalar], value: object) -> Scalar | None:
    return next((scalar for scalar in scalars if scalar.accepts(value)), None)
