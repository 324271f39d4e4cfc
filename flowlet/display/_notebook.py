"""How runs, metrics, workflows and steps show themselves under IPython: as static HTML and as text.

IPython asks its registry of formatters, so that values of lower layers need not know of displays, and
workflows stay plain functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, cast

from .._engine._handle import Run
from ..metrics import ExecutionMetrics
from ..specs import Spec, spec_of
from ._html import Html, el
from ._look import view_of_run
from ._parts import failure, state, style, timeline, totals
from ._text import text_of
from ._words import clean_for, time_of

__all__ = ["mimebundle", "register"]

_RUNS = (("flowlet._engine._handle", "Run"), ("flowlet.metrics", "ExecutionMetrics"))


def register(shell: Any) -> None:
    """Tell IPython's *shell* how to show what is ours."""
    formatter = shell.display_formatter.mimebundle_formatter
    for module, name in _RUNS:
        formatter.for_type_by_name(module, name, mimebundle)
    for function in (FunctionType, MethodType):
        formatter.for_type(function, mimebundle)


def mimebundle(value: object) -> dict[str, str] | None:
    """Show a run, its metrics, a workflow or a step; None for any other value."""
    if isinstance(value, Run | ExecutionMetrics):
        view = view_of_run(cast("Run[object] | ExecutionMetrics", value))
        head = el(
            "header",
            el("strong", view.root.name),
            state(view.root.state, view.root.reused),
            el("code", view.run_id),
        )
        html = _block(head, failure(view.failure), totals(view), timeline(view))
        return {"text/plain": text_of(view), "text/html": html}
    spec = spec_of(value) if callable(value) else None
    return None if spec is None or not callable(value) else _function(value, spec)


def _function(fn: Callable[..., object], spec: Spec) -> dict[str, str]:
    clean = clean_for()
    signature = clean(f"{'async ' if spec.is_async else ''}def {spec.fn.__name__}{_signature(fn)}")
    doc = "\n".join(map(clean, (inspect.getdoc(fn) or "").splitlines()))
    kind = " · ".join((spec.kind, *(clean(option) for option in _options(spec))))
    parts = [el("strong", clean(spec.name)), el("span", kind)]
    html = _block(
        el("header", *parts),
        el("code", signature, class_="fl-signature"),
        el("pre", doc) if doc else Html(),
    )
    return {"text/plain": "\n".join(filter(None, (kind, signature, doc))), "text/html": html}


def _signature(fn: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(fn))
    except ValueError:
        return "(...)"


def _options(spec: Spec) -> list[str]:
    timeout = spec.step.timeout if spec.kind == "step" else spec.run.timeout
    found = [
        f"timeout {time_of(timeout)}" if timeout is not None else "",
        f"{spec.step.attempts} attempts" if spec.step.attempts > 1 else "",
        f"at most {spec.step.max_concurrency} at once" if spec.step.max_concurrency else "",
        f"model {spec.run.model}" if spec.run.model else "",
        f"tags {', '.join(spec.run.tags)}" if spec.run.tags else "",
    ]
    return [option for option in found if option]


def _block(*inside: Html) -> Html:
    return el("div", style("parts"), *inside, class_="flowlet")
