"""Exceptions as they leave us: the frames of the user's code, and no cause with a secret below an error of ours.

Frames of ours between them say nothing of the failure, and loggers and test runners may print the local variables of
every frame: ours would add arguments, prompts and answers where the plain function shows none. Where an error began
with us, its last frames are ours and stay, without values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from pathlib import Path
from types import FrameType, TracebackType
from typing import cast

from ._value import without_secrets
from .errors import FlowletError

__all__ = ["conceal"]

_MAY_BE_SUSPENDED = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
"""What to clear would close, where others go on: one error may be raised in several tasks at once."""

_Group = BaseExceptionGroup[BaseException]
_OURS = str(Path(__file__).parent) + os.sep


def conceal(exc: BaseException) -> None:
    """Leave the frames of ours out that *exc* and its causes came through, and empty those where it began.

    Whoever calls this raises *exc* again with a bare ``raise``, which adds no frame.
    """
    for one in _chain(exc):
        one.with_traceback(_theirs(one.__traceback__))  # no assignment, which an exception may forbid
        if isinstance(one, FlowletError):
            _cut(one)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [exc]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += (one.__cause__, one.__context__)
            left += cast("_Group", one).exceptions if isinstance(one, BaseExceptionGroup) else ()


def _cut(error: FlowletError) -> None:
    """Drop the cause of *error* where a logger would show a secret with it; its text is in *error* already."""
    cause = error.__cause__ or error.__context__
    if cause is None or isinstance(cause, FlowletError):
        return
    if _may_show_secret(cause):
        error.__cause__ = error.__context__ = None


def _may_show_secret(cause: BaseException) -> bool:
    try:
        from traceback import format_exception  # only such failures need it, and what knows secrets

        text = "".join(format_exception(cause))
        return without_secrets(text) != text
    except OSError:  # no file can be opened, that of a module neither
        return True


def _theirs(traceback: TracebackType | None) -> TracebackType | None:
    first: TracebackType | None = None
    began_with_us = True
    for entry in reversed([*_entries(traceback)]):
        ours = entry.tb_frame.f_code.co_filename.startswith(_OURS)
        began_with_us = began_with_us and ours
        if not ours or (began_with_us and _is_cleared(entry.tb_frame)):
            entry.tb_next, first = first, entry
    return first


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _is_cleared(frame: FrameType) -> bool:
    if frame.f_code.co_flags & _MAY_BE_SUSPENDED:
        return False
    try:
        frame.clear()
    except RuntimeError:  # it still runs
        return False
    return True
