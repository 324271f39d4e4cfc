"""``@workflow``: a plain function that calls steps, and the functions that run it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from ._engine._calls import run_async, run_sync
from ._engine._handle import Run, newest_here, recent, start_handle
from ._functions import changed, decorated
from ._tracebacks import conceal
from .specs import Backend, Budget, Options, spec_of

__all__ = [
    "Run",
    "arun",
    "is_workflow",
    "last_run",
    "run",
    "runs",
    "start",
    "with_options",
    "workflow",
]

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")


@overload
def workflow(fn: F, /) -> F: ...
@overload
def workflow(
    *,
    name: str | None = None,
    timeout: float | None = None,
    tags: Iterable[str] = (),
    backend: Backend | None = None,
    model: str | None = None,
    middleware: Iterable[Callable[..., Any] | str] = (),
    budget: Budget | None = None,
) -> Callable[[F], F]: ...
def workflow(fn: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Mark a function, sync or async, as a workflow: its body is plain Python that calls steps.

    Called outside a run it is a run: a ``def`` blocks and returns its value, an ``async def`` is
    awaited. Called inside a run it is a child run.

    Args:
        fn: the function. Its arguments are checked against its hints when it is run.
        name: its name in records and errors (default: the function's).
        timeout: seconds that a run may take from the moment it is asked for; None is no limit.
        tags: labels of its runs, inherited by child runs.
        backend: the event loop of its background runs, ``"asyncio"`` or ``"trio"``; awaited in a task, it runs in that
            task's loop.
        model: what ``LLM()`` leaves open, as ``provider:name``.
        middleware: wraps its steps, model calls and runs, inside those of the settings.
        budget: what the model calls of one run may use, child runs included.

    Raises:
        DefinitionError: it is no plain function, or an option can't have its value.
    """
    if fn is not None:
        return decorated("workflow", fn, options)
    return lambda fn: decorated("workflow", fn, options)


def is_workflow(fn: Callable[..., object]) -> bool:
    """Whether *fn* is a workflow."""
    spec = spec_of(fn)
    return spec is not None and spec.kind == "workflow"


def with_options(fn: F, **options: Unpack[Options]) -> F:
    """Make the same function with other options: ``run(with_options(talk, timeout=10), "tea")``.

    Of a workflow, or a plain function: ``timeout``, ``run_id``, ``correlation_id``, ``tags``, ``backend``,
    ``model``, ``middleware``, ``budget``, ``name``. Of a step: what ``@step`` takes, and those of a run for when the
    step is run by itself (``model`` holds for its model calls in any run).

    Raises:
        DefinitionError: an option that does not exist, or a value that it can't have.
    """
    return changed(fn, options)


@overload
def run(fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
@overload
def run(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
def run(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run *fn*, a workflow, step or plain function of either kind, and wait for its result.

    Without a timeout a ``def`` executes in this thread; a coroutine that it gives (``lambda: label("tea")``) is
    awaited. In a run it is the call itself: a step, a child run, or just the function.

    Raises:
        BridgeError: an event loop runs in this thread; write ``await arun(...)``.
        InputError: the arguments don't fit the hints of a workflow.
        WorkflowTimeout: the deadline passed.
        RunCancelled: the run was cancelled. Else whatever *fn* raises.
    """
    try:
        return run_sync(fn, args, kwargs)
    except Exception as exc:
        conceal(exc)
        raise


@overload
async def arun(fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
@overload
async def arun(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
async def arun(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run *fn* in the event loop of the caller, who awaits its result; a ``def`` goes to a worker thread.

    Raises:
        InputError: the arguments don't fit the hints of a workflow.
        WorkflowTimeout: the deadline passed.
        RunCancelled: the run was cancelled. Else whatever *fn* raises.
    """
    try:
        coroutine = run_async(fn, args, kwargs)
        del args, kwargs
        return await coroutine
    except Exception as exc:
        conceal(exc)
        raise


@overload
def start(fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
@overload
def start(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
def start(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Run[Any]:
    """Start a run of *fn* in the background and return its handle at once.

    Inside a run it is a child of that run, which waits for it at its end and cancels it with itself.

    Raises:
        InputError: the arguments don't fit the hints of a workflow.
    """
    return start_handle(fn, args, kwargs)


def runs() -> list[Run[Any]]:
    """The newest runs of this process, sync ones too, the newest first (at most 256)."""
    return recent()


def last_run() -> Run[Any]:
    """The newest run that this thread or task asked for.

    Raises:
        LookupError: it has asked for none, or 256 others were asked for since.
    """
    found = newest_here()
    if found is None:
        raise LookupError("this thread or task has asked for no run yet, or 256 others were asked for since")
    return found
