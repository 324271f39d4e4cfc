"""Coroutines of async steps that a body drops un-awaited: noted by their run, and raised as its error.

CPython calls ``warnings._warn_unawaited_coroutine`` where a coroutine that never began is dropped, in the
thread and the context of whoever drops it. An interpreter without that function warns in its own way.
"""

from __future__ import annotations

import gc
import re
import sys
import warnings
from collections.abc import Callable
from dis import opname
from types import CoroutineType, FrameType, TracebackType
from typing import Any

from ..context import RunRecord, current
from ..errors import BridgeError
from ._failures import ASYNC_CODE, lines_that_work, short

_PACKAGE = __name__.partition(".")[0]

_LEFT = re.compile(
    "POP_TOP|POP_JUMP|JUMP_IF|UNARY|TO_BOOL|COMPARE|IS_OP|CONTAINS|BINARY|FORMAT|CONVERT|"
    "FOR_ITER|LIST_EXTEND|SET_UPDATE|UNPACK|CALL(?!_INTRINSIC)|PRECALL|CACHE|SEND"
)
"""Where code drops what it left behind: a result that it does not take, or only looks at, and when a call returns.

What hangs on an exception is dropped elsewhere, by code that handled it and left nothing behind.
"""


class _Warning:
    """Takes the place of Python's function, and calls it for what is not noted.

    A class, since then no frame of ours is between Python's function and the line that it warns of.
    """

    references = 0
    """What Python has on a coroutine that is dropped; the garbage collector, which strikes anywhere, has more."""

    __init__: Callable[..., None]

    def __new__(cls, coroutine: CoroutineType[Any, Any, Any]) -> _Warning | None:  # type: ignore[misc]
        """Note *coroutine* if it is a step's that a run has dropped. It never raises: this is a destructor."""
        references = sys.getrefcount(coroutine)
        try:
            if coroutine.cr_code is _never.__code__:
                cls.references = references
                return None
            if coroutine.cr_code in ASYNC_CODE and references <= cls.references and _noted(coroutine):
                return None
        except Exception:  # noqa: BLE001, S110 -- Python's own warning is left
            pass
        return super().__new__(cls)


async def _never() -> None:
    """The coroutine that is dropped once to count references."""


def _noted(coroutine: CoroutineType[Any, Any, Any]) -> bool:
    frame, by = current.get(), sys._getframe(2)  # pyright: ignore[reportPrivateUsage] -- of whoever drops it
    run = None if frame is None or frame.scope.reason is not None else frame.run
    if frame is None or run is None or not _LEFT.match(opname[by.f_code.co_code[by.f_lasti]]):
        return False
    if run.dropped is None:
        if _breaks_off(by):
            return False
        name = coroutine.__qualname__
        place = _place(coroutine, by) or repr(run.workflow if frame.step is None else frame.step.name)
        run.dropped = (
            f"{short(name)!r} is async and was not awaited: its coroutine was dropped in {place}.\n"
            f"{lines_that_work(name)}"
        )
        run.simple = False  # so that the next call of a step looks
    return True


def _breaks_off(by: FrameType) -> bool:
    """Whether an exception was raised where *by* is now, and drops what was to go into the same expression."""
    return any(type(one) is TracebackType and one.tb_lasti == by.f_lasti for one in gc.get_referrers(by))


def _place(coroutine: CoroutineType[Any, Any, Any], by: FrameType) -> str | None:
    """The line of the user's code; None when a body that returned left it, and code of ours goes on."""
    if coroutine.cr_origin:  # Python was asked to keep it
        return "{2}, {0}:{1}".format(*coroutine.cr_origin[0])
    if by.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        return None
    return f"{by.f_code.co_name}, {by.f_code.co_filename}:{by.f_lineno}"


def refuse_dropped(run: RunRecord) -> None:
    """Go on, unless *run* dropped the coroutine of a step.

    Raises:
        BridgeError: naming the step that was not awaited, and the line if the body itself dropped it there.
    """
    if run.dropped is not None:
        raise BridgeError(run.dropped)


def _watch() -> None:
    function = getattr(warnings, "_warn_unawaited_coroutine", None)
    if function is not None:
        _Warning.__init__ = staticmethod(function)
        warnings._warn_unawaited_coroutine = _Warning  # type: ignore[attr-defined]
        sample = _never()
        del sample


_watch()
