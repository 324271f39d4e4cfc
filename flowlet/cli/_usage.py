"""``flowlet usage``: the tokens and the cost of past runs, from what those runs wrote down.

The totals of ``flowlet.usage()`` live in a process and end with it. What lasts are logs, which have a
line for each model call, and the JSON results of ``flowlet run``, which have them in their metrics.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast

from .._codec import from_json, to_json
from ..display._words import cost_of, tokens_of, visible
from ..errors import InputError
from ..metrics import CallRecord, TokenUsage, Usage
from ..settings import process
from ..totals import OUTSIDE
from . import _codes
from ._shown import write_json

By = Literal["model", "workflow", "step"]
_NO_FILE = """usage is read from what runs wrote down; name a log or a JSON result:
  flowlet run flows.py:talk topic=tea --log run.log && flowlet usage run.log
  flowlet run flows.py:talk topic=tea --json | flowlet usage -
  (in Python, flowlet.usage() sums up the runs of its own process)"""
_NO_CALLS = "the log has no model calls: they are logged at the level DEBUG (flowlet run --log does)"


def sum_up(files: Sequence[str], by: By, as_json: bool) -> int:
    """Write the sums over the model calls in *files*, or else in the log that the settings name.

    Raises:
        InputError: there is no file, or it holds no log and no result.
    """
    options = [file for file in files if file.startswith("-") and file != "-"]
    if options:
        raise InputError(f"unknown option: {', '.join(options)}; flowlet usage --help tells the options")
    named = process.settings.log.file
    files = files or ([named] if named else [])
    if not files:
        raise InputError(_NO_FILE)
    sums: dict[str, Usage] = {}
    for record in (record for file in files for record in _records(file)):
        name = getattr(record, by) or OUTSIDE
        sums[name] = sums.get(name, Usage()) + Usage.of((record,))
    total = sum(sums.values(), Usage())
    if as_json:
        shares = {name: to_json(one, Usage) for name, one in sums.items()}
        write_json({"by": by, "usage": shares, "total": to_json(total, Usage)})
    else:
        _write_table(by, sums, total)
    return _codes.OK


def _records(file: str) -> Iterator[CallRecord]:
    """The model calls in one file.

    Raises:
        InputError: it can't be read, or is neither a log nor a result.
    """
    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{name}: {getattr(exc, 'strerror', None) or 'it is no text'}") from None
    objects = list(_objects(text))
    events = {found["event"] for found in objects if "event" in found}
    if not events and not any("metrics" in found for found in objects):
        raise InputError(f"{name} is neither a log in JSON nor a result of flowlet run --json")
    if "run_started" in events and not events & {"model_called", "step_started"}:
        print(f"flowlet: {name}: {_NO_CALLS}", file=sys.stderr)
    for found in objects:
        if found.get("event") == "model_called":
            yield _of_line(found)
        elif "metrics" in found:
            yield from _of_metrics(found["metrics"])


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in *text*, one after the other; lines that are something else are passed over."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            found: object
            found, at = decoder.raw_decode(text, at)
            if isinstance(found, dict):
                yield cast("dict[str, Any]", found)
        except ValueError:
            at = text.find("\n", at) % (len(text) + 1)


def _of_line(line: dict[str, Any]) -> CallRecord:
    """The call that a line of a log tells; tokens that nobody reported are null there."""
    tokens = {name: count for name, count in line.items() if name.endswith("_tokens") and count is not None}
    usage = from_json({**tokens, "source": "provider" if tokens else "unknown"}, TokenUsage)
    cost = None if line.get("cost") is None else Decimal(str(line["cost"]))
    return CallRecord(
        provider=line.get("provider", ""),
        model=line.get("model", ""),
        usage=usage,
        cost=cost,
        duration=line.get("duration_ms", 0) / 1000,
        at=0.0,
        ok=line.get("state") == "completed",
        workflow=line.get("workflow"),
        step=line.get("step"),
    )


def _of_metrics(metrics: Any) -> Iterator[CallRecord]:
    """The calls of a run and of its child runs; none of one that never began."""
    if metrics is not None:
        yield from from_json(metrics["calls"], list[CallRecord])
        for child in metrics["children"]:
            yield from _of_metrics(child)


def _write_table(by: By, sums: dict[str, Usage], total: Usage) -> None:
    rows = sorted(sums.items(), key=lambda row: -row[1].total_tokens)
    table = [(by, "calls", "failed", "tokens", "cost"), *(_row(*row) for row in rows), _row("total", total)]
    first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
    for name, *figures in table:
        print(f"{name:{first}}", *_right(figures, others), sep="  ")


def _row(name: str, usage: Usage) -> tuple[str, ...]:
    return (
        visible(name),
        f"{usage.calls:,}",
        f"{usage.failed:,}",
        tokens_of(usage) or "0",
        cost_of(usage) or "$0",
    )


def _right(figures: Iterable[str], widths: Iterable[int]) -> Iterator[str]:
    return (f"{figure:>{width}}" for figure, width in zip(figures, widths, strict=True))
