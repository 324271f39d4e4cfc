"""Logs: events as lines of JSON or text, or as records of the host's own logger. The only file that knows loguru.

loguru has one logger for the process, and it is the host's. Lines to a stream or file go through a
second one, made here, which shares no handlers with it.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec, module_from_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard, cast

from ..errors import ConfigError
from ..events import Event
from ..settings import LogSettings, process
from ._lines import LEVELS, Level, fields_of, json_of, level_of, sentence_of, text_of

if TYPE_CHECKING:
    from loguru import Logger

__all__ = ["log_to"]


class Stream(Protocol):
    """What lines can be written to."""

    def write(self, text: str, /) -> object:
        """Write *text*."""
        ...


def log_to(
    target: Stream | str | PathLike[str] | Logger | logging.Logger | None,
    *,
    level: Level = "INFO",
    format: Literal["json", "text"] | None = None,
    prompts: bool = False,
) -> None:
    """Log what happens from now on to *target*; a second call for the same target replaces the first.

    Args:
        target: a stream (``sys.stderr``), the path of a file to append to, or a logger of the host's
            (loguru's or the standard library's), whose handlers then get flowlet's lines, with the
            fields as ``extra``. None ends all logs.
        level: the least that is logged. ``DEBUG`` has steps and model calls, ``INFO`` runs, ``WARNING``
            retries and refusals, ``ERROR`` failures.
        format: one JSON object a line, or text for people; None is text in a terminal, else JSON. A
            host's logger has its own.
        prompts: whether what models are asked and answer is logged too. Secrets are redacted, personal
            data are not.

    Raises:
        ConfigError: an argument can't have its value.
        OSError: the file can't be opened.
    """
    if target is None:
        process.close_logs()
        return
    _check(target, level, format)
    name = _path(target) or target
    ways = _ways(target, format, prompts=prompts)
    with process.lock:
        _log_of(name).change(level, *ways)


def follow(settings: LogSettings) -> None:
    """Log as *settings* say, and no longer as they said before.

    Raises:
        ConfigError: the file can't be opened.
    """
    before = [log for log in process.logs if isinstance(log, Log) and log.of_settings]
    process.logs = tuple(log for log in process.logs if log not in before)
    for log in before:
        log.close()
    target = settings.file or sys.stderr
    if settings.level is None or target is None:  # pyright: ignore[reportUnnecessaryComparison] -- without a console
        return
    try:
        log_to(target, level=settings.level, format=settings.format, prompts=settings.prompts)
    except OSError as exc:
        raise ConfigError(
            "the log can't be written:", (f"log.file = {settings.file}: {exc.strerror}",)
        ) from exc
    _log_of(_path(target) or target).of_settings = True


def _log_of(name: object) -> Log:
    """The log to the target called *name*, a new one if there is none."""
    log = next((log for log in process.logs if isinstance(log, Log) and log.name == name), None)
    if log is None:
        log = Log(name)
        process.logs = (*process.logs, log)
    return log


def _path(target: object) -> str | None:
    """The whole path, where *target* is one."""
    is_path = isinstance(target, str | PathLike)
    return str(Path(cast("str | PathLike[str]", target)).absolute()) if is_path else None


def _check(target: object, level: str, format: str | None) -> None:
    faults: list[str] = []
    if not (isinstance(target, str | PathLike | logging.Logger) or _of_loguru(target) or _writes(target)):
        faults.append(f"target={target!r} is no stream, path, loguru or logging logger, nor None")
    if level not in LEVELS:
        faults.append(f"level={level!r} is not one of {', '.join(LEVELS)}")
    if format not in ("json", "text", None):
        faults.append(f'format={format!r} is not "json" or "text"')
    if faults:
        raise ConfigError("log_to():", tuple(faults))


Write = Callable[[Event, Level], object]


class _Here(threading.local):
    busy = False


class Log:
    """An observer that logs events to one target.

    State: level and way of writing, which :func:`log_to` changes for the runs that go on, too; and in
    which threads a line is being written. What happens within that (a sink that runs a workflow, a
    handle that is dropped there) is not logged: it would be a deadlock or have no end.
    """

    def __init__(self, name: object) -> None:
        self.name = name
        self.of_settings = False
        self._least = LEVELS["ERROR"]
        self._write: Write = _nothing
        self._here = _Here()
        self._close: Callable[[], object] = _nothing

    def change(self, level: Level, write: Write, close: Callable[[], object]) -> None:
        """Log from *level* on with *write*, and close what was written to before."""
        before, self._close = self._close, close
        self._least, self._write = LEVELS[level], write
        before()

    def __call__(self, event: Event) -> None:
        """Log *event*."""
        level = level_of(event)
        if LEVELS[level] < self._least or self._here.busy:
            return
        self._here.busy = True
        try:
            self._write(event, level)
        finally:
            self._here.busy = False

    def close(self) -> None:
        """Close what it writes to."""
        self.change("ERROR", _nothing, _nothing)

    def says(self, event: Event) -> bool:
        """Whether *event* is one that it logs, here and now."""
        return LEVELS[level_of(event)] >= self._least and not self._here.busy


def _ways(target: Any, format: str | None, *, prompts: bool) -> tuple[Write, Callable[[], object]]:
    """How to write to *target*, and how to close it."""
    if isinstance(target, logging.Logger):
        return partial(_to_logging, target, prompts), _nothing
    if _of_loguru(target):
        return partial(_to_loguru, target, prompts), _nothing
    logger = _second_logger()
    sink: Any = _path(target) or target
    if isinstance(sink, str):
        sink = sink.replace("{", "{{").replace("}", "}}")  # loguru would fill them
    logger.add(sink, level=0, format="{message}", catch=False, backtrace=False, diagnose=False)
    people = format == "text" or (format is None and _is_terminal(target))
    encoding = getattr(target, "encoding", None) or "utf-8"
    return partial(_to_own, logger, text_of if people else json_of, encoding, prompts), logger.remove


def _nothing(*_: object) -> None:
    pass


def _second_logger() -> Logger:
    """Make a logger beside the host's, as loguru makes that one: by running its module.

    A copy would hold the host's handlers, unless they were removed first.
    """
    spec = find_spec("loguru")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    logger: Logger = module.logger
    logger.remove()  # its default: standard error
    atexit.unregister(logger.remove)  # the process closes it, after all that is told at its end
    return logger


def _of_loguru(target: object) -> TypeGuard[Logger]:
    loguru = sys.modules.get("loguru")
    return loguru is not None and isinstance(target, type(loguru.logger))


def _writes(target: object) -> bool:
    return callable(getattr(target, "write", None))


def _is_terminal(target: object) -> bool:
    isatty = getattr(target, "isatty", None)
    return isatty is not None and bool(isatty())


# No text is given to a logger as a format: a message without arguments stays as it is.


def _to_own(
    logger: Logger, form: Callable[..., str], encoding: str, prompts: bool, event: Event, level: Level
) -> None:
    line = form(event, level, process.redactor.redact, prompts=prompts)
    narrow = line.encode(encoding, "backslashreplace").decode(encoding)
    logger.opt(raw=True).log(level, narrow + "\n")


def _to_loguru(logger: Logger, prompts: bool, event: Event, level: Level) -> None:
    redact = process.redactor.redact
    bound = logger.opt().bind(**fields_of(event, redact, prompts=prompts))
    bound.log(level, sentence_of(event, redact, prompts=prompts))


def _to_logging(logger: logging.Logger, prompts: bool, event: Event, level: Level) -> None:
    redact = process.redactor.redact
    extra = fields_of(event, redact, prompts=prompts)
    logger.log(LEVELS[level], sentence_of(event, redact, prompts=prompts), extra=extra)
