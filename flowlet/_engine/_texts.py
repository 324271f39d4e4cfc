"""Values as JSON text: as a journal and the cache keep them, and as they are given back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from .._codec import from_json, to_json
from ..errors import InputError
from ..messages import JsonValue
from ..settings import process

encoded = json.JSONEncoder(separators=(",", ":")).encode
"""Writes JSON without spaces."""

_PLAIN: Mapping[type, Callable[[Any], str]] = {
    str: quoted,
    int: repr,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): lambda _: "null",
}

_sorted = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def text_of(value: object, hint: Any, what: str) -> str:
    """Write *value* as JSON text that is read back as the same under *hint*.

    Raises:
        InputError: it can't be, or it holds a registered secret; *what* it is is told with every fault.
    """
    try:
        text = encoded(to_json(value, hint, use="kept"))
    except InputError as exc:
        raise InputError(f"{what} can't be kept", exc.faults) from None
    return without_secret(text, lambda: what)


def value_of(text: str, hint: Any) -> Any:
    """Read what :func:`text_of` wrote.

    Raises:
        InputError: it does not fit *hint*.
    """
    return from_json(json.loads(text), hint, use="kept")


def given_back(text: str, hint: Any, what: str) -> Any:
    """Read what :func:`text_of` has just written, as a value that its class may refuse all the same.

    Raises:
        InputError: it does; *what* it is is told with every fault.
    """
    try:
        return value_of(text, hint)
    except InputError as exc:
        raise InputError(f"{what} can't be read back", exc.faults) from None


def without_secret(text: str, what: Callable[[], str]) -> str:
    """Give *text* back, which says *what* it is.

    Raises:
        InputError: it holds a registered secret.
    """
    if process.redactor.contains_secret(text):
        raise InputError(f"{what()} can't be kept", ("it holds a secret, such as a key of the environment",))
    return text


def canonical(data: Mapping[str, JsonValue]) -> str:
    """Write *data* so that the order of names has no part in it, as it has none in whether mappings are equal."""
    try:
        return f"{{{','.join([f'{quoted(key)}:{_PLAIN[type(value)](value)}' for key, value in sorted(data.items())])}}}"
    except KeyError:  # a value that is made of others; for all that are not, this is faster by two thirds
        return _sorted(data)
