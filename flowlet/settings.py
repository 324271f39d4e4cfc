"""What holds for the whole process: its settings, and the one place where process-wide state lives."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, Unpack, cast

from attrs import evolve

from ._catalogue import OPENAI_VARIABLES, Budgets, InputLimits, LogSettings, OpenAISettings, Settings
from ._forks import at_fork
from ._value import hiding
from .errors import ConfigError
from .events import Event, PluginFailed

if TYPE_CHECKING:
    from pathlib import Path

    from ._source import Fault
    from .entries import ChangedCode
    from .messages import Parameters
    from .pii import Guard
    from .pricing import Price
    from .protocols import Journal, LLMProvider, Middleware, Observer
    from .redaction import Redactor
    from .specs import Backend

__all__ = [
    "Budgets",
    "InputLimits",
    "LogSettings",
    "OpenAISettings",
    "Settings",
    "check",
    "configure",
    "process",
    "wrong",
]

T = TypeVar("T")


class Changes(TypedDict, total=False):
    """What ``configure`` takes: any of the settings."""

    model: str
    backend: Backend
    grace: float
    max_threads: int
    attempts: int
    call_timeout: float
    reasks: int
    models: Mapping[str, Parameters]
    prices: Mapping[str, Price]
    budget: Budgets
    log: LogSettings
    openai: OpenAISettings
    journal: str | Journal | None
    changed_code: ChangedCode
    inputs: InputLimits
    pii: Guard
    observers: Iterable[Observer]
    middleware: Iterable[Middleware | str]
    providers: Mapping[str, LLMProvider]


class LogObserver(Protocol):
    """An observer that people read."""

    def __call__(self, event: Event, /) -> None:
        """Log *event*, if it matters enough."""
        ...

    def says(self, event: Event, /) -> bool:
        """Whether *event* is one that it logs."""
        ...

    def close(self) -> object:
        """Close what it writes to."""
        ...


class Process:
    """Everything that is one per process, and nothing else is: settings, secrets, and the engine's services.

    Services (thread pool, background loops, recent runs, totals) are made when first asked for by
    class. Whoever changes this holds ``lock``.
    """

    logs: tuple[LogObserver, ...] = ()
    follow_log: Callable[[LogSettings], object] | None = None
    """Opens the log that the settings ask for; the layers above set it."""

    open_journal: Callable[[str | None], Journal]
    """Opens the journal at a path, or without one a journal in memory; the layers above set it."""

    diagnostics: tuple[Observer, ...] = ()
    """Who says what nobody may miss, where no log does; the layers above set it."""

    def __init__(self) -> None:
        self._at_end: list[Callable[[], object]] = []
        self.lock = threading.RLock()
        self.reset()

    def at_end(self, close: Callable[[], object]) -> None:
        """Call *close* when the interpreter ends, after the last model call."""
        self._at_end.append(close)

    def end(self) -> None:
        """Close what the process shares: connections, then logs."""
        while self._at_end:
            self._at_end.pop()()
        self.close_logs()

    def reset(self) -> None:
        """Forget everything, as in a fresh process; what threads of before are still putting in goes first."""
        self.close_logs()
        with self.lock:
            self._redactor: Redactor | None = None
            self._settings: Settings | None = None
            self._services: dict[type, Any] = {}
            self._failed_observers: set[int] = set()
            self.registered: Mapping[tuple[str, str], Any] = {}  # plugins by kind and name
            self.notices: Sequence[Observer] = self.diagnostics
            self._followed: LogSettings | None = None

    def after_fork(self) -> None:
        """Keep settings and secrets, and rebuild what threads and loops of the parent stood behind."""
        self.lock = threading.RLock()
        self._services = {}
        if self._redactor is not None:
            self._redactor.after_fork()

    @property
    def redactor(self) -> Redactor:
        """The secrets that must not be shown: keys in the environment, and those that providers are given."""
        if self._redactor is None:
            from .redaction import Redactor

            with self.lock:
                if self._redactor is None:
                    redactor = Redactor()
                    for name, value in os.environ.items():
                        if name.endswith("_API_KEY"):
                            redactor.register(value)
                        elif name.endswith("_BASE_URL"):
                            redactor.register_address(value)
                    self._redactor = redactor
        return self._redactor

    @property
    def settings(self) -> Settings:
        """The settings now; file and environment are read when they are first asked for."""
        return self._settings or self._first_settings()

    def _first_settings(self) -> Settings:
        with self.lock:
            if self._settings is None:
                self._settings = _first_settings(_file())
            return self._settings

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who hears of all events now: the observers in the settings, and the logs.

        Raises:
            ConfigError: the log that the settings ask for can't be written.
        """
        settings = self.settings
        if settings.log is not self._followed and self.follow_log is not None:
            with self.lock:
                self.follow_log(settings.log)
                self._followed = settings.log
        return settings.observers + self.logs

    def close_logs(self) -> None:
        """End all logs."""
        logs, self.logs = self.logs, ()
        for log in logs:
            log.close()

    def change(self, changes: Mapping[str, object]) -> None:
        """Replace the settings named in *changes*."""
        with self.lock:
            self._settings = evolve(self.settings, **_checked(changes))

    def observe(self, change: Callable[[tuple[Observer, ...]], Iterable[Observer]]) -> None:
        """Change who observes, without what reads and checks settings: the command line starts so."""
        with self.lock:
            self._settings = evolve(self.settings, observers=tuple(change(self.settings.observers)))

    def of(self, service: type[T]) -> T:
        """The one instance of *service* in this process."""
        found = self._services.get(service)
        if found is None:
            with self.lock:
                found = self._services.get(service)
                if found is None:
                    found = self._services[service] = service()
        return cast("T", found)

    def existing(self, service: type[T]) -> T | None:
        """The instance of *service*, if anybody asked for it yet."""
        return cast("T | None", self._services.get(service))

    def tell(self, event: Event, observers: Sequence[Observer]) -> None:
        """Tell *observers* of *event*; one that fails is reported once and does no harm."""
        for observer in observers:
            try:
                observer(event)
            except Exception as exc:  # noqa: BLE001 -- an observer must never hurt a run
                self._observer_failed(observer, exc)

    def _observer_failed(self, observer: Observer, exc: Exception) -> None:
        if id(observer) not in self._failed_observers:
            self._failed_observers.add(id(observer))
            name = getattr(observer, "__qualname__", type(observer).__qualname__)
            self.notice(PluginFailed(None, time.time(), f"observer {name}", f"{type(exc).__name__}: {exc}"))

    def notice(self, event: Event) -> None:
        """Tell what nobody may miss: to all observers, and to the diagnostics if no log has said it."""
        for observer in self.settings.observers:
            self._try(observer, event)
        said = [self._try(log, event) and log.says(event) for log in self.logs]
        for observer in () if any(said) else self.notices:
            self._try(observer, event)

    def _try(self, observer: Observer, event: Event) -> bool:
        try:
            observer(event)
        except Exception:  # noqa: BLE001 -- telling of a failure must not fail itself
            return False
        return True


process = Process()
hiding.hide = lambda text: process.redactor.redact(text)
at_fork(after_in_child=process.after_fork)
atexit.register(process.end)  # first in, last out: the end of runs comes before, and is still logged


def configure(**changes: Unpack[Changes]) -> None:
    """Change settings of this process: ``configure(model="openai:gpt-5-mini", grace=5)``.

    What is not named stays as it is; runs that go on keep what they began with. A setting that is a group
    (``log=LogSettings(...)``) is replaced as a whole.

    Raises:
        ConfigError: naming every setting that does not exist or can't have its value, or all that is
            wrong in ``flowlet.yaml`` and the environment.
    """
    process.change(changes)


def check(path: str | PathLike[str] | None = None) -> tuple[str, ...]:
    """Check the settings in the file and in the environment; tell each that is set, and by what.

    *path* is the file, in place of ``FLOWLET_CONFIG`` and ``flowlet.yaml``. Nothing is changed.

    Raises:
        ConfigError: naming everything that is wrong, with its place.
    """
    return tuple(_redacted(f"{name} = {value} ({source})") for name, value, source in sources(path))


def sources(path: str | PathLike[str] | None = None) -> tuple[tuple[str, object, str], ...]:
    """Check as :func:`check` does, and tell each value that is set: its name, the value, and what set it.

    Raises:
        ConfigError: naming everything that is wrong, with its place.
    """
    from pathlib import Path

    from ._sections import leaves
    from ._settings_rules import SECTION

    file = _file() if path is None else Path(path)
    in_file, in_environment = map(_flat, _sources(file))
    variables = {leaf.name: str(leaf.variable) for leaf in leaves(SECTION)}
    return tuple(
        (name, value, variables[name] if name in in_environment else str(file or "flowlet.yaml"))
        for name, value in {**in_file, **in_environment}.items()
    )


def _flat(data: Mapping[str, Any], path: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in data.items():
        inner = cast("dict[str, Any]", value)
        found |= _flat(inner, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


def _file() -> Path | None:
    """The file that the environment names; None leaves it to the working directory."""
    named = os.environ.get("FLOWLET_CONFIG", "").strip()
    if not named:
        return None
    from pathlib import Path

    return Path(named).expanduser()


def _first_settings(file: Path | None) -> Settings:
    if file is None and _nothing_said():
        return Settings()
    from ._sections import make, merged
    from ._settings_rules import SECTION

    found: Settings = make(merged(*_sources(file)), SECTION)
    return found


def _nothing_said() -> bool:
    """Whether all defaults hold, so that neither rules nor readers are even imported."""
    variables = OPENAI_VARIABLES.values()
    said = any(name.startswith("FLOWLET_") or name in variables for name in os.environ)
    return not said and not any(map(os.path.lexists, ("flowlet.yaml", "flowlet.yml")))


def _sources(file: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What file and environment say.

    Raises:
        ConfigError: naming everything that is wrong in either.
    """
    from ._settings_rules import SECTION
    from ._settings_sources import from_environment, from_file

    faults: list[Fault] = []
    found = (
        from_file(file, SECTION, _redacted, faults),
        from_environment(os.environ, SECTION, faults),
    )
    _refuse("the settings can't be used:", faults)
    return found


def wrong(name: str, value: str, message: str) -> ConfigError:
    """The error of a setting whose *value* turned out to be wrong when it was used, with its place in the file."""
    from ._settings_sources import place_of
    from ._source import Fault, render

    fault = Fault(place_of(_file(), os.environ, name, value) or f"middleware={value!r}", message)
    return ConfigError(f"the {name} can't be used:", tuple(map(_redacted, render([fault]))))


def _checked(changes: Mapping[str, object]) -> dict[str, Any]:
    from ._placed import check as check_value
    from ._settings_rules import SECTION
    from ._source import Fault
    from ._suggest import nearest

    faults: list[Fault] = []
    found = dict(changes)
    for name, value in changes.items():
        if name not in SECTION.fields:
            hint = nearest(name, SECTION.fields)
            faults.append(Fault(name, "no such setting" + (f"; did you mean {hint}?" if hint else "")))
            continue
        if name in ("observers", "middleware") and isinstance(value, Iterable):
            found[name] = (value,) if isinstance(value, str) else tuple(cast("Iterable[object]", value))
        check_value(name, found[name], SECTION.fields[name], faults)
    _refuse("configure():", faults)
    return found


def _refuse(message: str, faults: list[Fault]) -> None:
    from ._source import render

    if faults:
        told = (_redacted(text).replace("\n", "\n  ") for text in render(faults))
        raise ConfigError(message, tuple(told))


def _redacted(text: str) -> str:
    from ._source import masked

    return process.redactor.redact(masked(text))
