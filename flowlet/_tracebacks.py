"""Tracebacks without the values in our own frames: what users passed through them is for no log to show.

Loggers and test runners may print the local variables of every frame. Those of the user's own code are the user's to
show; ours would add arguments, prompts and answers where the plain function shows none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

__all__ = ["forget_locals"]

_OURS = str(Path(__file__).parent)


def forget_locals(exc: BaseException) -> None:
    """Empty the frames of ours that *exc* and its causes came through; one that still runs is left out.

    Whoever calls this raises *exc* again with a bare ``raise``, which adds no frame.
    """
    for one in _chain(exc):
        one.with_traceback(_forgotten(one.__traceback__))  # no assignment, which an exception may forbid


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [exc]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += (one.__cause__, one.__context__)
            left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


def _forgotten(traceback: TracebackType | None) -> TracebackType | None:
    first: TracebackType | None = None
    for entry in reversed([*_entries(traceback)]):
        if not _is_ours(entry.tb_frame) or _emptied(entry.tb_frame):
            entry.tb_next, first = first, entry
    return first


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)


def _emptied(frame: FrameType) -> bool:
    try:
        frame.clear()
    except RuntimeError:  # it still runs
        return False
    return True
