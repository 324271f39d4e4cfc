"""The parts that a notebook's output and a report are made of: state, totals, failure, timeline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from ..metrics import Reused, RunState, Usage
from ._html import Html, el
from ._view import Failure, Node, View
from ._words import STATE_WORDS, cost_of, counted, time_of, tokens_of, word_of

LANES = 24
"""How many calls at a time are drawn apart in one row; more share lanes."""

DISTINCT = 400
"""Up to how many calls in a row each has a bar of its own; of more, neighbours grow together."""


@cache
def style(name: str) -> Html:
    """The style sheet of that name, as an element."""
    return el("style", Html(Path(__file__).with_name(f"{name}.css").read_text(encoding="utf-8")))


def state(value: RunState, reused: Reused | None = None) -> Html:
    """A dot in the colour of a state, and its word, or where the result came from."""
    return el(
        "span",
        el("i", class_="fl-dot", aria_hidden="true"),
        word_of(value, reused),
        class_=f"fl-state fl-{value}",
    )


def totals(view: View) -> Html:
    """The figures of a run."""
    usage, retries = view.root.usage, sum(step.retries for step in view.steps)
    steps = f"{len(view.steps):,}"
    figures = [
        ("Time", time_of(view.root.duration), ""),
        ("Steps", steps, counted(retries, "retry", "retries") if retries else ""),
        ("Model calls", f"{usage.calls:,}", f"{usage.failed:,} failed" if usage.failed else ""),
        ("Tokens", tokens_of(usage) or "0", _in_and_out(usage)),
        ("Cost", cost_of(usage) or "$0", _open(usage.unpriced + usage.unknown)),
    ]
    return el("dl", *(_figure(*figure) for figure in figures), class_="fl-totals")


def _in_and_out(usage: Usage) -> str:
    return f"{usage.prompt_tokens:,} in, {usage.completion_tokens:,} out" if usage.total_tokens else ""


def _open(calls: int) -> str:
    return f"{counted(calls, 'call')} without a known price" if calls else ""


def _figure(name: str, value: str, note: str) -> Html:
    shown = el("dd", value, el("small", note) if note else Html())
    return el("div", el("dt", name), shown)


def failure(found: Failure | None) -> Html:
    """What ended the run, and where."""
    if found is None:
        return Html()
    kind, colon, text = found.error.partition(": ")
    attempts = f" in attempt {found.attempts}" if found.attempts > 1 else ""
    return el(
        "section",
        el("p", el("strong", kind), colon, text, class_="fl-error"),
        el("p", "in ", " → ".join(_short(found.path)), attempts, class_="fl-where"),
        el("p", el("code", found.place), class_="fl-where") if found.place else Html(),
        class_="fl-failure",
        aria_label="Failure",
    )


def _short(path: Sequence[str]) -> Sequence[str]:
    return path if len(path) <= 8 else (*path[:4], "…", *path[-3:])


def timeline(view: View) -> Html:
    """The tree of a run as a table with a bar for every call, to scale."""
    span = view.root.duration or 1e-6
    tick = _tick(span)
    head = el(
        "tr",
        el("th", "Step", scope="col", class_="fl-name"),
        el("th", *_axis(span, tick), scope="col", class_="fl-track", aria_label="Timeline"),
        el("th", "Time", scope="col"),
        el("th", "Tokens", scope="col"),
        el("th", "Cost", scope="col"),
    )
    rows = (row for node, depth in _walk(view.root, 0) for row in _row(node, depth, view))
    return el(
        "table",
        el("thead", head),
        el("tbody", *rows),
        class_="fl-tree",
        style=f"--grid:{100 * tick / span:.3f}%",
    )


def _tick(span: float) -> float:
    """A round distance of which three to six fit into *span*."""
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(size for size in (power, 2 * power, 5 * power, 10 * power) if size >= rough)


def _axis(span: float, tick: float) -> Iterator[Html]:
    for number in range(int(span / tick * 1.0001) + 1):
        at = 100 * number * tick / span
        if at <= 92:
            yield el("span", _mark(number * tick, tick), style=f"left:{at:.3f}%")


def _mark(seconds: float, tick: float) -> str:
    if seconds == 0:
        return "0"
    if tick >= 60:
        return f"{seconds / 60:g} min"
    return f"{seconds:g} s" if tick >= 0.1 else f"{seconds * 1000:g} ms"


def _walk(node: Node, depth: int) -> Iterator[tuple[Node, int]]:
    yield node, depth
    for child in node.children:
        yield from _walk(child, depth + 1)


def _row(node: Node, depth: int, view: View) -> Iterator[Html]:
    name = el("span", node.name, class_="fl-run" if node.kind == "run" else None)
    yield el(
        "tr",
        el(
            "th", name, *_notes(node, depth), scope="row", class_="fl-name", style=f"--depth:{min(depth, 12)}"
        ),
        el("td", _bars(node, view.root.duration or 1e-6), class_="fl-track"),
        el("td", time_of(node.duration), class_="fl-number"),
        el("td", tokens_of(node.usage), class_="fl-number fl-tokens"),
        el("td", cost_of(node.usage), class_="fl-number fl-cost"),
    )
    if node.error is not None and (view.failure is None or node.error != view.failure.error):
        error = el("td", node.error, colspan="5", style=f"--depth:{min(depth, 12)}")
        yield el("tr", error, class_="fl-error-row")


def _notes(node: Node, depth: int) -> Iterator[Html]:
    counts = node.counts
    if node.members:
        yield el("span", f" ×{len(node.members):,}", class_="fl-note")
    if len(counts) > 1:
        yield el("span", *(_count(*one) for one in counts.items()), class_="fl-note")
    elif depth and (node.reused is not None or node.state != "completed"):
        yield state(node.state, node.reused)
    for source, number in node.sources.items() if node.members else ():
        yield el("span", f" {number:,} {word_of(node.state, source)}", class_="fl-note")
    if node.retries:
        text = counted(node.retries, "retry", "retries")
        yield el("span", f" {text}", class_="fl-note")


def _count(value: RunState, number: int) -> Html:
    return el("span", f" {number:,} {STATE_WORDS[value]}", class_=f"fl-{value}")


def _bars(node: Node, span: float) -> Html:
    lanes = _lanes(node.calls)
    height = 100 / len(lanes)
    bars = [
        _bar(bar, span, f"top:{height * number:.2f}%;height:{height:.2f}%")
        for number, lane in enumerate(lanes)
        for bar in _joined(lane, span, few=len(node.calls) <= DISTINCT)
    ]
    many = len(lanes) > 1
    size = f"height:{min(72, max(16, 5 * len(lanes)))}px" if many else None
    kind = " fl-many" if many else " fl-outer" if node.children else ""
    return el("div", *bars, class_=f"fl-bars{kind}", style=size)


def _lanes(calls: Sequence[Node]) -> list[list[Node]]:
    """Put each call into the first lane that is free at its start."""
    lanes: list[list[Node]] = []
    for call in sorted(calls, key=lambda call: call.started):
        free = next((lane for lane in lanes if lane[-1].end <= call.started), None)
        if free is None and len(lanes) >= LANES:
            free = min(lanes, key=lambda lane: lane[-1].end)
        if free is None:
            lanes.append([call])
        else:
            free.append(call)
    return lanes


def _joined(lane: Sequence[Node], span: float, *, few: bool) -> list[tuple[Node, float]]:
    """The calls of a lane with their ends; of many, those that can't be told apart are one."""
    bars: list[tuple[Node, float]] = []
    for call in lane:
        last = bars[-1] if bars else None
        if few or last is None or last[0].state != call.state or call.started - last[1] > span / 500:
            bars.append((call, call.end))
        else:
            bars[-1] = (last[0], max(last[1], call.end))
    return bars


def _bar(bar: tuple[Node, float], span: float, place: str) -> Html:
    call, end = bar
    left = min(100.0, max(0.0, 100 * call.started / span))
    width = min(100 - left, max(0.0, 100 * (end - call.started) / span))
    title = (
        f"{call.name}: {word_of(call.state, call.reused)}, "
        f"{time_of(end - call.started)} from {time_of(call.started)}"
    )
    return el(
        "i",
        title=title,
        class_=f"fl-{call.state}",
        style=f"left:{left:.3f}%;width:{width:.3f}%;{place}",
    )
