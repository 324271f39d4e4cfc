"""Events as log lines: a level, named fields, a sentence. Pure functions, and the only place that words them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Literal, cast

from attrs import Attribute, fields

from ..events import (
    BodyDiverged,
    BudgetRefused,
    CacheFailed,
    CodeChanged,
    Event,
    FailureUnfetched,
    LoopRetired,
    ModelCalled,
    ModelRetried,
    PIIFound,
    PluginFailed,
    RunFinished,
    RunInfo,
    RunsCancelledAtExit,
    RunStarted,
    StepFinished,
    StepRetried,
    StepStarted,
    ThreadAbandoned,
)
from ..metrics import CallRecord

__all__ = ["LEVELS", "Level", "Redact", "fields_of", "json_of", "level_of", "sentence_of", "text_of"]

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
Redact = Callable[[str], str]

LEVELS: Mapping[str, int] = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
_LEVEL_OF: Mapping[type, Level] = {
    RunStarted: "INFO",
    RunFinished: "INFO",
    StepStarted: "DEBUG",
    StepFinished: "DEBUG",
    StepRetried: "WARNING",
    ModelCalled: "DEBUG",
    ModelRetried: "WARNING",
    BudgetRefused: "WARNING",
    PIIFound: "WARNING",
    CodeChanged: "WARNING",
    BodyDiverged: "WARNING",
    CacheFailed: "WARNING",
    ThreadAbandoned: "WARNING",
    LoopRetired: "WARNING",
    FailureUnfetched: "ERROR",
    RunsCancelledAtExit: "WARNING",
    PluginFailed: "ERROR",
}


def level_of(event: Event) -> Level:
    """How much *event* matters: the end of a run or step counts more when it was a bad one."""
    if isinstance(event, PIIFound) and event.action == "mask":
        return "INFO"
    level = _LEVEL_OF.get(type(event), "INFO")
    return "ERROR" if getattr(event, "state", None) in ("failed", "timeout") else level


# --- named fields --------------------------------------------------------------------------------


def fields_of(event: Event, redact: Redact, *, prompts: bool = False) -> dict[str, Any]:
    """*event* as data for JSON, redacted. What does not apply is left out.

    Durations are milliseconds. Tokens and cost of a model call are None where they are not known.
    """
    kind: type = type(event)
    found: dict[str, Any] = {"event": _name_of(kind)}
    if isinstance(event, RunStarted | StepStarted):
        found["state"] = "running"
    for name in _names_of(kind):
        value = getattr(event, name)
        put = _PUT.get(name)
        if value is not None and put is not None:
            put(found, name, value)
        elif value is not None:
            found[_NAMES.get(name, name)] = value
    if isinstance(event, ModelCalled) and prompts:
        found |= _said(event)
    return {name: _redacted(value, redact) for name, value in found.items()}


@cache
def _name_of(kind: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.__name__).lower()


@cache
def _names_of(kind: type) -> tuple[str, ...]:
    attributes: tuple[Attribute[Any], ...] = cast("Any", fields)(kind)
    return tuple(a.name for a in attributes if a.name not in ("at", "request", "completion"))


_NAMES = {"index": "step_index", "parent": "parent_step_index"}


def _put_run(found: dict[str, Any], _: str, run: RunInfo) -> None:
    found["run_id"] = run.id
    if run.parent_id is not None:
        found["parent_id"] = run.parent_id
    found["correlation_id"] = run.correlation_id
    found["workflow"] = run.workflow
    if run.tags:
        found["tags"] = run.tags


def _put_runs(found: dict[str, Any], _: str, runs: tuple[RunInfo, ...]) -> None:
    found["run_ids"] = [run.id for run in runs]
    found["workflows"] = [run.workflow for run in runs]


def _put_ms(found: dict[str, Any], name: str, seconds: float) -> None:
    found[f"{name}_ms"] = round(seconds * 1000, 3)


def _put_record(found: dict[str, Any], _: str, record: CallRecord) -> None:
    usage = record.usage
    told = usage.source != "unknown"
    found |= {
        "step": record.step,
        "step_index": record.step_index,
        "provider": record.provider,
        "model": record.model,
        "state": "completed" if record.ok else "failed",
        "attempt": record.attempt,
        "finish_reason": record.finish_reason,
        "request_id": record.request_id,
        "error": record.error,
        "replayed": record.replayed or None,
    }
    for name in [name for name, value in found.items() if value is None]:
        del found[name]
    _put_ms(found, "duration", record.duration)
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"):
        found[name] = getattr(usage, name) if told else None
    found["cost"] = record.cost


_PUT: Mapping[str, Callable[[dict[str, Any], str, Any], None]] = {
    "run": _put_run,
    "runs": _put_runs,
    "record": _put_record,
    "duration": _put_ms,
    "wait": _put_ms,
}


def _said(event: ModelCalled) -> dict[str, Any]:
    request, completion = event.request, event.completion
    messages = () if request is None else request.messages
    answer = None if completion is None else completion.refusal or completion.text
    return {"prompt": [{"role": m.role, "content": m.content} for m in messages], "answer": answer}


def _redacted(value: Any, redact: Redact) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list | tuple):
        return [_redacted(one, redact) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {name: _redacted(one, redact) for name, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value


def json_of(event: Event, level: str, redact: Redact, *, prompts: bool) -> str:
    """*event* as one line of JSON, in ASCII, which every stream and terminal can take."""
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="microseconds")
    line = {"time": at, "level": level, **fields_of(event, redact, prompts=prompts)}
    return json.dumps(line, default=str)


# --- sentences -----------------------------------------------------------------------------------


def text_of(event: Event, level: str, redact: Redact, *, prompts: bool) -> str:
    """*event* as one line for people: local time, level, sentence, and which run."""
    at = datetime.fromtimestamp(event.at).isoformat(sep=" ", timespec="milliseconds")
    run = None if isinstance(event, RunsCancelledAtExit) else event.run
    place = "" if run is None else _in_one_line(redact(f"  [{run.workflow} {run.id}]"))
    return f"{at} {level:<7} {sentence_of(event, redact, prompts=prompts)}{place}"


def sentence_of(event: Event, redact: Redact, *, prompts: bool = False) -> str:
    """*event* in words, redacted, in one line without control characters."""
    kind: type = type(event)
    words = _SENTENCES.get(kind)
    said = _name_of(kind) if words is None else words(event)
    if isinstance(event, ModelCalled) and prompts:
        said += "".join(f" {name}={value!r}" for name, value in _said(event).items())
    return _in_one_line(redact(said))


def _in_one_line(text: str) -> str:
    """Escape what could end a line, begin another one, or steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _because(error: str | None) -> str:
    return f": {error}" if error else ""


_STATES = {"completed": "completed", "failed": "failed", "cancelled": "was cancelled", "timeout": "timed out"}


def _run_finished(event: RunFinished) -> str:
    state = _STATES[event.state]
    return f"run {event.run.workflow} {state} after {_time(event.duration)}{_because(event.error)}"


def _step_finished(event: StepFinished) -> str:
    if event.reused is not None:
        return f"step {event.step} did not run: its result comes from the {event.reused}"
    attempts = f" and {event.attempts} attempts" if event.attempts > 1 else ""
    state = _STATES[event.state]
    return f"step {event.step} {state} after {_time(event.duration)}{attempts}{_because(event.error)}"


def _model_called(event: ModelCalled) -> str:
    record = event.record
    if not record.ok:
        return f"model {record.model} failed after {_time(record.duration)}{_because(record.error)}"
    usage = record.usage
    tokens = f"{usage.prompt_tokens}+{usage.completion_tokens}" if usage.source != "unknown" else "unknown"
    cost = "cost unknown" if record.cost is None else f"${record.cost:f}"
    return f"model {record.model} answered in {_time(record.duration)}, tokens {tokens}, {cost}"


def _retried(what: str, event: StepRetried | ModelRetried) -> str:
    return f"{what} failed, attempt {event.attempt + 1} follows in {_time(event.wait)}: {event.reason}"


def _plugin_failed(event: PluginFailed) -> str:
    source = f" of {event.distribution} {event.version or ''}".rstrip() if event.distribution else ""
    return f"{event.plugin}{source} failed: {event.error}"


_BECAME = {"mask": "was masked", "refuse": "was refused", "warn": "is sent"}
_POLICIES = {"error": "the run is suspended", "reuse": "it was reused", "rerun": "it is made again"}
_SENTENCES: Mapping[type, Callable[[Any], str]] = {
    RunStarted: lambda e: f"run {e.run.workflow} started",
    RunFinished: _run_finished,
    StepStarted: lambda e: f"step {e.step} started",
    StepFinished: _step_finished,
    StepRetried: lambda e: _retried(f"step {e.step}", e),
    ModelCalled: _model_called,
    ModelRetried: lambda e: _retried(f"model {e.model}", e),
    BudgetRefused: lambda e: (
        f"model {e.model} was not called: the budget of {e.limit} per {e.budget} is used up ({e.spent} spent)"
    ),
    PIIFound: lambda e: f"personal data for model {e.model} {_BECAME[e.action]}: {', '.join(e.kinds)}",
    CodeChanged: lambda e: (
        f"the code of {e.kind} {e.step} has changed since its result was recorded: " + _POLICIES[e.policy]
    ),
    BodyDiverged: lambda e: (
        f"the body took another way than the recorded one: expected {', '.join(e.expected)}, found "
        + ", ".join(f"{name} with other arguments" if name in e.expected else name for name in e.found)
    ),
    CacheFailed: lambda e: f"the cache of step {e.step} failed, and the run goes on without: {e.error}",
    ThreadAbandoned: lambda e: (
        f"{f'step {e.step}' if e.step else 'a body'} does not stop; its thread was left behind and may go on ({e.count} such threads now)"
    ),
    LoopRetired: lambda e: (
        f"the background loop ({e.backend}) does not answer and was given up"
        + (f", at step {e.step}" if e.step else "")
    ),
    FailureUnfetched: lambda e: f"run {e.run.workflow} failed and nobody fetched its result: {e.error}",
    RunsCancelledAtExit: lambda e: (
        f"cancelled at the end of the process: {', '.join(f'{run.workflow} {run.id}' for run in e.runs)}"
    ),
    PluginFailed: _plugin_failed,
}
