"""What holds for the whole process: its settings, and the one place where process-wide state lives."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, cast

from attrs import evolve, fields, frozen

from ._suggest import nearest
from .errors import ConfigError
from .events import Event, PluginFailed
from .protocols import LLMProvider, Middleware, Observer
from .specs import Backend

if TYPE_CHECKING:
    from .redaction import Redactor

__all__ = ["Settings", "configure"]

T = TypeVar("T")


@frozen
class Settings:
    """The settings of a process.

    Attributes:
        model: what ``LLM()`` leaves open, as ``provider:name``; ``offline`` holds for pinned models too.
        backend: the event loop of background runs.
        grace: seconds that model calls in flight may take to finish when their run is cancelled.
        max_threads: how many worker threads may be runnable at once.
        attempts: how often a model call is tried, the first time included.
        call_timeout: seconds that one attempt of a model call may take, body included.
        reasks: how often a model is told the faults of its typed answer and asked again.
        observers: called with every event.
        middleware: wraps the steps, model calls and runs of every run, the first one outermost.
        providers: providers by name, beside the built-in ones.
    """

    model: str = "openai:gpt-5-mini"
    backend: Backend = "asyncio"
    grace: float = 30.0
    max_threads: int = 64
    attempts: int = 3
    call_timeout: float = 600.0
    reasks: int = 1
    observers: tuple[Observer, ...] = ()
    middleware: tuple[Middleware, ...] = ()
    providers: Mapping[str, LLMProvider] = {}


class Changes(TypedDict, total=False):
    """What ``configure`` takes: any of the settings."""

    model: str
    backend: Backend
    grace: float
    max_threads: int
    attempts: int
    call_timeout: float
    reasks: int
    observers: Iterable[Observer]
    middleware: Iterable[Middleware]
    providers: Mapping[str, LLMProvider]


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _not_negative(value: object) -> bool:
    return value == 0 or _positive(value)


def _count(value: object) -> bool:
    return _positive(value) and isinstance(value, int)


_EXPECTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (
        lambda v: isinstance(v, str) and v.strip() != "",
        'text such as "openai:gpt-5-mini" or "offline"',
    ),
    "backend": (lambda v: v in ("asyncio", "trio"), '"asyncio" or "trio"'),
    "grace": (_not_negative, "a number of seconds, 0 or more"),
    "max_threads": (_count, "a whole number of at least 1"),
    "attempts": (_count, "a whole number of at least 1"),
    "call_timeout": (_positive, "a positive number of seconds"),
    "reasks": (lambda v: v == 0 or _count(v), "a whole number, 0 or more"),
    "observers": (lambda v: all(map(callable, v)), "a sequence of functions"),
    "middleware": (lambda v: all(map(callable, v)), "a sequence of functions"),
    "providers": (lambda v: isinstance(v, Mapping), "a mapping of names to providers"),
}

_FROM_ENVIRONMENT: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "FLOWLET_MODEL": ("model", str),
    "FLOWLET_BACKEND": ("backend", str),
    "FLOWLET_GRACE": ("grace", float),
    "FLOWLET_MAX_THREADS": ("max_threads", int),
    "FLOWLET_ATTEMPTS": ("attempts", int),
    "FLOWLET_CALL_TIMEOUT": ("call_timeout", float),
    "FLOWLET_REASKS": ("reasks", int),
}


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings that *environment* gives.

    Raises:
        ConfigError: naming every variable whose value can't be used.
    """
    values: dict[str, object] = {}
    faults: list[str] = []
    for variable, (name, convert) in _FROM_ENVIRONMENT.items():
        text = environment.get(variable, "")
        if not text:
            continue
        try:
            values[name] = convert(text)
        except ValueError:
            values[name] = text
        if not _EXPECTED[name][0](values[name]):
            faults.append(f"{variable}={text!r} is not {_EXPECTED[name][1]}")
    if faults:
        raise ConfigError("the environment can't be used:", tuple(faults))
    return evolve(Settings(), **cast("dict[str, Any]", values))


def _checked(changes: Mapping[str, object]) -> Mapping[str, object]:
    names = [a.name for a in fields(Settings)]
    faults: list[str] = []
    for name, value in changes.items():
        if name not in names:
            hint = nearest(name, names)
            faults.append(f"{name}: no such setting" + (f"; did you mean {hint}?" if hint else ""))
        elif not _EXPECTED[name][0](value):
            faults.append(f"{name}={value!r} is not {_EXPECTED[name][1]}")
    if faults:
        raise ConfigError("configure():", tuple(faults))
    tuples = ("observers", "middleware")
    return {n: tuple(cast("Sequence[object]", v)) if n in tuples else v for n, v in changes.items()}


class Process:
    """Everything that is one per process, and nothing else is: settings, secrets, and the engine's services.

    Services (thread pool, background loops, recent runs, totals) are made when first asked for by
    class. Whoever changes this holds ``lock``.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything, as in a fresh process."""
        self.lock = threading.RLock()
        self._redactor: Redactor | None = None
        self._settings: Settings | None = None
        self._services: dict[type, Any] = {}
        self._failed_observers: set[int] = set()
        self.notices: Sequence[Observer] = ()

    def after_fork(self) -> None:
        """Keep settings and secrets, and rebuild what threads and loops of the parent stood behind."""
        self.lock = threading.RLock()
        self._services = {}
        if self._redactor is not None:
            self._redactor.after_fork()

    @property
    def redactor(self) -> Redactor:
        """The secrets that must not be shown."""
        if self._redactor is None:
            from .redaction import Redactor

            with self.lock:
                self._redactor = self._redactor or Redactor()
        return self._redactor

    @property
    def settings(self) -> Settings:
        """The settings now; the environment is read when they are first asked for."""
        return self._settings or self._first_settings()

    def _first_settings(self) -> Settings:
        with self.lock:
            if self._settings is None:
                self._settings = from_environment(os.environ)
            return self._settings

    def change(self, changes: Mapping[str, object]) -> None:
        """Replace the settings named in *changes*."""
        with self.lock:
            self._settings = evolve(self.settings, **cast("dict[str, Any]", _checked(changes)))

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
            self.notice(PluginFailed(None, 0.0, f"observer {name}", f"{type(exc).__name__}: {exc}"))

    def notice(self, event: Event) -> None:
        """Tell what nobody may miss: to the observers in the settings and to the diagnostics."""
        for observer in (*self.settings.observers, *self.notices):
            try:
                observer(event)
            except Exception:  # noqa: BLE001, S112 -- telling of a failure must not fail itself
                continue


process = Process()
os.register_at_fork(after_in_child=process.after_fork)


def configure(**changes: Unpack[Changes]) -> None:
    """Change settings of this process: ``configure(model="openai:gpt-5-mini", grace=5)``.

    What is not named stays as it is; runs that go on keep what they began with.

    Raises:
        ConfigError: naming every setting that does not exist or can't have its value.
    """
    process.change(changes)
