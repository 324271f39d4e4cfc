"""The fingerprint of a function's code, which changes with what it does, not with how it is laid out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from types import CodeType

from ._fence import without_codes

CODE_ATTRIBUTE = "__flowlet_code__"
"""On a function that is made of data (a prompt's template): the text that stands for its code."""


FILE_ATTRIBUTE = "__flowlet_file__"
"""On a workflow that is described in a file: that file."""


def digest(*parts: str) -> str:
    """Make 32 hexadecimal digits of texts; no two sequences of texts give the same.

    The codes of fences around untrusted text are left out: they differ from process to process.
    """
    data = without_codes("".join([f"{len(part)}:{part}" for part in parts]))
    return blake2b(data.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def fingerprint(fn: Callable[..., object]) -> str:
    """Tell the code of *fn* from any other, by the bytecode that Python made of it.

    Comments, layout, docstring and decorators have no part in it; what it calls has none either.
    """
    given = getattr(fn, CODE_ATTRIBUTE, None)
    if isinstance(given, str):
        return digest(given)
    code = getattr(fn, "__code__", None)
    if not isinstance(code, CodeType):
        return digest(getattr(fn, "__qualname__", type(fn).__qualname__))
    return digest(*_parts(code, getattr(fn, "__doc__", None)))


def _parts(code: CodeType, doc: str | None) -> list[str]:
    consts = [_const(const) for const in code.co_consts if const is not doc]
    return [code.co_code.hex(), *code.co_names, "", *consts]


def _const(value: object) -> str:
    if isinstance(value, CodeType):
        return digest(*_parts(value, None))
    if isinstance(value, frozenset):  # the order of one changes with every process
        return repr(sorted(map(repr, value)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return repr(tuple(map(_const, value))) if isinstance(value, tuple) else repr(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
