"""Signatures, values and JSON as the commands show them."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._codec import to_json
from ..errors import InputError

if TYPE_CHECKING:
    from ..messages import JsonValue

_P = inspect.Parameter
_QUOTED_OR_PATH = re.compile(r"""(?P<quoted>'[^']*'|"[^"]*")|(?:[\w<>]+\.)+(?=\w)""")


def signature(fn: Callable[..., object], name: str | None = None) -> str:
    """Write *fn* as its ``def`` line does, without quotes around hints: ``talk(topic: str, count: int = 3)``."""
    found = inspect.signature(fn)
    plain = [_plain(p) for p in found.parameters.values()]
    returns = found.return_annotation
    text = inspect.Signature(plain, return_annotation=_hint(returns), __validate_parameters__=False)
    return f"{name or fn.__name__}{text}"


def hint(annotation: object) -> str | None:
    """Write an annotation as in source, None where there is none; names come without their modules."""
    if annotation is _P.empty:
        return None
    if isinstance(annotation, str):
        return annotation
    return _QUOTED_OR_PATH.sub(lambda found: found["quoted"] or "", inspect.formatannotation(annotation))


class _Bare:
    """Text whose repr is the text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _hint(annotation: object) -> Any:
    text = hint(annotation)
    return _P.empty if text is None else _Bare(text)


def _plain(parameter: _P) -> _P:
    default = parameter.default
    if default is not _P.empty and len(repr(default)) > 30:
        default = _Bare(f"{type(default).__name__}(…)")
    return parameter.replace(annotation=_hint(parameter.annotation), default=default)


def json_of(value: object, hint: Any = Any) -> JsonValue:
    """Write *value* as JSON, under *hint* if it fits; what can't be JSON comes as its repr, said on stderr."""
    for one in (hint, Any):
        try:
            return to_json(value, one)
        except InputError as exc:
            fault = exc
    print(f"flowlet: the result is written as its repr: {'; '.join(fault.faults)}", file=sys.stderr)
    return repr(value)


def write_json(value: JsonValue) -> None:
    """Write *value* to stdout, for people and programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def write_result(value: object, hint: Any) -> None:
    """Write a result to stdout: text as it is, None not at all, all else as JSON."""
    if isinstance(value, str):
        print(value)
    elif value is not None:
        data = json_of(value, hint)
        print(data) if isinstance(data, str) else write_json(data)
