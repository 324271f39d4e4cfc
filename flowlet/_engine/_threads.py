"""Worker threads of our own: daemons, reused last-in first-out, bounded while they can run.

A thread that waits through flowlet lends its place to others, so nested sync workflows of any width
can't starve. A thread that can't be stopped is abandoned: it keeps nothing alive, and gives its
place back at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from math import inf
from types import CoroutineType
from typing import Any

from .._forks import this_process
from ..errors import FlowletError
from ..settings import process
from ._bells import Bell, bell

IDLE_SECONDS = 10.0

LOOK_UP = 1.0
"""Seconds that the main thread waits at a stretch: a signal that came right before would be seen only after the wait."""


def started(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        FlowletError: the system refuses one.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:
        message = (
            f"the system refuses another thread ({exc}); this process has {threading.active_count()}: "
            "lower max_threads, or max_concurrency of the fan-out, or raise the system's limit"
        )
        raise FlowletError(message) from exc
    return thread


class Job:
    """One call for a worker thread: *call* runs in *context*, then *done* is called there.

    ``busy`` counts how deep the thread is inside flowlet (a model call, a wait), from where it comes
    back by itself; the worker thread alone changes it.
    """

    __slots__ = (
        "abandoned", "args", "busy", "call", "context", "done", "error", "finished", "lent", "result"
    )  # fmt: skip

    def __init__(
        self, context: Context, call: Callable[..., Any], args: tuple[Any, ...], done: Callable[[], object]
    ) -> None:
        self.context = context
        self.call = call
        self.args = args
        self.done = done
        self.busy = 0
        self.finished = False
        self.lent = False
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Make the call and keep its outcome as a value."""
        try:
            self.result = self.context.run(self.call, *self.args)
        except BaseException as exc:  # noqa: BLE001 -- handed on to whoever waits
            self.error = exc
        self.finished = True
        if self.abandoned:
            self.discard()

    def discard(self) -> None:
        """Close a coroutine that the call gave, since nobody will await it."""
        if type(self.result) is CoroutineType:
            self.result.close()  # pyright: ignore[reportUnknownMemberType]

    def outcome(self) -> Any:
        """Give the result, or raise what the call raised."""
        error = self.error
        if error is None:
            return self.result
        try:
            raise error
        finally:
            self.error = error = None  # no cycle from the traceback back to here


def _nothing() -> None:
    return


class _Worker:
    __slots__ = ("bell", "job")

    def __init__(self, job: Job) -> None:
        self.job: Job | None = job
        self.bell = bell()


class _Here(threading.local):
    job: Job | None = None
    bell: Bell | None = None
    """Wakes this thread; None also while it waits, when a signal handler may wait, too."""


_here = _Here()


class Threads:
    """The worker threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._waiting: deque[Job] = deque()
        self._runnable = 0
        self.abandoned = 0

    @property
    def limit(self) -> int:
        """How many threads may be at work, as the settings say now."""
        return process.settings.max_threads

    def submit(self, job: Job) -> None:
        """Run *job* on a worker thread, as soon as a place is free.

        Raises:
            FlowletError: the system refuses a new thread.
        """
        with self._lock:
            if self._runnable >= self.limit:
                self._waiting.append(job)
                return
            self._runnable += 1
            worker = self._idle.pop() if self._idle else None
        self._assign(worker, job)

    def _assign(self, worker: _Worker | None, job: Job) -> None:
        if worker is not None:
            worker.job = job
            worker.bell.ring()
            return
        worker = _Worker(job)
        try:
            started(partial(self._work, worker), "flowlet worker")
        except FlowletError:  # not after a Ctrl-C, when the thread goes on all the same
            with self._lock:
                self._runnable -= 1
            raise

    def _work(self, worker: _Worker) -> None:
        _here.bell = worker.bell
        while True:
            job, worker.job = worker.job, None
            while job is not None:
                _here.job = job
                job.run()
                _here.job = None
                if worker.bell.process is not this_process():  # a fork brought it here, where nobody knows it
                    return
                done, job.done = job.done, _nothing
                job = self._next(worker, job)
                done()
                del done  # and the job forgot it, so that they don't keep each other
            while worker.job is None:
                if not worker.bell.wait(IDLE_SECONDS) and self._retire(worker):
                    return

    def _next(self, worker: _Worker, job: Job) -> Job | None:
        with self._lock:
            if job.abandoned:
                self.abandoned -= 1
            elif self._waiting and self._runnable <= self.limit:
                return self._waiting.popleft()
            else:
                self._runnable -= 1
            self._idle.append(worker)
            return None

    def _retire(self, worker: _Worker) -> bool:
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                return True
        return False  # it is given a job in the last moment

    def _freed(self) -> tuple[_Worker | None, Job] | None:
        """Give a place back, and tell who gets it; the lock is held."""
        self._runnable -= 1
        if not self._waiting or self._runnable >= self.limit:
            return None
        self._runnable += 1
        return self._idle.pop() if self._idle else None, self._waiting.popleft()

    def _begin(self, following: tuple[_Worker | None, Job] | None) -> None:
        while following is not None:
            worker, job = following
            try:
                self._assign(worker, job)
            except FlowletError as exc:
                following = self._refused(job, exc)
            else:
                return

    def _refused(self, job: Job, exc: FlowletError) -> tuple[_Worker | None, Job] | None:
        """Leave *job* to a thread at work, or, when there is none, let its caller hear *exc*; tell who is next."""
        with self._lock:
            if self._runnable:
                self._waiting.appendleft(job)
                return None
            following = None
            if self._waiting:
                self._runnable += 1
                following = self._idle.pop() if self._idle else None, self._waiting.popleft()
        job.error = exc
        job.finished = True
        job.done()
        return following

    def abandon(self, job: Job) -> bool:
        """Give the place of *job* back and stop caring for it; False when it has just finished."""
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)
                return False
            if job.finished or job.abandoned:
                return False
            job.abandoned = True
            self.abandoned += 1
            following = None if job.lent else self._freed()
        self._begin(following)
        return True

    def lend(self) -> Job | None:
        """Lend the place of this worker thread while it waits; pass the answer to :meth:`reclaim`."""
        job = _here.job
        if job is not None:
            job.busy += 1
            with self._lock:
                job.lent = True
                following = None if job.abandoned else self._freed()
            self._begin(following)
        return job

    def reclaim(self, job: Job | None) -> None:
        """Take the place back. It doesn't wait for one, so it can't deadlock."""
        if job is not None:
            job.busy -= 1
            with self._lock:
                job.lent = False
                if not job.abandoned:
                    self._runnable += 1


@contextmanager
def here_busy() -> Generator[None]:
    """Mark this worker thread as inside flowlet, without lending its place."""
    job = _here.job
    if job is None:
        yield
        return
    job.busy += 1
    try:
        yield
    finally:
        job.busy -= 1


class Latch:
    """A wake-up for the one thread that waits for it, now or later."""

    __slots__ = ("_bell", "_is_set")

    def __init__(self) -> None:
        self._bell: Bell | None = None
        self._is_set = False

    def set(self) -> None:
        """Wake the thread; again is harmless."""
        self._is_set = True
        if self._bell is not None:
            self._bell.ring()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most *timeout* seconds until it is set, and unset it; whether it was set. Signals get through."""
        own, _here.bell = _here.bell, None
        if own is None or own.process is not this_process():
            own = bell()
        try:
            return self._wait(own, inf if timeout is None else time.monotonic() + timeout)
        finally:
            _here.bell = own

    def _wait(self, own: Bell, until: float) -> bool:
        self._bell = own
        longest = LOOK_UP if threading.current_thread() is threading.main_thread() else inf
        while not self._is_set:
            left = min(until - time.monotonic(), longest)
            if left <= 0:
                return False
            own.wait(None if left == inf else left)
        self._is_set = False
        return True
