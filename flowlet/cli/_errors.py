"""Failures as people read them: what failed, where in their own code, and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

from .._target import Unloadable
from ..errors import (
    BridgeError,
    ConfigError,
    DefinitionError,
    FlowletError,
    InputError,
    JournalError,
    failure_of,
)
from ..settings import process
from . import _codes
from ._shown import write_json

if TYPE_CHECKING:
    from ..messages import JsonValue

_PLACED = (DefinitionError, InputError, BridgeError)
"""Errors of ours that are mended at a line of the user's code."""
_OURS = str(Path(__file__).parent.parent) + os.sep
_OTHERS = tuple({str(Path(os.__file__).parent) + os.sep, str(Path(sys.prefix, "lib")) + os.sep, "<frozen "})
_MOST_FRAMES = 3


def guarded(work: Callable[[], int], as_json: bool, whole: bool) -> int:
    """Do *work* and give its exit code; an error that a user can mend is told, with code 2."""
    try:
        return work()
    except (FlowletError, Unloadable) as exc:
        tell(exc, whole)
        if as_json:
            write_json({"error": as_data(exc)})
        return _codes.USAGE


def tell(exc: BaseException, whole: bool) -> None:
    """Tell *exc* on stderr, secrets redacted; *whole* adds the traceback."""
    lines = [f"flowlet: {_headline(exc)}", *_details(exc)]
    if whole:
        import traceback

        lines = ["".join(traceback.format_exception(exc)).rstrip(), *lines]
    elif not isinstance(exc, FlowletError):
        lines.append("  (--traceback shows the whole traceback)")
    from ..display._words import visible

    text = process.redactor.redact("\n".join(lines))
    print("\n".join(map(visible, text.split("\n"))), file=sys.stderr)


def as_data(exc: BaseException) -> JsonValue:
    """Write *exc* as JSON: its type, message and place."""
    cause = exc.__cause__ if isinstance(exc, Unloadable) and exc.__cause__ else exc
    failure = failure_of(exc)
    data: dict[str, JsonValue] = {
        "type": type(cause).__name__,
        "message": process.redactor.redact(_text(cause)),
    }
    if isinstance(exc, InputError | ConfigError | DefinitionError):
        data["faults"] = [process.redactor.redact(fault) for fault in exc.faults]
    if failure is not None:
        data |= {"step": failure.step, "path": list(failure.path), "attempt": failure.attempt}
    return data


def _headline(exc: BaseException) -> str:
    if isinstance(exc, Unloadable):
        return f"{exc} can't be imported: {_said(exc.__cause__ or exc)}"
    failure = failure_of(exc)
    return _said(exc) if failure is None else f"step {failure.step!r} failed: {_said(exc)}"


def _said(exc: BaseException) -> str:
    """Say *exc*: those of ours speak for themselves, others begin with their type."""
    text = _text(exc)
    if isinstance(exc, FlowletError):
        return text
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 -- a broken __str__ of the user's must not hide the failure
        return "<unprintable>"


def _details(exc: BaseException) -> Iterator[str]:
    notes: list[str] = getattr(exc, "__notes__", [])
    yield from (f"  {note}" for note in notes)
    shown = exc.__cause__ if isinstance(exc, Unloadable) and exc.__cause__ else exc
    if isinstance(shown, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", shown)
        for inner in group.exceptions:
            yield f"  - {_headline(inner)}"
            yield from (f"  {line}" for line in _details(inner))
    if isinstance(shown, SyntaxError) and shown.text:
        yield f"  {shown.filename}:{shown.lineno}\n      {shown.text.strip()}"
    if not isinstance(shown, FlowletError):
        yield from _frames(shown.__traceback__, _MOST_FRAMES)
    elif isinstance(shown, _PLACED):
        yield from _frames(shown.__traceback__, 1)
    if not isinstance(shown, FlowletError) and shown.__cause__ is not None:
        yield f"  caused by {_said(shown.__cause__)}"


def _frames(traceback: TracebackType | None, most: int) -> list[str]:
    """The last frames of the user's own code, with their lines."""
    from traceback import extract_tb

    own = [frame for frame in extract_tb(traceback) if not _foreign(frame.filename)]
    return [
        f"  {_near(frame.filename)}:{frame.lineno}, in {frame.name}\n      {frame.line}"
        for frame in own[-most:]
    ]


def _foreign(filename: str) -> bool:
    return filename.startswith((_OURS, *_OTHERS)) or f"{os.sep}site-packages{os.sep}" in filename


def _near(filename: str) -> str:
    """A path from here if it lies below, else as it is."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def exit_code(exc: BaseException) -> int:
    """The exit code of a run that ended with *exc*; one that its journal ended has not failed by itself."""
    return _codes.USAGE if isinstance(exc, ConfigError | JournalError) else _codes.FAILED
