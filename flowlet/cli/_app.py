"""The commands and their options; what they do is imported when they are called."""

# Annotations are evaluated here: as texts, cyclopts would compile each of them at every start.

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from . import _codes

Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def _no_option(_: object, value: str | None) -> None:
    if value is not None and value.startswith("-") and value != "-":
        raise ValueError("expected a file, or - alone")


File = Annotated[
    str | None, Parameter(metavar="FILE", allow_leading_hyphen=True, validator=_no_option, show_default=False)
]
Store = Annotated[str | None, Parameter(metavar="FILE", show_default=False)]


def _is_there(_: object, value: str | None) -> None:
    if value is not None and not Path(value).expanduser().exists():
        raise ValueError("there is no such file")


def _is_some(_: object, count: int) -> None:
    if count < 1:
        raise ValueError(f"found {count}; at least 1 is shown")


Recorded = Annotated[str | None, Parameter(metavar="FILE", validator=_is_there, show_default=False)]
Count = Annotated[int, Parameter(validator=_is_some)]
Quiet = Annotated[bool, Parameter(alias="-q", negative="", show_default=False)]
Words = Annotated[str, Parameter(metavar="NAME=VALUE")]


def _version() -> str:
    from importlib.metadata import version

    return version("flowlet")


app = App(
    name="flowlet",
    help="Run, list and account for workflows made of plain functions.",
    help_format="plaintext",
    help_epilogue=_codes.EPILOGUE,
    version=_version,
    version_flags=["--version"],
    print_error=False,
    exit_on_error=False,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    end_of_options_delimiter="--",
)


def execute(argv: Sequence[str]) -> int:
    """Execute the command that *argv* names, and give its exit code."""
    try:
        code: object = app(argv)
    except CycloptsError as exc:
        print(f"flowlet: {exc}{_advice(exc, argv)}", file=sys.stderr)
        return _codes.USAGE
    return code if isinstance(code, int) else _codes.OK


def _advice(exc: CycloptsError, argv: Sequence[str]) -> str:
    command = f" {argv[0]}" if argv and argv[0] in app else ""
    help_line = f"\n  flowlet{command} --help tells the options"
    if command == " run" and isinstance(exc, UnknownOptionError):
        return f"\n  inputs of the workflow are written without dashes: name=value{help_line}"
    return help_line


def _guarded(work: Callable[[], int], as_json: bool, traceback: bool = False) -> int:
    from ._errors import guarded

    return guarded(work, as_json, _whole(traceback))


def _whole(traceback: bool) -> bool:
    return traceback or bool(os.environ.get("FLOWLET_DEBUG"))


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


@app.command
def run(
    target: str,
    /,
    *inputs: Words,
    input: File = None,
    json: Json = False,
    timeout: Annotated[float | None, Parameter(metavar="SECONDS")] = None,
    model: Annotated[str | None, Parameter(metavar="PROVIDER:NAME")] = None,
    backend: Literal["asyncio", "trio"] | None = None,
    log: File = None,
    report: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    record: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    replay: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    journal: Store = None,
    run_id: Annotated[str | None, Parameter(metavar="ID")] = None,
    quiet: Quiet = False,
    traceback: Flag = False,
) -> int:
    """Run a workflow, a step or a plain function.

    For example: flowlet run flows.py:talk topic=tea --model offline

    Args:
        target: module:name, path/file.py:name, or a workflow in YAML.
        inputs: inputs as name=value, read by the type hints; name:=value gives raw JSON.
        input: a file with a JSON object of inputs, - for standard input; name=value wins over it.
        json: write result, error and metrics as one JSON object; what steps print goes to stderr.
        timeout: end the run after so many seconds.
        model: the model where an LLM() names none; "offline" replaces all models.
        backend: the event loop of async code.
        log: write the log as JSON lines to this file, - for stderr.
        report: write a report of the run to this HTML file.
        record: record the model calls in this file.
        replay: answer the model calls from this recording; nothing is sent, and no key is needed.
        journal: record the run in this file, so that it can be resumed.
        run_id: the run's id; one that the journal knows is resumed.
        quiet: don't show the progress of the run.
        traceback: show the whole traceback of a failure (or set FLOWLET_DEBUG=1).
    """
    from ._run import Request, execute, target_with

    options = _given(timeout=timeout, model=model, backend=backend, journal=journal, run_id=run_id)
    request = Request(log, report, quiet, record, replay)
    asked = partial(target_with, target, inputs, input, options)
    return _guarded(lambda: execute(asked, request, json, _whole(traceback)), json, traceback)


@app.command(name="list")
def list_(module: str, /, *, json: Json = False, traceback: Flag = False) -> int:
    """List the workflows and steps of a module, with their signatures.

    Args:
        module: a module's name, path/file.py, or a workflow in YAML.
        json: write one JSON object.
        traceback: show the whole traceback when the module can't be imported.
    """
    from ._list import list_module

    return _guarded(lambda: list_module(module, json), json, traceback)


@app.command
def usage(
    *files: Annotated[str, Parameter(metavar="FILE", allow_leading_hyphen=True)],
    by: Literal["model", "workflow", "step"] = "model",
    json: Json = False,
) -> int:
    """Sum up the tokens and the cost of past runs, from their logs or their JSON results.

    Args:
        files: logs (flowlet run --log) or results (flowlet run --json); - for standard input.
        by: what to sum up by.
        json: write one JSON object.
    """
    from ._usage import sum_up

    return _guarded(lambda: sum_up(files, by, json), json)


@app.command
def check(*files: Annotated[str, Parameter(metavar="FILE")], json: Json = False) -> int:
    """Check workflows in YAML; without a file the settings, and tell what holds and from where.

    Args:
        files: workflows in YAML.
        json: write one JSON object.
    """
    if files and files != ("flowlet.yaml",):
        from ._workflows import check_workflows

        return _guarded(lambda: check_workflows(files, json), json)
    from ._check import check_settings

    return _guarded(lambda: check_settings(json), json)


@app.command
def plugins(*, json: Json = False) -> int:
    """List providers, steps and middleware by name, where they come from, and what is broken and why.

    Args:
        json: write one JSON object.
    """
    from ._plugins import list_plugins

    return _guarded(lambda: list_plugins(json), json)


@app.command
def graph(file: str, /, *, format: Literal["text", "mermaid"] = "text", json: Json = False) -> int:
    """Draw the steps of a workflow in YAML, stage by stage.

    Args:
        file: a workflow in YAML.
        format: a table for people, or a flow chart for Mermaid.
        json: write one JSON object.
    """
    from ._workflows import draw

    return _guarded(lambda: draw(file, format, json), json)


@app.command
def runs(
    *,
    journal: Recorded = None,
    state: Literal["pending", "running", "killed", "completed", "failed", "cancelled", "timeout"]
    | None = None,
    workflow: str | None = None,
    limit: Count = 20,
    json: Json = False,
) -> int:
    """List the runs that a journal knows, the newest first.

    Args:
        journal: the journal; without it that of the settings.
        state: only those in this state; killed are those running that nobody executes, and can be resumed.
        workflow: only those of this workflow.
        limit: how many at most.
        json: write one JSON object.
    """
    from ._journal import list_runs

    return _guarded(lambda: list_runs(journal, state, workflow, limit, json), json)


@app.command
def show(
    run: Annotated[str, Parameter(metavar="RUN")], /, *, journal: Recorded = None, json: Json = False
) -> int:
    """Show what a journal knows of a run: inputs, steps, answers, results, errors.

    Args:
        run: the run's id.
        journal: the journal; without it that of the settings.
        json: write one JSON object.
    """
    from ._journal import show_run

    return _guarded(lambda: show_run(run, journal, json), json)


@app.command
def resume(
    run: Annotated[str | None, Parameter(metavar="RUN")] = None,
    /,
    *,
    all: Flag = False,
    journal: Recorded = None,
    changed_code: Literal["error", "reuse", "rerun"] | None = None,
    timeout: Annotated[float | None, Parameter(metavar="SECONDS")] = None,
    json: Json = False,
    log: File = None,
    quiet: Quiet = False,
    traceback: Flag = False,
) -> int:
    """Go on with a run where it stopped; what has finished does not run again.

    Args:
        run: the run's id.
        all: resume every run that was killed.
        journal: the journal; without it that of the settings.
        changed_code: what becomes of a recorded result when the code of its step has changed since.
        timeout: end this execution after so many seconds.
        json: write result, error and metrics as one JSON object.
        log: write the log as JSON lines to this file, - for stderr.
        quiet: don't show the progress of the run.
        traceback: show the whole traceback of a failure.
    """
    from ._journal import resume_runs
    from ._run import Request

    request = Request(log, None, quiet)
    options = _given(changed_code=changed_code, timeout=timeout)
    work = partial(resume_runs, run, all, journal, options, request, json, _whole(traceback))
    return _guarded(work, json, traceback)


@app.command
def rerun(
    run: Annotated[str, Parameter(metavar="RUN")],
    /,
    *,
    from_: Annotated[str, Parameter(name="--from", metavar="STEP")],
    journal: Recorded = None,
    changed_code: Literal["error", "reuse", "rerun"] | None = None,
    timeout: Annotated[float | None, Parameter(metavar="SECONDS")] = None,
    json: Json = False,
    quiet: Quiet = False,
    traceback: Flag = False,
) -> int:
    """Run a recorded run again from a step on; what came before it does not run again.

    Args:
        run: the run's id.
        from_: the step whose first call, and all that came after it, is made again.
        journal: the journal; without it that of the settings.
        changed_code: what becomes of a recorded result when the code of its step has changed since.
        timeout: end this execution after so many seconds.
        json: write result, error and metrics as one JSON object.
        quiet: don't show the progress of the run.
        traceback: show the whole traceback of a failure.
    """
    from ._journal import rerun_from
    from ._run import Request

    request = Request(None, None, quiet)
    options = _given(changed_code=changed_code, timeout=timeout)
    work = partial(rerun_from, run, from_, journal, options, request, json, _whole(traceback))
    return _guarded(work, json, traceback)


@app.command
def prune(
    *run: Annotated[str, Parameter(metavar="RUN")],
    older_than: Annotated[str | None, Parameter(metavar="AGE")] = None,
    state: Literal["pending", "killed", "completed", "failed", "cancelled", "timeout"] = "completed",
    journal: Recorded = None,
    json: Json = False,
) -> int:
    """Drop runs from a journal, with all that it knows of them: those that are named, or old ones.

    Args:
        run: the ids of the runs, which may be damaged.
        older_than: those that ended, or began where they did not end, so long ago: 30d, 12h, 45m.
        state: of old ones, only those in this state.
        journal: the journal; without it that of the settings.
        json: write one JSON object.
    """
    from ._journal import prune_runs

    return _guarded(lambda: prune_runs(run, older_than, state, journal, json), json)


@app.command
def init(directory: Path = Path(), /, *, json: Json = False) -> int:
    """Make a small working project: a workflow, settings and a test. It overwrites nothing.

    Args:
        directory: where to make it.
        json: write one JSON object.
    """
    from ._init import make_project

    return _guarded(lambda: make_project(directory, json), json)
