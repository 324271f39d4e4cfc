"""What comes out of a plugin: attributed to it, told once in a run, and kept from hurting more than that run."""

from __future__ import annotations

from types import TracebackType
from weakref import WeakKeyDictionary

from .._entry_points import Plugin
from .._outside import from_outside
from .._plugins import tell
from ..context import RunRecord, current, describe
from ..errors import FlowletError, PluginError, note
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
    if from_outside(exc) or (is_cancellation(exc) and not isinstance(exc, KeyboardInterrupt | GeneratorExit)):
        return exc
    if isinstance(exc, Exception) and not isinstance(exc, StopIteration | StopAsyncIteration):
        told: BaseException = exc
    else:
        told = PluginError(f"{plugin} raised {describe(exc)}")
    if told.__dict__.setdefault(_MARK, plugin) == plugin:  # not that of a plugin inside this one
        note(told, f"raised by the plugin {plugin}")
        if not isinstance(told, FlowletError) or isinstance(told, PluginError):
            _tell_once(plugin, exc)
    return told


class Told:
    """The plugins whose failure was told, by run."""

    def __init__(self) -> None:
        self.by_run: WeakKeyDictionary[RunRecord, set[Plugin]] = WeakKeyDictionary()


def _tell_once(plugin: Plugin, exc: BaseException) -> None:
    frame = current.get()
    run = None if frame is None else frame.run
    if run is not None:
        told = process.of(Told).by_run.setdefault(run, set())
        if plugin in told:
            return
        told.add(plugin)
    tell(plugin, describe(exc))
