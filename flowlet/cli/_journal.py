"""``flowlet runs``, ``show``, ``resume``, ``rerun`` and ``prune``: what a journal knows, and going on with it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from attrs import asdict, evolve

from .._codec import from_json, to_json
from .._target import Unloadable
from ..display._words import cost_of, tokens_of, visible
from ..entries import Entry, JournalledRun
from ..errors import DamagedRuns, FlowletError, InputError
from ..messages import Completion
from ..metrics import Usage
from ..protocols import Journal
from ..resuming import (
    RecordedRun,
    forget_old,
    forget_runs,
    recorded,
    recorded_runs,
    resumable,
    rewound,
)
from ..settings import process
from . import _codes
from ._errors import as_data, tell
from ._run import Asked, Ended, Request, execute, executed, with_run_options
from ._shown import write_json

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_WIDTH = 72


def list_runs(journal: str | None, state: str | None, workflow: str | None, limit: int, as_json: bool) -> int:
    """Write the runs of a journal, a line each; those that are damaged are told besides."""
    runs, fault = _known(journal)
    found = [run for run in runs if state in (None, _word(run)) and workflow in (None, run.workflow)][:limit]
    if as_json:
        write_json([asdict(run) for run in found])
    elif not found:
        print(f"no such runs{_where(journal)}")
    else:
        _write_table(found)
    return _told(fault)


def _known(journal: str | None) -> tuple[Sequence[JournalledRun], DamagedRuns | None]:
    """The runs of a journal that are whole, and what is wrong with others."""
    try:
        return recorded_runs(journal), None
    except DamagedRuns as exc:
        return exc.runs, exc


def _where(journal: str | None) -> str:
    """Where nothing was found: the whole path, as a relative one is from where the command is run."""
    named = process.settings.journal if journal is None else journal
    if not isinstance(named, str):
        return ""
    path = Path(named).expanduser().resolve()
    return visible(f" in {path}" if path.exists() else f": there is no file {path}")


def _told(fault: DamagedRuns | None, code: int = _codes.OK) -> int:
    """Tell what is wrong with some runs, if anything is, and give the exit code of a command that left them out."""
    if fault is None:
        return code
    tell(fault, whole=False)
    return max(code, _codes.USAGE)


def _write_table(runs: Sequence[JournalledRun]) -> None:
    rows = [("run", "workflow", "state", "started", "took", "entries"), *map(_row, runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _row(run: JournalledRun) -> tuple[str, ...]:
    took = "" if run.ended is None else f"{run.ended - run.started:.1f} s"
    return visible(run.run_id), visible(run.workflow), _state(run), _when(run.started), took, str(run.entries)


def _state(run: JournalledRun) -> str:
    word = _word(run)
    return f"running ({run.owner})" if word == "running" else word


def _word(run: JournalledRun) -> str:
    return "killed" if run.state == "running" and run.owner is None else run.state


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).isoformat(sep=" ", timespec="seconds")


def show_run(run_id: str, journal: str | None, as_json: bool) -> int:
    """Write what a journal knows of a run, as a tree."""
    found = recorded(run_id, journal)
    if as_json:
        write_json(_as_data(found))
    else:
        print("\n".join(_lines(found)))
    return _codes.OK


def _as_data(found: RecordedRun) -> Any:
    return {
        **asdict(found.run),
        "inputs": found.inputs,
        "result": found.result,
        "error": found.error,
        "usage": to_json(found.usage, Usage),
        "calls": [asdict(entry) for entry in found.calls],
    }


def _lines(found: RecordedRun) -> Iterator[str]:
    run, usage = found.run, found.usage
    used = [text for text in (tokens_of(usage) and f"{tokens_of(usage)} tokens", cost_of(usage)) if text]
    yield visible(
        f"{run.workflow} {run.run_id}: {_state(run)}, {_when(run.started)}, {', '.join(used)}".rstrip(", ")
    )
    if found.inputs:
        yield f"  inputs  {_arguments(_written(dict(found.inputs)))}"
    yield from _tree(found.calls, "", "  ")
    yield from _open(found)
    if found.error is not None:
        yield f"  error   {visible(found.error)}"
    elif run.state == "completed":
        yield f"  result  {_cut(_written(found.result))}"


def _tree(calls: Sequence[Entry], parent: str, indent: str) -> Iterator[str]:
    for entry in calls:
        if entry.parent == parent:
            value = _value(entry)
            yield f"{indent}{visible(entry.name)}: {', '.join(_facts(entry))}"
            if entry.inputs not in ("", "{}"):
                yield f"{indent}    ← {_arguments(entry.inputs)}"
            if entry.error:
                yield f"{indent}    ✗ {visible(entry.error)}"
            elif value:
                yield f"{indent}    → {_cut(value)}"
            yield from _tree(calls, entry.key, indent + "    ")


def _open(found: RecordedRun) -> Iterator[str]:
    """What is known of calls that have not ended: those that they made."""
    ended = {entry.key for entry in found.calls}
    names = {entry.key: entry.name for entry in found.entries}
    for parent in dict.fromkeys(entry.parent for entry in found.calls):
        if parent and parent not in ended:
            yield f"  {visible(names.get(parent, 'a call'))}: has not ended"
            yield from _tree(found.calls, parent, "      ")


def _facts(entry: Entry) -> Iterator[str]:
    yield entry.state
    yield f"{entry.duration:.3f} s"
    if entry.attempts > 1:
        yield f"{entry.attempts} attempts"
    if entry.kind == "call" and entry.value:
        usage = from_json(json.loads(entry.value), Completion).usage
        yield "unknown tokens" if usage.source == "unknown" else f"{usage.total_tokens:,} tokens"


def _value(entry: Entry) -> str:
    if not entry.value:
        return ""
    value = json.loads(entry.value)
    return _written(value["text"] if entry.kind == "call" else value)


def _arguments(text: str) -> str:
    """Say the arguments in a JSON object, of which each has room; the text may be cut off."""
    pairs = list(_pairs(text))
    return ", ".join(f"{visible(name)}={_cut(value, _WIDTH // len(pairs))}" for name, value in pairs)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """The names in a JSON object, written without spaces, and their values for people to read."""
    decode, at = json.JSONDecoder().raw_decode, 1
    with suppress(ValueError):  # it is cut off in a name
        while text.startswith('"', at):
            name, at = decode(text, at)
            shown, at = text[at + 1 :], at + 1
            with suppress(ValueError, RecursionError):  # it is cut off in a value, or deep
                value, at = decode(text, at)
                shown = _written(value)
            yield name, shown
            at += 1


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, width: int = _WIDTH) -> str:
    text = visible(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def resume_runs(
    run_id: str | None,
    everything: bool,
    journal: str | None,
    options: Mapping[str, Any],
    request: Request,
    as_json: bool,
    whole: bool,
) -> int:
    """Resume a run, or all that were killed, of which none keeps the others back; the worst exit code counts.

    Raises:
        InputError: neither or both are asked for.
    """
    if everything == (run_id is not None):
        raise InputError("name a run to resume, or all that were killed with --all; flowlet runs lists them")
    if run_id is not None:
        return execute(partial(_asked, run_id, journal, options), request, as_json, whole)
    runs, fault = _known(journal)
    names = [run.run_id for run in runs if _killed(run)]
    ended = list(_resumed(names, journal, options, request, as_json, whole))
    if as_json:
        write_json([{"run_id": name, **one.outcome} for name, one in zip(names, ended, strict=False)])
    elif not names:
        print(f"no run was killed{_where(journal)}")
    return _told(fault, max((one.code for one in ended), default=_codes.OK))


def _asked(run_id: str, journal: str | Journal | None, options: Mapping[str, Any]) -> Asked:
    """The workflow of a run, with *options* for this execution, and its inputs."""
    fn, args, kwargs = resumable(run_id, None, journal, None)
    return with_run_options(fn, options), args, kwargs


def _resumed(
    names: Sequence[str],
    journal: str | None,
    options: Mapping[str, Any],
    request: Request,
    as_json: bool,
    whole: bool,
) -> Iterator[Ended]:
    """Resume one run after the other, until a signal comes; one that can't be resumed is told."""
    for at, name in enumerate(names, 1):
        try:
            ended = executed(partial(_asked, name, journal, options), request, as_json, whole)
        except (FlowletError, Unloadable) as exc:
            tell(exc, whole)
            ended = Ended(_codes.USAGE, {"result": None, "error": as_data(exc), "metrics": None}, None)
        if ended.signal is not None and names[at:]:
            print(f"flowlet: not resumed: {', '.join(map(visible, names[at:]))}", file=sys.stderr)
            yield evolve(ended, code=ended.signal)
            return
        yield ended


def _killed(run: JournalledRun) -> bool:
    return run.state in ("running", "pending") and run.owner is None


def rerun_from(
    run_id: str,
    step: str,
    journal: str | None,
    options: Mapping[str, Any],
    request: Request,
    as_json: bool,
    whole: bool,
) -> int:
    """Run a recorded run again from *step* on; where it is refused, it stays as it was."""
    store = rewound(run_id, step, journal)
    return execute(partial(_asked, run_id, store, options), request, as_json, whole)


def prune_runs(names: Sequence[str], age: str | None, state: str, journal: str | None, as_json: bool) -> int:
    """Drop the runs with these *names*, or those in *state* that are older than *age*, and tell them.

    Raises:
        InputError: neither or both are asked for, or *age* is none.
        JournalError: as for :func:`~flowlet.forget_runs`.
    """
    if bool(names) == (age is not None):
        raise InputError("name the runs to drop, or say how old they are: --older-than 30d")
    if age is None:
        dropped, fault = list(names), None
        forget_runs(dropped, journal)
    else:
        is_old = _older(age, state)
        runs, fault = _known(journal)
        dropped = forget_old(is_old, runs, journal)
    if as_json:
        write_json({"dropped": dropped})
    elif names:
        print(f"dropped: {', '.join(map(visible, names))}")
    else:
        where = "" if dropped else _where(journal)
        print("1 run dropped" if len(dropped) == 1 else f"{len(dropped)} runs dropped{where}")
    return _told(fault)


def _older(age: str, state: str) -> Callable[[JournalledRun], bool]:
    found = _AGE.fullmatch(age.strip())
    if found is None:
        raise InputError(f"--older-than {age!r} is no age; write a number and s, m, h, d or w: 30d")
    oldest = time.time() - float(found[1]) * _SECONDS[found[2]]
    state = "running" if state == "killed" else state  # whoever claims it knows that nobody executes it
    return lambda run: run.state == state and (run.ended or run.started) < oldest
