"""Whether an exception came to some code from outside of it: Ctrl-C, a signal, the end of a coroutine."""

from __future__ import annotations

import opcode
import signal
import threading
from collections.abc import Iterator
from types import CodeType, TracebackType
from typing import Any

__all__ = ["from_outside"]

_RAISE = opcode.opmap["RAISE_VARARGS"]


def from_outside(exc: BaseException) -> bool:
    """Whether *exc* was not raised by the code that it came out of, but put there by Python or a signal handler.

    Ctrl-C in the main thread and the ``GeneratorExit`` of a coroutine that is closed are at no ``raise``.
    """
    lines = list(_lines(exc.__traceback__))
    if not lines:
        return False
    if not {code for code, _ in lines}.isdisjoint(_signal_handlers()):
        return True
    code, at = lines[-1]
    thrown = code.co_code[at] != _RAISE
    if isinstance(exc, KeyboardInterrupt):
        in_main = threading.current_thread() is threading.main_thread()
        before = exc.__context__  # somebody's `except KeyboardInterrupt: raise KeyboardInterrupt`
        return in_main and (thrown or (isinstance(before, KeyboardInterrupt) and from_outside(before)))
    return thrown and isinstance(exc, GeneratorExit)


def _lines(traceback: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code, traceback.tb_lasti
        traceback = traceback.tb_next


def _signal_handlers() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while hasattr(handler, "func"):  # a partial
            handler = handler.func
        code = getattr(handler, "__code__", None)
        if isinstance(code, CodeType):
            yield code
