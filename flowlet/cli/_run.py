"""``flowlet run``: find the function, read its inputs, run it, and say how it ended."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from .._engine._handle import Run, start_handle
from .._functions import build
from .._signature import signature_of
from ..errors import InputError, RecordingError, WorkflowTimeout
from ..metrics import ExecutionMetrics
from ..settings import process
from ..specs import checked_options, spec_of
from ..workflows import with_options
from . import _codes
from ._errors import as_data, exit_code, tell
from ._find import find
from ._inputs import read_inputs
from ._shown import json_of, write_json, write_result
from ._signals import AtOnce, Signals

if TYPE_CHECKING:
    from ..messages import JsonValue

Function = Callable[..., Any]


@frozen(eq=False, repr=False)
class Request:
    """How a run is to be shown, logged and recorded."""

    log: str | None
    report: Path | None
    quiet: bool
    record: Path | None = None
    replay: Path | None = None


Asked = tuple[Function, Sequence[Any], Mapping[str, Any]]
"""A function and its arguments."""


def target_with(target: str, words: tuple[str, ...], input: str | None, options: Mapping[str, Any]) -> Asked:
    """What *target* names, with the options of its run, and the inputs of the command line.

    Raises:
        FlowletError, Unloadable: the target, an input or an option is wrong.
    """
    fn = with_run_options(find(target), options)
    return fn, *read_inputs(fn, words, input)


@frozen(eq=False, repr=False)
class Ended:
    """How a run ended: the exit code, its outcome where that is asked for as data, and the signal that came."""

    code: int
    outcome: dict[str, JsonValue]
    signal: int | None


def execute(ask: Callable[[], Asked], request: Request, as_json: bool, whole: bool) -> int:
    """Run what *ask* gives as *request* says and give the exit code; *whole* tells tracebacks of failures.

    Raises:
        FlowletError, Unloadable: before anything ran.
    """
    ended = executed(ask, request, as_json, whole)
    if as_json:
        write_json(ended.outcome)
    return ended.code


def executed(ask: Callable[[], Asked], request: Request, as_json: bool, whole: bool) -> Ended:
    """Do as :func:`execute` does, and give the outcome instead of writing it as JSON.

    Raises:
        FlowletError, Unloadable: before anything ran.
    """
    _check_tape(request)
    with ExitStack() as stack:
        if as_json:  # stdout is for the one object alone
            stack.enter_context(redirect_stdout(sys.stderr))
        fn, args, kwargs = ask()
        _collect_garbage()
        run, signals, error = _finish(request, lambda: start_handle(fn, tuple(args), dict(kwargs)))
    if error is not None:
        tell(error, whole)
    elif not as_json:
        write_result(run.result(), signature_of(fn).returns)
    code = _codes.OK if error is None else _code(run, signals, error)
    return Ended(code, _outcome(run, fn, error) if as_json else {}, signals.exit_code)


def _collect_garbage() -> None:
    """Begin to, if the program did not yet: what was imported stays out of it."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def with_run_options(fn: Function, options: Mapping[str, Any]) -> Function:
    """Make *fn* with the options of its run: of a step, too, ``timeout`` is that of the whole."""
    checked_options("options", options)
    made = with_options(fn) if spec_of(fn) is None else fn
    spec = spec_of(made)
    assert spec is not None
    return build(evolve(spec, run=evolve(spec.run, **options)))  # type: ignore[no-any-return]


def _finish(
    request: Request, start: Callable[[], Run[Any]]
) -> tuple[Run[Any], Signals, BaseException | None]:
    """Start the run and wait for its end, shown and logged as *request* says."""
    with _leaving_at_once(), Signals() as signals, _watched(request), _taped(request) as errors:
        run = start()
        signals.cancel(run)
        error: BaseException | None = None
        try:
            run.result()
        except AtOnce:
            raise
        except BaseException as exc:  # noqa: BLE001 -- told by the caller
            error = exc
            errors.append(exc)
    if request.report is not None:
        _report(run, request.report)
    return run, signals, error


@contextmanager
def _watched(request: Request) -> Generator[None]:
    """Log and show the runs that begin in this block; a log on stderr leaves no room for the display."""
    if request.log is not None:
        _log(request.log)
    logs = process.settings.log
    busy = request.log == "-" or (logs.level is not None and logs.file is None)
    if request.quiet or busy:
        yield
        return
    from ..display import live

    with live(stream=sys.stderr):
        yield


def _log(target: str) -> None:
    from ..observers.logs import log_to

    try:
        log_to(
            sys.stderr if target == "-" else target, level="DEBUG", format=None if target == "-" else "json"
        )
    except OSError as exc:
        raise InputError(f"--log {target}: {exc.strerror}") from None


def _check_tape(request: Request) -> None:
    if request.record is not None and request.replay is not None:
        raise InputError("--record and --replay can't be given together")
    if request.replay is not None and not request.replay.is_file():
        raise InputError(f"--replay {request.replay}: there is no such file; --record makes one")


@contextmanager
def _taped(request: Request) -> Generator[list[BaseException]]:
    """Record or replay the model calls of this block, which leaves what it failed with in the list."""
    errors: list[BaseException] = []
    file = request.record or request.replay
    if file is None:
        yield errors
        return
    from ..testing import UnusedRecording, recording

    tape = recording(file, "none" if request.record is None else "all")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedRecording)
            with tape:
                yield errors
                if errors:
                    raise errors[0]
    except RecordingError as exc:
        if exc not in errors:
            if tape.replaying:
                raise
            print(f"flowlet: {exc}", file=sys.stderr)
    except BaseException as exc:
        if exc not in errors:
            raise
    if tape.unused and not errors:
        print(f"flowlet: recorded calls of {file} that were not used: {tape.unused}", file=sys.stderr)


@contextmanager
def _leaving_at_once() -> Generator[None]:
    """End the process at a second signal, with the terminal as it was, waiting for nothing."""
    try:
        yield
    except AtOnce as exc:
        print("flowlet: ended at once", file=sys.stderr, flush=True)
        os._exit(exc.args[0])


def _code(run: Run[Any], signals: Signals, error: BaseException) -> int:
    if run.state == "timeout" and isinstance(error, WorkflowTimeout):
        return _codes.TIMEOUT
    if run.state == "cancelled" and signals.exit_code is not None:
        return signals.exit_code
    return exit_code(error)


def _outcome(run: Run[Any], fn: Function, error: BaseException | None) -> dict[str, JsonValue]:
    return {
        "result": None if error is not None else json_of(run.result(), signature_of(fn).returns),
        "error": None if error is None else as_data(error),
        "metrics": json_of(run.metrics, ExecutionMetrics),
    }


def _report(run: Run[Any], file: Path) -> None:
    from ..display import report

    try:
        report(run, file)
    except OSError as exc:
        print(f"flowlet: --report {file}: {exc.strerror}; no report was written", file=sys.stderr)
