"""What comes out of a plugin: attributed to it, told once in a run, and kept from hurting more than that run."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from .._entry_points import Plugin
from .._outside import from_outside
from .._plugins import middleware_known, provider_known, tell
from .._raised import describe
from ..context import RunRecord, current
from ..errors import FlowletError, PluginError, note
from ..protocols import ModelCall, RunCall, StepCall
from ..settings import process
from ._loops import is_cancellation

_MARK = "__flowlet_plugin__"


class Blame:
    """A block in which the code of *plugin* runs; what that raises leaves it as the run is to see it.

    An error passes unchanged, with a note. What would end more than the run (``SystemExit``, a
    ``KeyboardInterrupt`` of its own, ``StopIteration``, a bare ``BaseException``) becomes a ``PluginError``.
    """

    __slots__ = ("_plugin",)

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, exc: BaseException | None, __: TracebackType | None) -> None:
        if exc is not None:
            told = blamed(self._plugin, exc)
            if told is not exc:
                raise told from exc


def blamed(plugin: Plugin, exc: BaseException) -> BaseException:
    """Attribute *exc* to *plugin*, unless it came from outside or is a cancellation; give what the run is to see."""
    if is_no_failure(exc):
        return exc
    if isinstance(exc, Exception) and not isinstance(exc, StopIteration | StopAsyncIteration):
        told: BaseException = exc
    else:
        told = PluginError(f"{plugin} raised {describe(exc)}")
    if told.__dict__.setdefault(_MARK, plugin) == plugin:  # not that of a plugin inside this one
        note(told, f"raised by the plugin {plugin}")
        if not isinstance(told, FlowletError) or isinstance(told, PluginError):
            _tell_once(plugin, describe(exc))
    return told


def is_no_failure(exc: BaseException) -> bool:
    """Whether *exc* only passes: a cancellation, or what came from outside."""
    own = isinstance(exc, KeyboardInterrupt | GeneratorExit)  # raised by the code itself, unless from outside
    return from_outside(exc) or (is_cancellation(exc) and not own)


def blamed_middleware(middleware: Callable[..., Any], call: Any, exc: BaseException) -> BaseException:
    """Attribute *exc* to *middleware*, which raised it itself; give what the run is to see.

    The user's own function is told truthfully, with a note; one that has a name is a plugin.
    """
    plugin = middleware_known(middleware)
    if plugin is not None:
        return blamed(plugin, exc)
    if not is_no_failure(exc):
        note(exc, f"raised by the middleware {_name(middleware)!r} {_place(call)}")
    return exc


def no_completion(middleware: Callable[..., Any], call: Any, result: object) -> BaseException:
    """The error of a middleware of model calls that gave something else than a completion."""
    plugin = middleware_known(middleware)
    who = f"middleware {_name(middleware)!r}" if plugin is None else str(plugin)
    error = PluginError(
        f"{who} {_place(call)} returned {type(result).__name__}, expected a Completion: "
        "return what next(call) gives, or a Completion(text)"
    )
    return error if plugin is None else blamed(plugin, error)


def provider_failed(name: str, error: str) -> None:
    """Tell that the provider *name* did what no provider may."""
    _tell_once(provider_known(name), error)


def _name(middleware: Callable[..., Any]) -> str:
    return str(getattr(middleware, "__qualname__", type(middleware).__qualname__))


def _place(call: Any) -> str:
    if isinstance(call, StepCall):
        return f"around step {call.step!r}"
    if isinstance(call, ModelCall):
        return f"around a call of model '{call.provider}:{call.request.model}'"
    return f"around the run of {call.workflow!r}" if isinstance(call, RunCall) else "around a call"


class Told:
    """The plugins whose failure was told, by run."""

    def __init__(self) -> None:
        self.by_run: WeakKeyDictionary[RunRecord, set[Plugin]] = WeakKeyDictionary()


def _tell_once(plugin: Plugin, error: str) -> None:
    frame = current.get()
    run = None if frame is None else frame.run
    if run is not None:
        told = process.of(Told).by_run.setdefault(run, set())
        if plugin in told:
            return
        told.add(plugin)
    tell(plugin, error)
