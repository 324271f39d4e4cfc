"""The event loops: wake-ups from other threads, and tasks of the engine's own.

The only file that names asyncio and trio.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar, cast

import anyio
import sniffio

from .._forks import at_fork
from .._scope import call_all
from ..errors import ConfigError, RunStopped
from ..settings import process

if TYPE_CHECKING:
    import asyncio

    import trio

T = TypeVar("T")

_modules = sys.modules  # neither backend is imported before somebody runs it

_left: object = None
"""The loop that a fork has left in the parent."""

library = sniffio.current_async_library_cvar
"""Which async library runs here, as anyio finds it."""


def _found(module: str, name: str) -> Any:
    """What *module* calls *name*; None before it is imported, and while another thread imports it."""
    return getattr(_modules.get(module), name, None)


def running_loop() -> object | None:
    """The event loop that runs in this thread: asyncio's, trio's token, or None.

    Each step asks, so that a module which another thread is importing is an error here, not a look before.
    """
    if (events := _modules.get("asyncio.events")) is not None:
        try:
            loop: object = events._get_running_loop()  # get_running_loop() raises where none runs
        except AttributeError:
            loop = None
        if loop is not None:
            return loop
    if (trio := _modules.get("trio")) is not None:
        try:
            if trio.lowlevel.in_trio_run():
                token: object = trio.lowlevel.current_trio_token()
                return None if token is _left else token
        except AttributeError:
            return None
    return None


def _leave() -> None:
    """Remember in a forked child what ran in its one thread: asyncio forgets that by itself, trio doesn't."""
    global _left
    _left = running_loop()


at_fork(after_in_child=_leave)


class Waiter(Protocol):
    """One task's wait for one wake-up from any thread."""

    def wake(self) -> None:
        """End the wait; again, or too late, is harmless."""
        ...

    async def wait(self) -> None:
        """Wait. After a cancelled wait one may wait again."""
        ...


class Port:
    """The way into one event loop from other threads; all wake-ups of a moment share one callback.

    *library* is what runs there. A context that comes from elsewhere says otherwise, so whoever takes
    one over sets the variable ``library`` to this, or to None in a plain thread.
    """

    library: str
    limit: Callable[[], Any]
    """Makes a block that can be cancelled, with ``cancel()``."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._scheduled = False
        self.greenlets: list[Any] = []
        self.closed = False
        self.retired = False
        self.beats = 0
        """Grows while the loop listens."""
        self._idle: Callable[[], object] | None = None
        self._active = 0

    def call(self, fn: Callable[[], object]) -> bool:
        """Call *fn* in the loop soon; False when the loop is gone."""
        self._calls.append(fn)
        if not self._scheduled:
            try:
                self._scheduled = True
                self._soon(self._drain)
            except RuntimeError:  # the loop is closed, on either backend
                self.closed = True
                return False
            except BaseException:  # Ctrl-C, while other threads already count on this wake-up
                self._scheduled = False
                with suppress(RuntimeError):
                    self._soon(self._drain)
                raise
        return not self.closed

    def _soon(self, fn: Callable[[], None]) -> None:
        """Call *fn* in the loop.

        Raises:
            RuntimeError: the loop is gone.
        """
        raise NotImplementedError

    def _drain(self) -> None:
        self._scheduled = False
        call_all(self._due())

    def _due(self) -> Iterator[Callable[[], object]]:
        while self._calls:
            self.beats += 1
            yield self._calls.popleft()

    def waiter(self) -> Waiter:
        """Make a waiter for the current task."""
        raise NotImplementedError

    async def turn(self) -> None:
        """Let the loop go round once, unless the task is cancelled."""
        raise NotImplementedError

    def spawn(self, fn: Callable[..., Awaitable[None]], args: tuple[Any, ...], context: Context) -> None:
        """Start a task of the engine's own; *fn* must not raise. Only in the loop."""
        raise NotImplementedError

    def when_idle(self, fn: Callable[[], object]) -> None:
        """Call *fn* once no task of the engine's own is left. Only in the loop."""
        self._idle = fn
        self._check_idle()

    def _check_idle(self) -> None:
        if self._idle is not None and not self._active:
            self._idle()


class _AsyncioWaiter:
    __slots__ = ("_fired", "_future", "_port")

    def __init__(self, port: _AsyncioPort) -> None:
        self._port = port
        self._fired = False
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self._port.call(self._fire)

    def _fire(self) -> None:
        self._fired = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        if not self._fired:
            self._future = self._port.loop.create_future()
            await self._future


class _AsyncioPort(Port):
    library = "asyncio"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.limit = anyio.CancelScope
        self._sleep = _found("asyncio", "sleep")
        self._loop = weakref.ref(loop)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return _alive(self._loop)

    def _soon(self, fn: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(fn)

    def waiter(self) -> Waiter:
        return _AsyncioWaiter(self)

    async def turn(self) -> None:
        await self._sleep(0)

    def spawn(self, fn: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        task = self.loop.create_task(fn(*args), context=context)
        self._active += 1
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.beats += 1
        self._active -= 1
        self._tasks.discard(task)
        self._check_idle()


class _TrioWaiter:
    __slots__ = ("_fired", "_port", "_task")

    def __init__(self, port: _TrioPort) -> None:
        self._port = port
        self._fired = False
        self._task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        self._port.call(self._fire)

    def _fire(self) -> None:
        self._fired = True
        task, self._task = self._task, None
        if task is not None:
            self._port.lowlevel.reschedule(task)

    def _abort(self, _: object) -> Any:
        self._task = None
        return self._port.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> None:
        if not self._fired:
            self._task = self._port.lowlevel.current_task()
            await self._port.lowlevel.wait_task_rescheduled(self._abort)


class _TrioPort(Port):
    library = "trio"

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        import trio

        super().__init__()
        self._token = weakref.ref(token)
        self.lowlevel = trio.lowlevel
        self.limit = trio.CancelScope  # anyio's is one around it

    def _soon(self, fn: Callable[[], None]) -> None:
        _alive(self._token).run_sync_soon(fn)

    def waiter(self) -> Waiter:
        return _TrioWaiter(self)

    async def turn(self) -> None:
        await self.lowlevel.checkpoint()

    def spawn(self, fn: Callable[..., Awaitable[None]], args: tuple[Any, ...], context: Context) -> None:
        self.lowlevel.spawn_system_task(self._counted, fn, args, context=context)
        self._active += 1

    async def _counted(self, fn: Callable[..., Awaitable[None]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        finally:
            self.beats += 1
            self._active -= 1
            self._check_idle()


def _alive(ref: weakref.ref[T]) -> T:
    found = ref()
    if found is None:
        raise RuntimeError("the event loop is gone")
    return found


class Ports:
    """The ports of the running loops, by loop, not by thread; a port does not keep its loop alive."""

    def __init__(self) -> None:
        self._by_loop: weakref.WeakKeyDictionary[object, Port] = weakref.WeakKeyDictionary()

    def of(self, loop: object) -> Port:
        """The port of *loop*, made when first asked for."""
        found = self._by_loop.get(loop)
        if found is None:
            made: Port = (
                _TrioPort(loop) if _is_trio(loop) else _AsyncioPort(cast("asyncio.AbstractEventLoop", loop))
            )
            with process.lock:
                found = self._by_loop.setdefault(loop, made)
        return found


def current_port() -> Port:
    """The port of the loop that runs in this thread."""
    loop = running_loop()
    if loop is None:
        raise RuntimeError("no event loop runs in this thread")
    return process.of(Ports).of(loop)


def is_cancellation(exc: BaseException) -> bool:
    """Whether *exc* says that somebody wants this to end, rather than that it failed."""
    if isinstance(exc, KeyboardInterrupt | GeneratorExit | RunStopped):
        return True
    if isinstance(exc, BaseExceptionGroup):  # of a nursery
        return all(is_cancellation(one) for one in cast("BaseExceptionGroup[BaseException]", exc).exceptions)
    kinds = _found("asyncio", "CancelledError"), _found("trio", "Cancelled")
    return any(kind is not None and isinstance(exc, kind) for kind in kinds)


def _is_trio(loop: object) -> TypeGuard[trio.lowlevel.TrioToken]:
    lowlevel = _found("trio", "lowlevel")
    return lowlevel is not None and isinstance(loop, lowlevel.TrioToken)


def interruptible(fn: Callable[..., None]) -> Callable[..., None]:
    """Let Ctrl-C reach *fn*, the outermost function of a greenlet, which trio takes for its own code."""
    lowlevel = _found("trio", "lowlevel")
    return fn if lowlevel is None else lowlevel.disable_ki_protection(fn)


def task_identity() -> object:
    """What tells the current task from all others, also from later ones; None outside a loop."""
    loop = running_loop()
    if loop is None:
        return None
    if _is_trio(loop):
        return weakref.ref(_modules["trio"].lowlevel.current_task())
    task = _modules["asyncio"].current_task(loop)
    return None if task is None else weakref.ref(task)


def serve(backend: str, ready: Callable[[Port], object], stop: Callable[[Port, Waiter], object]) -> None:
    """Run an event loop in this thread until the waiter given to *stop* is woken.

    Raises:
        ConfigError: trio is asked for and not installed.
    """
    require(backend)

    async def main() -> None:
        port = current_port()
        if isinstance(port, _AsyncioPort):
            from ._executor import LoopExecutor

            port.loop.set_default_executor(LoopExecutor())
        waiter = port.waiter()
        stop(port, waiter)
        ready(port)
        await waiter.wait()

    anyio.run(main, backend=backend)


def require(backend: str) -> None:
    """Check that *backend* can be used.

    Raises:
        ConfigError: trio is asked for and not installed.
    """
    if backend == "trio":
        try:
            import trio as _  # noqa: F401 -- waits for a thread that is importing it
        except ImportError:
            raise ConfigError('backend "trio" needs trio: pip install "flowlet[trio]"') from None


def in_ipython() -> bool:
    """Whether this is an IPython session, whose own loop may be blocked by a cell."""
    shell = _found("IPython", "get_ipython")
    return shell is not None and shell() is not None
