"""From a plan to the workflow that runs it: each step waits for those that it needs, and independent ones run at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import anyio

from .._data.faults import shown
from .._fence import untrusted
from .._fingerprint import CODE_ATTRIBUTE, FILE_ATTRIBUTE
from .._functions import decorated
from ..concurrency import apmap
from ..errors import InputError
from ..workflows import arun
from ._format import ITEM
from ._plan import Plan, Step

__all__ = ["workflow_of"]

Workflow = Callable[..., Coroutine[Any, Any, Any]]
_REQUIRED = inspect.Parameter.empty


def workflow_of(plan: Plan) -> Workflow:
    """Make the async workflow of *plan*."""
    signature = _signature(plan)
    needs = plan.needs

    async def run_steps(*args: Any, **kwargs: Any) -> Any:
        scope = {name: i.default.of({}) for name, i in plan.inputs.items() if i.default is not None}
        scope |= signature.bind(*args, **kwargs).arguments
        scope |= {name: untrusted(scope[name]) for name, i in plan.inputs.items() if i.untrusted}
        done = {name: anyio.Event() for name in plan.steps}

        async def in_turn(step: Step) -> None:
            for name in needs[step.name]:
                await done[name].wait()
            scope[step.name] = await _result(step, scope)
            done[step.name].set()

        await apmap(in_turn, plan.steps.values(), max_concurrency=len(plan.steps))
        return plan.output.of(scope)

    run_steps.__name__ = run_steps.__qualname__ = plan.name
    run_steps.__doc__ = _doc(plan)
    run_steps.__annotations__ = {**{n: i.hint for n, i in plan.inputs.items()}, "return": plan.returns}
    run_steps.__signature__ = signature  # type: ignore[attr-defined]
    setattr(run_steps, FILE_ATTRIBUTE, plan.file)
    setattr(run_steps, CODE_ATTRIBUTE, plan.code)
    return decorated("workflow", run_steps, plan.options)


def _doc(plan: Plan) -> str | None:
    inputs = [f"    {i.name}: {i.description}" for i in plan.inputs.values() if i.description]
    return "\n".join((plan.description, *(("", "Args:", *inputs) if inputs else ()))) or None


def _signature(plan: Plan) -> inspect.Signature:
    """The inputs in their order, those without a default first, as Python wants it."""
    inputs = sorted(plan.inputs.values(), key=lambda i: i.default is not None)
    return inspect.Signature(
        [
            inspect.Parameter(
                i.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=_REQUIRED if i.default is None else i.default.of({}),
                annotation=i.hint,
            )
            for i in inputs
        ],
        return_annotation=plan.returns,
    )


async def _result(step: Step, scope: Mapping[str, Any]) -> Any:
    """What *step* gives: of one call, of one for each item, or where it is skipped."""
    if not _holds(step, scope):
        return step.otherwise.of(scope)
    if step.items is None:
        return await _called(step, scope)

    async def for_one(item: Any) -> Any:
        return await _called(step, {**scope, ITEM: item})

    return await apmap(for_one, _items(step, step.items.of(scope)), max_concurrency=step.max_concurrency)


async def _called(step: Step, scope: Mapping[str, Any]) -> Any:
    values = {name: argument.value.of(scope) for name, argument in step.call.arguments.items()}
    return await arun(step.call.function, **values)


def _holds(step: Step, scope: Mapping[str, Any]) -> bool:
    try:
        return step.when is None or bool(step.when.of(scope))
    except TypeError as exc:
        raise InputError(f"{step.place}: the condition of step {step.name!r} can't be told: {exc}") from exc


def _items(step: Step, items: Any) -> Iterable[Any]:
    found: Iterable[Any] = items
    if not hasattr(items, "__iter__") or isinstance(items, str | bytes | Mapping):
        told = f"for_each of step {step.name!r} expected a list, found {shown(found)}"
        raise InputError(f"{step.place}: {told}")
    return found
