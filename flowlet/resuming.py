"""Runs that a journal knows: told, resumed, and run again from a step."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attrs import frozen

from ._arguments import read_back
from ._codec import from_json
from ._engine._writer import Journals, Writer
from ._rewound import Rewound, undone
from ._signature import signature_of
from ._target import Unloadable, find, function_in
from ._value import Shown
from .declarative import load_workflow
from .entries import ChangedCode, Entry, JournalledRun
from .errors import ConfigError, DamagedRuns, InputError, JournalError
from .messages import Completion, JsonValue
from .metrics import CallRecord, Usage
from .settings import process
from .specs import Options, bare, spec_of
from .workflows import arun, run, with_options

if TYPE_CHECKING:
    from .protocols import Journal

__all__ = [
    "RecordedRun",
    "aresume",
    "forget_old",
    "forget_runs",
    "recorded",
    "recorded_runs",
    "resumable",
    "resume",
    "rewind",
    "rewound",
]

Function = Callable[..., Any]


@frozen(slots=False, repr=False)
class RecordedRun(Shown):
    """What a journal holds of a run: how it stands, and its *entries*, the oldest first."""

    run: JournalledRun
    entries: tuple[Entry, ...]

    @property
    def inputs(self) -> Mapping[str, JsonValue]:
        """The inputs, by name; texts from outside have their marks."""
        return from_json(json.loads(self._own[0].inputs), dict[str, Any], use="kept")

    @property
    def result(self) -> JsonValue:
        """The result as JSON, with the marks of texts from outside; None where there is none (yet)."""
        value = self._own[-1].value
        return from_json(json.loads(value), Any, use="kept") if value else None

    @property
    def error(self) -> str | None:
        """What ended the run, where it did not complete."""
        return self._own[-1].error or None

    @cached_property
    def calls(self) -> tuple[Entry, ...]:
        """What is known now of each call: of steps, of models, of child runs."""
        latest = {entry.key: entry for entry in self.entries if entry.key}
        return tuple(entry for entry in latest.values() if entry.state != "pending")

    @property
    def usage(self) -> Usage:
        """What the recorded answers of models have used."""
        return Usage.of(map(_record, (entry for entry in self.calls if entry.kind == "call")))

    @property
    def _own(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.key]


def _record(entry: Entry) -> CallRecord:
    provider, _, model = entry.name.partition(":")
    answer = from_json(json.loads(entry.value), Completion)
    cost = json.loads(entry.info)["cost"]
    dollars = None if cost is None else Decimal(cost)
    return CallRecord(provider, model, answer.usage, dollars, entry.duration, entry.at)


def recorded_runs(journal: str | PathLike[str] | Journal | None = None) -> list[JournalledRun]:
    """Tell the runs in *journal*, or in that of the settings, the newest first.

    Raises:
        ConfigError: no journal is given, nor set.
        DamagedRuns: some are damaged; it has the others.
        JournalError: it can't be read.
    """
    return list(_store(journal).runs())


def recorded(run_id: str, journal: str | PathLike[str] | Journal | None = None) -> RecordedRun:
    """Tell what *journal*, or that of the settings, holds of a run. Nothing is executed.

    Raises:
        ConfigError: no journal is given, nor set.
        JournalError: it can't be read, or does not know the run.
    """
    writer = _writer(journal)
    store = writer.sound
    _check(run_id)
    found = store.run(run_id)
    if found is None:
        raise JournalError(f"there is no run {run_id!r} in {writer.name}; it has {_some(store)}")
    return RecordedRun(found, tuple(store.read(run_id)))


def _check(run_id: object) -> None:
    if not isinstance(run_id, str):
        raise InputError(f"the id of a run is a text, not {run_id!r}")


def _some(store: Journal) -> str:
    try:
        runs = store.runs()
    except DamagedRuns as exc:
        runs = exc.runs
    names = [run.run_id for run in runs[:5]]
    more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
    return ", ".join(names) + more if names else "none"


def _store(journal: str | PathLike[str] | Journal | None) -> Journal:
    """The journal, with all that was posted; whatever goes wrong in it is a JournalError."""
    return _writer(journal).sound


def _writer(journal: str | PathLike[str] | Journal | None) -> Writer:
    where = process.settings.journal if journal is None else journal
    if where is None:
        raise ConfigError(
            "no journal is set. Name one: FLOWLET_JOURNAL=runs.db in the environment, journal: runs.db in "
            'flowlet.yaml, journal="runs.db" in Python, or --journal runs.db on the command line'
        )
    writer = process.of(Journals).of(where)
    writer.settle()
    return writer


# --- resuming ------------------------------------------------------------------------------------


def resumable(
    run_id: str,
    fn: Function | None,
    journal: str | PathLike[str] | Journal | None,
    changed_code: ChangedCode | None,
) -> tuple[Function, tuple[Any, ...], dict[str, Any]]:
    """The workflow of a run, with the options that it ran with, and its inputs.

    Raises:
        JournalError: the run is not known, or its workflow can't be found.
        InputError: the workflow does not take the recorded inputs any more.
    """
    found = recorded(run_id, journal)
    info = json.loads(found.entries[0].info)
    fn = _workflow(run_id, info) if fn is None else fn
    options: dict[str, Any] = {"run_id": run_id, "journal": _writer(journal).journal}
    options |= {name: info[name] for name in ("model", "backend", "tags", "correlation_id") if info[name]}
    if changed_code is not None:
        options["changed_code"] = changed_code
    spec = spec_of(fn)
    signature = signature_of(fn if spec is None else bare(fn, spec), called=True)
    args, kwargs = read_back(signature, json.loads(found.entries[0].inputs))
    return with_options(fn, **cast("Options", options)), args, kwargs


def resume(
    run_id: str,
    fn: Function | None = None,
    /,
    *,
    journal: str | PathLike[str] | Journal | None = None,
    changed_code: ChangedCode | None = None,
) -> Any:
    """Go on with a run where it stopped, and wait for its result; that of a completed run is told at once.

    Steps that have finished give their recorded results and do not run again.

    Args:
        run_id: the run.
        fn: its workflow, where that can't be imported by its name (a chain, or one made within a function or a notebook).
        journal: where it is recorded (default: the setting).
        changed_code: what becomes of a recorded result when the code of its step has changed since.

    Raises:
        JournalError: the run is not known, is executed by somebody else, or its workflow can't be found.
        InputError: the workflow does not take the recorded inputs any more.
        BridgeError: an event loop runs in this thread; write ``await aresume(...)``. Else as ``run``.
    """
    again, args, kwargs = resumable(run_id, fn, journal, changed_code)
    return run(again, *args, **kwargs)


async def aresume(
    run_id: str,
    fn: Function | None = None,
    /,
    *,
    journal: str | PathLike[str] | Journal | None = None,
    changed_code: ChangedCode | None = None,
) -> Any:
    """Go on with a run in the event loop of the caller, as :func:`resume` does."""
    again, args, kwargs = await arun(resumable, run_id, fn, journal, changed_code)
    return await arun(again, *args, **kwargs)


def _workflow(run_id: str, info: Mapping[str, Any]) -> Function:
    """Find the workflow of a run by its name, or else in its file."""
    name, file = info["name"], info["file"]
    if name is None:
        raise JournalError(
            f"the workflow of run {run_id!r} has no name to find it by: it is a chain, or was made within a function "
            f"or a notebook\n    hand it over:  resume({run_id!r}, the_workflow)"
        )
    try:
        if info["module"] is None:
            return _in_file(file, name)
        return _same(run_id, info, find(f"{info['module']}:{name}"))
    except (InputError, Unloadable) as exc:
        if info["module"] is not None and file is not None and Path(file).is_file():
            return _in_file(file, name)
        raise JournalError(f"the workflow of run {run_id!r} can't be found: {exc}") from exc


def _same(run_id: str, info: Mapping[str, Any], fn: Function) -> Function:
    """Refuse *fn* where it is another's of the same name, and the run's own is still there."""
    spec = spec_of(fn)
    body = fn if spec is None else bare(fn, spec)
    ran, found = info["file"], getattr(body, "__globals__", {}).get("__file__")
    if not (ran and found and Path(ran).is_file()) or Path(ran).resolve() == Path(found).resolve():
        return fn
    target = f"{info['module']}:{info['name']}"
    raise JournalError(
        f"the workflow of run {run_id!r} is in {ran}, and here {target} is in {found}\n"
        f"    resume it in {Path(ran).parent}, or say that this one is meant:  resume({run_id!r}, the_workflow)  "
        f"or, with the same inputs,  flowlet run {target} --run-id {run_id}"
    )


def _in_file(file: str, name: str) -> Function:
    if file.endswith((".yaml", ".yml")):
        return load_workflow(file)
    main = sys.modules["__main__"]
    if Path(getattr(main, "__file__", None) or "").resolve() == Path(file).resolve():
        return function_in(main, file, name)
    return find(f"{file}:{name}")


# --- changing what is recorded -------------------------------------------------------------------


def rewind(run_id: str, step: str, journal: str | PathLike[str] | Journal | None = None) -> None:
    """Forget what the first call of *step* gave, and all that became known after it; ``resume`` makes it again.

    Raises:
        JournalError: the run has no such step, or somebody executes it.
    """
    store = _store(journal)
    with _claimed(store, run_id):
        store.append(undone(recorded(run_id, journal).entries, step))


def rewound(run_id: str, step: str, journal: str | PathLike[str] | Journal | None) -> Journal:
    """The journal as :func:`rewind` would leave it; that is written when something of the run is made again."""
    return Rewound(_writer(journal).journal, run_id, step)


@contextmanager
def _claimed(store: Journal, run_id: str) -> Generator[None]:
    _check(run_id)
    owner = store.claim(run_id)
    if owner is not None:
        raise JournalError(f"run {run_id!r} is being executed by {owner}")
    try:
        yield
    finally:
        store.release(run_id)


def forget_runs(run_ids: Sequence[str], journal: str | PathLike[str] | Journal | None = None) -> None:
    """Drop runs from the journal, with all that is recorded of them, damaged ones too, and expired values of the cache.

    A text is the id of one run.

    Raises:
        JournalError: it can't be written, or a run is not known, or executed by somebody; then none is dropped.
    """
    writer = _writer(journal)
    store = writer.sound
    names = dict.fromkeys([run_ids] if isinstance(run_ids, str) else run_ids)
    with ExitStack() as claims:
        for run_id in names:
            claims.enter_context(_claimed(store, run_id))
        if unknown := [run_id for run_id in names if not _is_known(store, run_id)]:
            raise JournalError(
                f"there is no run {', '.join(map(repr, unknown))} in {writer.name}; none was dropped"
            )
        store.forget([*names])
    store.expire(time.time())


def _is_known(store: Journal, run_id: str) -> bool:
    try:
        return store.run(run_id) is not None
    except JournalError:
        return True  # what is damaged is there


def forget_old(
    is_old: Callable[[JournalledRun], bool],
    runs: Sequence[JournalledRun],
    journal: str | PathLike[str] | Journal | None,
) -> list[str]:
    """Drop those of *runs* that are old, also when looked at again under a claim, as :func:`forget_runs` does; tell them.

    One that somebody executes is left.
    """
    store = _store(journal)
    with ExitStack() as claims:
        dropped = [run.run_id for run in runs if is_old(run) and _still(is_old, run.run_id, store, claims)]
        store.forget(dropped)
    store.expire(time.time())
    return dropped


def _still(is_old: Callable[[JournalledRun], bool], run_id: str, store: Journal, claims: ExitStack) -> bool:
    """Whether the run can be claimed, which is added to *claims*, and is old all the same."""
    if store.claim(run_id) is not None:
        return False
    claims.callback(store.release, run_id)
    run = store.run(run_id)
    return run is not None and is_old(run)
