"""From a function as it was written, and options, to the closure that users call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from attrs import evolve

from ._engine._calls import async_workflow, sync_workflow
from ._engine._steps import async_step, sync_step
from ._suggest import nearest
from .errors import DefinitionError
from .observers import diagnose, follow
from .settings import process
from .specs import SPEC_ATTRIBUTE, RunOptions, Spec, StepOptions, checked_options, is_async_def, spec_of

if TYPE_CHECKING:
    from .protocols import Journal

F = TypeVar("F", bound=Callable[..., Any])


def _open_journal(path: str | None) -> Journal:
    from .journals import MemoryJournal, SQLiteJournal  # most programs need neither

    return MemoryJournal() if path is None else SQLiteJournal(path)


process.open_journal = _open_journal  # the engine and the settings know no store, and no observer
process.follow_log = follow
process.diagnostics = process.notices = (diagnose,)


def decorated(kind: Literal["step", "workflow"], fn: F, options: Mapping[str, Any]) -> F:
    """Make the step or workflow of a function as it was written."""
    check_function(kind, fn)
    spec = Spec(kind, fn, fn.__name__, is_async_def(fn))
    return cast("F", build(with_changes(spec, options, _ALLOWED[kind])))


def check_function(kind: str, fn: object) -> None:
    """Refuse what can't be a step or a workflow.

    Raises:
        DefinitionError: with the line that works.
    """
    if isinstance(fn, staticmethod | classmethod):
        word = type(cast("object", fn)).__name__
        raise DefinitionError(f"@{kind} goes below @{word}:\n    @{word}\n    @{kind}\n    def ...")
    if not inspect.isfunction(fn):
        raise DefinitionError(
            f"@{kind} takes a function, not {type(fn).__name__} {fn!r}; "
            f"with options, write @{kind}(timeout=30)"
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(
            f"@{kind} {fn.__name__} is a generator function; return a list instead, "
            "since a result has to be whole before it is passed on"
        )
    if spec_of(fn) is not None:
        raise DefinitionError(f"@{kind} {fn.__name__}: it is a step or workflow already; decorate it once")


_ALLOWED = {
    "step": ("name", "attempts", "retry_on", "timeout", "max_concurrency", "check", "cache"),
    "workflow": ("name", "timeout", "tags", "backend", "model", "middleware", "budget", "journal"),
}
_OF_A_RUN = (
    "run_id", "correlation_id", "tags", "backend", "model", "middleware", "budget", "journal", "changed_code",
)  # fmt: skip


def with_changes(spec: Spec, changes: Mapping[str, Any], allowed: tuple[str, ...]) -> Spec:
    """Change the options of a recipe, of those that are *allowed*.

    Raises:
        DefinitionError: naming every option that does not exist, or can't have its value.
    """
    where = f"{spec.kind} {spec.name}"
    unknown = [_no_such(name, allowed) for name in changes if name not in allowed]
    if unknown:
        raise DefinitionError(f"{where}: " + "; ".join(unknown))
    values = {name: _as_tuple(name, value) for name, value in changes.items()}
    checked_options(where, values)
    name = values.pop("name", None) or spec.name
    if spec.kind == "workflow":
        return evolve(spec, name=name, run=evolve(spec.run, **values))
    of_run = {n: v for n, v in values.items() if n in _OF_A_RUN}
    of_step = {n: v for n, v in values.items() if n not in _OF_A_RUN}
    run, own = evolve(spec.run, **of_run), evolve(spec.step, **of_step)
    return evolve(spec, name=name, run=run, step=own, plain=run == RunOptions() and own == StepOptions())


def _no_such(name: str, allowed: Iterable[str]) -> str:
    hint = nearest(name, allowed)
    return f"no option {name!r}" + (
        f"; did you mean {hint!r}?" if hint else f"; there are {', '.join(allowed)}"
    )


def _as_tuple(name: str, value: Any) -> Any:
    if name not in ("retry_on", "tags", "middleware"):
        return value
    if isinstance(value, type | str) or callable(value):
        return (value,)
    return tuple(cast("Iterable[object]", value)) if isinstance(value, Iterable) else value


def build(spec: Spec) -> Any:
    """Make the function of a recipe: a plain closure with the recipe on it."""
    makers: dict[tuple[str, bool], Callable[[Spec, Callable[..., Any]], Any]] = {
        ("step", False): sync_step,
        ("step", True): async_step,
        ("workflow", False): sync_workflow,
        ("workflow", True): async_workflow,
    }
    call = functools.wraps(spec.fn)(makers[spec.kind, spec.is_async](spec, spec.fn))
    setattr(call, SPEC_ATTRIBUTE, spec)
    return cast("Any", call)


def changed(fn: F, changes: Mapping[str, Any]) -> F:
    """Make the same function with other options; a plain function becomes a workflow.

    Raises:
        DefinitionError: an option that does not exist, or a value that it can't have.
    """
    spec = spec_of(fn)
    if isinstance(fn, functools.partial):
        name = getattr(fn.func, "__name__", "talk")
        raise DefinitionError(
            f"a partial has no options; give them to its function: partial(with_options({name}, ...), ...)"
        )
    if spec is None:
        spec = spec_of(decorated("workflow", fn, {}))
        assert spec is not None
    allowed = _ALLOWED[spec.kind] + tuple(n for n in _OF_A_RUN if n not in _ALLOWED[spec.kind])
    made = build(with_changes(spec, changes, allowed))
    return cast("F", MethodType(made, fn.__self__) if isinstance(fn, MethodType) else made)
