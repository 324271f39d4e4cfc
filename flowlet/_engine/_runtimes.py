"""Background event loops: one for each backend, in a daemon thread, started when first needed.

A loop that is blocked is retired: later runs, and those that wait for it, get a fresh one. The old
one ends when it listens again and its own runs have ended.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from ..context import RunRecord
from ..errors import FlowletError
from ..events import LoopRetired
from ..settings import process
from ._bridge import frames_below
from ._loops import Port, Waiter, require, serve
from ._threads import started
from ._watch import Watch

SAMPLE = 0.15
"""Seconds between two looks at a loop that owes an answer; the second look without one retires it."""

Begin = Callable[[Port], object]


class _Runtime:
    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.port: Port | None = None
        self.owed: set[_Owed] = set()
        self.watched = False
        self._waiter: Waiter | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> Port:
        self.thread = started(self._run, f"flowlet {self.backend} loop")
        self._ready.wait()
        if self._error is not None:
            raise self._error
        assert self.port is not None
        return self.port

    def _run(self) -> None:
        try:
            serve(self.backend, self._opened, self._closing)
        except OSError as exc:
            self._error = FlowletError(f"the system refuses another event loop: {exc}")
            self._error.__cause__ = exc
        except BaseException as exc:  # noqa: BLE001 -- handed on to whoever starts it
            self._error = exc
        finally:
            if self.port is not None:
                self.port.closed = True
            self._ready.set()

    def _closing(self, _: Port, waiter: Waiter) -> None:
        self._waiter = waiter

    def _opened(self, port: Port) -> None:
        self.port = port
        self._ready.set()

    def stop(self) -> None:
        """End the loop when its tasks have ended."""
        port, waiter = self.port, self._waiter
        if port is not None and waiter is not None:
            port.retired = True
            port.call(partial(port.when_idle, waiter.wake))


class _Owed:
    """Something that is to begin on a loop."""

    __slots__ = ("begin", "blocked", "runtime")

    def __init__(self, runtime: _Runtime, begin: Begin, blocked: Callable[[], object] | None) -> None:
        self.runtime = runtime
        self.begin = begin
        self.blocked = blocked

    def enter(self) -> None:
        """Begin, in the loop, unless another one was asked meanwhile."""
        port = self.runtime.port
        if port is not None and self.taken():
            self.begin(port)

    def taken(self) -> bool:
        """Whether nobody else has begun it; only one hears yes."""
        try:
            self.runtime.owed.remove(self)
        except KeyError:
            return False
        return True


class Runtimes:
    """The background loops of this process, by backend."""

    def __init__(self) -> None:
        self._by_backend: dict[str, _Runtime] = {}
        self._lock = threading.Lock()  # not the process's: the new loop's thread needs that one

    def port(self, backend: str) -> Port:
        """The way into the background loop of *backend*.

        Raises:
            ConfigError: the backend is not installed.
            FlowletError: the system refuses a thread or an event loop.
        """
        runtime = self._by_backend.get(backend)
        if runtime is None or runtime.port is None or runtime.port.closed:
            require(backend)
            with self._lock:
                runtime = self._by_backend.get(backend)
                if runtime is None or runtime.port is None or runtime.port.closed:
                    runtime = _Runtime(backend)
                    runtime.start()
                    self._by_backend[backend] = runtime
        assert runtime.port is not None
        return runtime.port

    def _of(self, port: Port) -> _Runtime | None:
        return next((runtime for runtime in list(self._by_backend.values()) if runtime.port is port), None)

    def send(self, port: Port, begin: Begin, blocked: Callable[[], object] | None = None) -> bool:
        """Have ``begin(port)`` called in the loop of *port*; False when that has ended.

        When it is a background loop that turns out to be blocked, *blocked* is called instead, or,
        without one, *begin* in a fresh loop.
        """
        runtime = self._of(port)
        if runtime is None:
            return port.call(partial(begin, port))
        owed = _Owed(runtime, begin, blocked)
        self._look_after(runtime)
        runtime.owed.add(owed)
        if port.call(owed.enter):
            return True
        return not owed.taken()

    def _look_after(self, runtime: _Runtime) -> None:
        port = runtime.port
        if not runtime.watched and port is not None:
            runtime.watched = True
            process.of(Watch).after(SAMPLE, partial(self._look, runtime, port, port.beats, False))

    def _look(self, runtime: _Runtime, port: Port, beats: int, silent: bool) -> None:
        owing = bool(runtime.owed) and not port.closed
        if owing and silent and port.beats == beats:
            run, step = _blocking(runtime)
            self.retire(port, run, step)
        elif owing:
            again = partial(self._look, runtime, port, port.beats, port.beats == beats)
            process.of(Watch).after(SAMPLE, again)
        else:
            runtime.watched = False
            if runtime.owed and not port.closed:  # one came in this moment
                self._look_after(runtime)

    def retire(self, port: Port, run: RunRecord | None, step: str | None) -> None:
        """Give later runs a fresh loop in place of *port*'s, which *run* keeps from ending, and tell it."""
        with self._lock:
            runtime = self._of(port)
            if runtime is None:
                return
            del self._by_backend[runtime.backend]
        runtime.stop()
        process.notice(LoopRetired(None if run is None else run.info, time.time(), runtime.backend, step))
        for owed in list(runtime.owed):
            if not owed.taken():
                continue
            if owed.blocked is None:
                self.send(self.port(runtime.backend), owed.begin)
            else:
                owed.blocked()

    def close(self) -> list[threading.Thread]:
        """End all loops when their tasks have ended; answer their threads."""
        with self._lock:
            runtimes = list(self._by_backend.values())
            self._by_backend.clear()
        for runtime in runtimes:
            runtime.stop()
        return [runtime.thread for runtime in runtimes if runtime.thread is not None]


def _blocking(runtime: _Runtime) -> tuple[RunRecord | None, str | None]:
    """Find the run and the step whose code the loop's thread is in."""
    thread = runtime.thread
    frame = None if thread is None else sys._current_frames().get(thread.ident or 0)  # pyright: ignore[reportPrivateUsage] -- documented, for debuggers
    run: RunRecord | None = None
    for values in frames_below(frame, __package__):
        record, run = values.get("record", run), values.get("run", run)
        if record is not None:
            return record.run or run, record.name
        if run is not None:
            break
    return run, None


def port_of(run: RunRecord) -> Port:
    """The run's loop; a run in a plain thread gets the background loop of its backend."""
    port: Port | None = run.port
    if port is None or (port.retired and run.limit is None):
        port = run.port = process.of(Runtimes).port(run.backend)
    return port
