"""What a background loop uses for its own blocking calls (DNS): our daemons, so that none holds the exit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any

from ..settings import process
from ._threads import Job, Threads


class LoopExecutor(ThreadPoolExecutor):
    """An executor of asyncio's kind over the worker threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run *fn* on a worker thread."""
        future: Future[Any] = Future()
        job = Job(Context(), lambda: fn(*args, **kwargs), (), lambda: _settle(job, future))
        process.of(Threads).submit(job)
        return future


def _settle(job: Job, future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if job.error is not None:
        future.set_exception(job.error)
    else:
        future.set_result(job.result)
