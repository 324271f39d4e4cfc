"""What is open of plugins, by whom it is held, and how it is closed: once, at the end of its run or of the process.

The body of a run closes what was opened in it, in its own mode; when it is stuck, a worker thread does so soon after
the run's end.
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
from .._raised import describe
from .._scope import Scope, guard
from ..context import OUTSIDE, Frame, RunRecord
from ..errors import FlowletError, RunStopped
from ..events import RunInfo
from ..settings import process
from ..specs import is_async
from ._crossing import SETTLE, grace_of, in_other_thread, in_thread, on_loop
from ._exit import Background
from ._failures import awaited
from ._loops import Port
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


class Held:
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

    def late(self) -> list[Held]:
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
        self._held: dict[Recipe, Held] = {}

    def holding(self, recipe: Recipe) -> Held:
        """What stands for *recipe* here."""
        with guard:
            return self._held.setdefault(recipe, Held(recipe, self))

    def take(self) -> list[Held]:
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
            await aclose_all(self.take(), grace_of(scope) + SETTLE)
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


# --- the end -------------------------------------------------------------------------------------


def _outside() -> Frame:
    """A frame of no run, for what goes on when the run is over."""
    return Frame(None, Scope(OUTSIDE))


def close_all(held: list[Held], limit: float) -> None:
    """Close each, whatever the others do; what comes from outside meanwhile is raised at the end."""
    came: BaseException | None = None
    for one in held:
        try:
            _close_in_time(one, limit)
        except BaseException as exc:  # noqa: BLE001 -- raised below
            came = exc
    if came is not None:
        raise came


async def aclose_all(held: list[Held], limit: float) -> None:
    """Close each while the loop goes on, whatever cancellation comes."""
    if held:
        with anyio.CancelScope(shield=True):
            await in_thread(_outside(), close_all, (held, limit), {})


def _close_in_time(held: Held, limit: float) -> None:
    try:
        job = in_other_thread(_outside(), _close, (held, limit), {}, limit + SETTLE)
        finished = job.finished
    except FlowletError:  # no thread can be had: the clock has one
        latch = Latch()
        process.of(Watch).soon(partial(_close, held, limit, latch.set))
        finished = latch.wait(limit + SETTLE)
    if not finished:
        _failed(held, f"close() did not end within {limit:g} s")


def _close(held: Held, limit: float, done: Callable[[], object] = bool) -> None:
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


def _failed(held: Held, error: str) -> None:
    tell(held.recipe.plugin, error, held.owner.info)
