"""A run as one page to hand on: a file that needs nothing else, not even a network."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from .._engine._handle import Run
from ..errors import DefinitionError
from ..metrics import ExecutionMetrics
from ._html import Html, el, join
from ._look import view_of_run
from ._parts import failure, state, style, timeline, totals
from ._view import Call, Node, View
from ._words import cost_of, time_of, word_of

__all__ = ["report"]

OPEN = 60
"""Up to how many rows a long table is open."""


def report(run: Run[object] | ExecutionMetrics, path: str | PathLike[str]) -> Path:
    """Write a page about a run for people to look at: ``flowlet.report(handle, "run.html")``.

    It shows state, totals, a timeline of steps and child runs, every model call and the failure; of a
    run that goes on, the state of this moment. It holds names, tags, models and errors, with secrets
    redacted, but neither prompts nor answers. The file is there as a whole or not at all.

    Raises:
        OSError: the file can't be written.
        DefinitionError: *run* is neither a handle nor metrics.
    """
    if not (isinstance(run, ExecutionMetrics) or hasattr(run, "metrics")):
        raise DefinitionError(
            f"report takes a handle, as start(...) or last_run() gives it, or metrics, not {type(run).__name__}"
        )
    target = Path(path)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    text = page_of(view_of_run(run))
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def page_of(view: View) -> str:
    """Draw a view as a whole HTML document."""
    title = f"{view.root.name}: {word_of(view.root.state, view.root.reused)}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        style("parts"),
        style("page"),
    )
    return f"<!doctype html>\n{el('html', head, el('body', _main(view)), lang='en')}\n"


def _main(view: View) -> Html:
    return el(
        "main",
        _header(view),
        failure(view.failure),
        totals(view),
        el("h2", "Timeline"),
        timeline(view),
        _section(
            "Model calls",
            ("Start", "Step", "Model", "In", "Out", "Cost", "Time", "Result"),
            map(_call, view.calls),
        ),
        _section("Steps", ("Start", "Step", "State", "Time", "Attempts", "Error"), map(_step, view.steps)),
        el("footer", f"Written by flowlet on {_moment(time.time())}."),
        class_="flowlet",
    )


def _header(view: View) -> Html:
    facts = [
        el("span", _moment(view.started_at)),
        el("span", "run ", el("code", view.run_id)),
        *([el("span", "child of ", el("code", view.parent_id))] if view.parent_id else []),
        *(el("span", tag, class_="fl-tag") for tag in view.tags),
    ]
    return el(
        "header",
        state(view.root.state, view.root.reused),
        el("h1", view.root.name),
        el("p", *facts, class_="fl-facts"),
    )


def _moment(at: float) -> str:
    return time.strftime("%d %B %Y, %H:%M:%S UTC", time.gmtime(at)).lstrip("0")


def _section(title: str, columns: Sequence[str], rows: Iterable[Html]) -> Html:
    body = list(rows)
    if not body:
        return Html()
    head = el(
        "tr",
        *(el("th", name, scope="col", class_="fl-number" if name in _NUMBERS else None) for name in columns),
    )
    table = el("table", el("thead", head), el("tbody", *body), class_="fl-list")
    shown = el("div", table, class_="fl-scroll", tabindex="0", role="region", aria_label=title)
    if len(body) > OPEN:
        shown = el("details", el("summary", f"Show all {len(body):,}"), shown)
    return join(el("h2", title, el("small", f"{len(body):,}")), shown)


_NUMBERS = ("Start", "In", "Out", "Cost", "Time", "Attempts")


def _call(call: Call) -> Html:
    known = not call.usage.unknown
    attempt = f"attempt {call.attempt}: " if call.attempt > 1 else ""
    result = el("span", attempt + (call.note or "done"), class_="fl-quiet")
    return el(
        "tr",
        _number(time_of(call.started)),
        el("th", call.step, scope="row"),
        el("td", call.model),
        _number(f"{call.usage.prompt_tokens:,}" if known else "?"),
        _number(f"{call.usage.completion_tokens:,}" if known else "?"),
        _number(cost_of(call.usage)),
        _number(time_of(call.duration)),
        el("td", state("failed"), f" {attempt}{call.error}") if call.error else el("td", result),
    )


def _step(step: Node) -> Html:
    return el(
        "tr",
        _number(time_of(step.started)),
        el("th", step.name, scope="row"),
        el("td", state(step.state, step.reused)),
        _number(time_of(step.duration)),
        _number(str(step.attempts)),
        el("td", step.error or ""),
    )


def _number(text: str) -> Html:
    return el("td", text, class_="fl-number")
