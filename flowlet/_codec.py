"""Typed Python to JSON and back, strictly, with all faults at once and their paths.

A union is told apart by the kind of JSON. Where several of its members are objects, classes carry a tag:
``{"type": "Cat", ...}``, or a field of their own that is a different Literal in each.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from ._data.checking import check as _check
from ._data.checking import walked
from ._data.faults import Use, Walk
from ._data.reading import load, load_wrapped, parse, read
from ._data.shapes import is_object
from ._data.shaping import shape_of
from ._data.writing import write
from .errors import InputError

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from .messages import JsonValue

__all__ = ["answer_from_json", "check", "from_json", "from_text", "to_json"]

T = TypeVar("T")
_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)


def check(value: object, hint: Any) -> tuple[str, ...]:
    """Tell what in *value* does not fit *hint*, converting nothing.

    An instance of the right class is trusted: its constructor keeps its fields.
    """
    return walked(_check, Walk("$", json=False), shape_of(hint), value)[1]


def from_json(data: JsonValue, hint: TypeForm[T], *, use: Use = "json") -> T:
    """Read JSON *data*, which was written for the same *use*, as *hint*.

    Raises:
        InputError: *data* does not fit; every fault has its path.
    """
    found: T = _done(
        "the JSON does not fit", *walked(read, Walk("$", json=True, use=use), shape_of(hint), data)
    )
    return found


def from_text(text: str, hint: TypeForm[T]) -> T:
    """Read the *text* of a command line or an environment variable as *hint*.

    ``5`` is an int; ``true``, ``false``, ``yes``, ``no`` are bools; dates and durations are ISO 8601;
    containers and classes are JSON.

    Raises:
        InputError: *text* does not fit; every fault has its path.
    """
    found: T = _done("the text does not fit", *walked(parse, Walk("$", json=True), shape_of(hint), text))
    return found


def to_json(value: object, hint: Any = Any, *, use: Use = "json") -> JsonValue:
    """Write *value* as JSON data that :func:`from_json` reads back under the same *hint*.

    With no hint the value speaks for itself, so members of a union that *hint* would tell carry no tag.
    Data to be kept has the marks of untrusted texts, and is plain JSON where there is no hint. A key tells
    values apart that are not equal under the hint, and is not read back.

    Raises:
        InputError: a part of *value* can't be JSON, does not fit, or would be read back as something else.
    """
    found: JsonValue = _done(
        "the value can't be written as JSON",
        *walked(write, Walk("$", json=False, use=use), shape_of(hint), value),
    )
    return found


def answer_from_json(text: str, hint: TypeForm[T]) -> T:
    """Read a model's answer to :func:`flowlet._schema.output_format` of the same *hint*.

    One fence of backquotes around it is tolerated. What is no object comes as ``{"value": ...}``.

    Raises:
        InputError: the answer is not JSON, or does not fit; every fault has its path.
    """
    fenced = _FENCE.fullmatch(text)
    shape = shape_of(hint)
    visit = load if is_object(shape) else load_wrapped
    text = fenced[1] if fenced else text
    found: T = _done("the answer does not fit", *walked(visit, Walk("$", json=True), shape, text))
    return found


def _done(message: str, found: Any, faults: tuple[str, ...]) -> Any:
    if faults:
        raise InputError(message, faults)
    return found
