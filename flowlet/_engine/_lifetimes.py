"""Step plugins that are opened before their first use and closed once: at the end of their run, or of the process.

Who needs a plugin first opens it; others wait. The body of a run closes what was opened in it, on its own
side; when it is stuck, a worker thread does so soon after the run's end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any, Literal

import anyio
from attrs import frozen

from .._entry_points import Plugin
from .._outside import from_outside
from .._plugins import provider_known, tell
from .._scope import Scope, guard
from ..context import OUTSIDE, Frame, RunRecord, describe, here
from ..errors import BridgeError, FlowletError, PluginError, RunStopped
from ..events import RunInfo
from ..settings import process
from ..specs import is_async
from ._crossing import SETTLE, grace_of, in_other_thread, in_thread, on_loop, park, port_at
from ._exit import Background
from ._failures import awaited
from ._loops import Port, current_port, running_loop
from ._runtimes import Runtimes
from ._threads import Job, Latch, Threads
from ._watch import Watch


@frozen(eq=False)
class Recipe:
    """How to make a step plugin that is to be opened, and how long it stays so."""

    plugin: Plugin
    make: Callable[[], Any]
    lifetime: Literal["run", "process"]
    opens_async: bool


class _Held:
    """One plugin in one owner: not open yet, being opened, open, or closed."""

    def __init__(self, recipe: Recipe, owner: Owner) -> None:
        self.recipe = recipe
        self.owner = owner
        self.state: Literal["new", "opening", "open", "closed"] = "new"
        self.value: Any = None
        self.port: Port | None = None
        self._waiting: list[Callable[[], object]] = []

    def ready(self, wake: Callable[[], object]) -> bool | None:
        """Whether it is open; False says that the caller is to open it, None that *wake* comes when somebody did.

        Raises:
            RunStopped: its owner has ended.
        """
        with guard:
            if self.state == "open" and self.port is not None and (self.port.closed or self.port.retired):
                self.state = "new"  # what it held was of a loop that is gone
            if self.state == "closed" or self.owner.over:
                raise RunStopped(self.owner.run_id, "over")
            if self.state == "open":
                return True
            if self.state == "new":
                self.state = "opening"
                return False
            self._waiting.append(wake)
            return None

    @contextmanager
    def opening(self) -> Generator[None]:
        """Open it in this block; what fails is not open, and the next one tries again."""
        try:
            yield
        except BaseException:
            self._settle("new")
            raise
        self._settle("open")

    def late(self) -> list[_Held]:
        """It alone, for the caller to close, when its owner ended while it was being opened; else nothing."""
        return [self] if self.owner.over and self.closes() else []

    def closes(self) -> bool:
        """Whether it was open, and is now the caller's to close."""
        with guard:
            was_open = self.state == "open"
            if was_open:
                self.state = "closed"
            return was_open

    def _settle(self, state: Literal["new", "open"]) -> None:
        with guard:
            self.state = state
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()


class Owner:
    """The plugins that are held by one run, by the process, or by one call outside of any run."""

    def __init__(self, info: RunInfo | None = None) -> None:
        self.info = info
        self.run_id = OUTSIDE if info is None else info.id
        self.over = False
        self._held: dict[Recipe, _Held] = {}

    def holding(self, recipe: Recipe) -> _Held:
        """What stands for *recipe* here."""
        with guard:
            return self._held.setdefault(recipe, _Held(recipe, self))

    def take(self) -> list[_Held]:
        """End this; answer what is open, the last one first, for the caller alone to close."""
        process.of(Lifetimes).runs.discard(self)
        with guard:
            self.over = True
            held, self._held = self._held, {}  # a run is remembered longer than its plugins
        return [one for one in reversed(held.values()) if one.closes()]

    def ended(self) -> None:
        """Have it closed soon, unless the body of the run has done so: it may be stuck."""
        if not self.over:
            process.of(Watch).after(SETTLE, self._close_late)

    def _close_late(self) -> None:
        held = self.take()
        if held:
            process.of(Threads).submit(Job(Context(), close_all, (held, SETTLE), bool))

    def close(self, scope: Scope) -> BaseException | None:
        """Close what is open, in this thread's time; answer a Ctrl-C that came meanwhile."""
        try:
            close_all(self.take(), grace_of(scope) + SETTLE)
        except BaseException as exc:  # noqa: BLE001 -- handed on
            return exc
        return None

    async def aclose(self, scope: Scope) -> BaseException | None:
        """Close what is open, in this task's time; answer a cancellation that came meanwhile."""
        try:
            await _aclose_all(self.take(), grace_of(scope) + SETTLE)
        except BaseException as exc:  # noqa: BLE001 -- handed on
            return exc
        return None


class Lifetimes:
    """Who holds plugins in this process: the process itself, and runs that go on."""

    def __init__(self) -> None:
        self.process = Owner()
        self.runs: set[Owner] = set()
        self.providers: dict[int, Recipe] = {}
        """By the id of the provider, which its recipe keeps."""
        process.of(Background).closers.append(self.close)

    def close(self) -> None:
        """At the end of the process, close what is still open."""
        for owner in (*self.runs, self.process):
            close_all(owner.take(), process.settings.grace + SETTLE)

    def of_provider(self, name: str, provider: Any) -> Recipe:
        """The recipe of *provider*, which lives as long as the process."""
        recipe = self.providers.get(id(provider))
        if recipe is None:
            made = Recipe(provider_known(name), lambda: provider, "process", is_async(provider.open))
            recipe = self.providers.setdefault(id(provider), made)
        return recipe

    def of(self, run: RunRecord) -> Owner:
        """The owner that *run* is."""
        with guard:
            known: Owner | None = run.plugins
            if known is not None:
                return known
            owner = run.plugins = Owner(run.info)
            self.runs.add(owner)
        run.on_end(owner.ended)
        return owner


# --- use -----------------------------------------------------------------------------------------


def use(recipe: Recipe, /, *args: Any, **kwargs: Any) -> Any:
    """Call the plugin, a sync one, which is opened first where it is not."""
    frame = _here()
    owner, passing = _owner(recipe, frame)
    try:
        return _opened(owner.holding(recipe), frame)(*args, **kwargs)
    finally:
        if passing and (came := owner.close(frame.scope)) is not None:
            raise came


async def ause(recipe: Recipe, /, *args: Any, **kwargs: Any) -> Any:
    """Call the plugin, an async one, which is opened first where it is not."""
    frame = _here()
    owner, passing = _owner(recipe, frame)
    try:
        held = owner.holding(recipe)
        value = await _aopened(held, frame)
        return await _at(held.port, frame, value, args, kwargs)
    finally:
        if passing and (came := await owner.aclose(frame.scope)) is not None:
            raise came


def open_provider(name: str, provider: Any) -> None:
    """Open *provider*, which has ``open`` and ``close``, if it is not open in this process."""
    lifetimes = process.of(Lifetimes)
    _opened(lifetimes.process.holding(lifetimes.of_provider(name, provider)), here())


async def aopen_provider(name: str, provider: Any) -> None:
    """Open *provider*, which has ``open`` and ``close``, if it is not open in this process."""
    lifetimes = process.of(Lifetimes)
    await _aopened(lifetimes.process.holding(lifetimes.of_provider(name, provider)), here())


def _here() -> Frame:
    """The frame of this place.

    Raises:
        RunStopped: its run is over.
    """
    frame = here()
    if not frame.outside:
        frame.scope.check()
    return frame


def _outside() -> Frame:
    """A frame of no run, for what goes on when the run is over."""
    return Frame(None, Scope(OUTSIDE))


def _owner(recipe: Recipe, frame: Frame) -> tuple[Owner, bool]:
    """Who holds the plugin at *frame*, and whether for this call only."""
    if recipe.lifetime == "process":
        return process.of(Lifetimes).process, False
    if frame.run is None:
        return Owner(), True
    return process.of(Lifetimes).of(frame.run), False


def _opened(held: _Held, frame: Frame) -> Any:
    latch = Latch()
    while (ready := held.ready(latch.set)) is None:
        park(latch, frame.scope)
        frame.scope.check()
        latch = Latch()
    if not ready:
        _open(held, frame)
        _here()
    return held.value


def _open(held: _Held, frame: Frame, port: Port | None = None) -> None:
    """Open it in this thread, on the loop of *port* where it needs one; close it at once when its owner has ended.

    Raises:
        BridgeError: it needs one, and this thread has one itself.
    """
    with held.opening():
        held.value = value = _made(held)
        if _any_async(value):
            if running_loop() is not None:
                raise BridgeError(
                    f"{held.recipe.plugin} needs an event loop; this call would block the one here"
                )
            port = held.port = port or _home(held, frame)
        if port is not None and is_async(value.open):
            on_loop(frame.below(frame.scope), port, value.open)
        else:
            awaited(value.open(), f"open() of {held.recipe.plugin}")
    close_all(held.late(), SETTLE)


async def _aopened(held: _Held, frame: Frame) -> Any:
    waiter = current_port().waiter()
    while (ready := held.ready(waiter.wake)) is None:
        await waiter.wait()
        waiter = current_port().waiter()
    if not ready:
        await _aopen(held, frame)
        _here()
    return held.value


async def _aopen(held: _Held, frame: Frame) -> None:
    """Open it on its loop, or on a worker thread, which may be left behind and then ends this by itself."""
    port = current_port() if held.recipe.lifetime == "run" else _home(held, frame)
    if not held.recipe.opens_async:
        job = await in_thread(frame.below(frame.scope), _open, (held, frame, port), {})
        job.outcome()
        return
    with held.opening():
        held.port = port
        held.value = value = _made(held)
        await _at(port, frame, value.open, (), {})
    await _aclose_all(held.late(), SETTLE)


def _made(held: _Held) -> Any:
    value: Any = held.recipe.make()
    if not all(callable(getattr(value, name, None)) for name in ("open", "close")):
        raise PluginError(f"{held.recipe.plugin}: expected open() and close(), found {type(value).__name__}")
    return value


def _any_async(value: Any) -> bool:
    return is_async(value.open) or is_async(value.close) or is_async(value)


def _home(held: _Held, frame: Frame) -> Port:
    """The loop that a plugin lives on: the run's, or the background loop for one that outlives the run."""
    if held.recipe.lifetime == "process":
        return process.of(Runtimes).port(process.settings.backend)
    return port_at(frame)


async def _at(
    port: Port | None,
    frame: Frame,
    fn: Callable[..., Awaitable[Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Await *fn* on the loop of *port*, which may be another one."""
    if port is None or port is current_port():
        return await fn(*args, **kwargs)
    there = (frame.below(frame.scope), port, fn, args, kwargs)
    job = await in_thread(frame.below(frame.scope), on_loop, there, {})
    return job.outcome()


# --- the end -------------------------------------------------------------------------------------


def close_all(held: list[_Held], limit: float) -> None:
    """Close each, whatever the others do; what comes from outside meanwhile is raised at the end."""
    came: BaseException | None = None
    for one in held:
        try:
            _close_in_time(one, limit)
        except BaseException as exc:  # noqa: BLE001 -- raised below
            came = exc
    if came is not None:
        raise came


async def _aclose_all(held: list[_Held], limit: float) -> None:
    """Close each while the loop goes on, whatever cancellation comes."""
    if held:
        with anyio.CancelScope(shield=True):
            await in_thread(_outside(), close_all, (held, limit), {})


def _close_in_time(held: _Held, limit: float) -> None:
    try:
        job = in_other_thread(_outside(), _close, (held, limit), {}, limit + SETTLE)
        finished = job.finished
    except FlowletError:  # no thread can be had: the clock has one
        latch = Latch()
        process.of(Watch).soon(partial(_close, held, limit, latch.set))
        finished = latch.wait(limit + SETTLE)
    if not finished:
        _failed(held, f"close() did not end within {limit:g} s")


def _close(held: _Held, limit: float, done: Callable[[], object] = bool) -> None:
    close = held.value.close
    try:
        if is_async(close):
            port = held.port or process.of(Runtimes).port(process.settings.backend)
            on_loop(_outside(), port, _limited, (close, limit))
        else:
            awaited(close(), f"close() of {held.recipe.plugin}")
    except BaseException as exc:
        if from_outside(exc):
            raise
        _failed(held, describe(exc))
    finally:
        done()


async def _limited(close: Callable[[], Awaitable[object]], limit: float) -> None:
    with anyio.fail_after(limit):
        await close()


def _failed(held: _Held, error: str) -> None:
    tell(held.recipe.plugin, error, held.owner.info)
