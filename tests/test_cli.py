"""The command line, in this process where that says enough, else in one of its own."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import flowlet
from flowlet.cli import main
from rig import PATIENCE

FLOWS = '''\
from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Literal

from attrs import frozen

from flowlet import LLM, Completion, TokenUsage, register_provider, step, workflow


@frozen
class Note:
    text: str
    stars: int = 3


@step
def outline(topic: str) -> str:
    """Write the prompt."""
    return f"List three points about {topic}"


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    return llm.ask(question)


@workflow
def talk(topic: str, count: int = 3, style: Literal["dry", "warm"] = "dry") -> str:
    """Prepare a talk.

    And more.
    """
    return f"{outline(topic)} {count} {style}"


@workflow
async def atalk(topic: str) -> list[Note]:
    return [Note(outline(topic))]


@workflow
def answer(question: str) -> str:
    return ask(question)


@workflow
def both(question: str) -> list[str]:
    return [ask(question), answer(question)]


@step
async def anote(text: str) -> Note:
    return Note(text)


def plain(a, /, *, b: int = 3, **more: int) -> object:
    print("printed by plain")
    return {"a": a, "b": b, **more}


@step
def look(pages: dict[str, str], name: str) -> str:
    return pages[name]


@workflow
def broken(name: str) -> str:
    return look({}, name)


@workflow
def chained(name: str) -> str:
    try:
        return look({}, name)
    except KeyError as exc:
        raise LookupError("not\\x1b[31m here: sk-abcdefghijklmnopqrstuv") from exc


@workflow
async def group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail("one"))
        tasks.create_task(fail("two"))


async def fail(what: str) -> None:
    raise OSError(what)


@workflow
def misuse() -> str:
    return talk(5)


@workflow
def give(what: str) -> object:
    return {"none": None, "class": Note, "object": object()}[what]


@step
def nap(seconds: float) -> None:
    print("napping", flush=True)
    time.sleep(seconds)


@workflow
def slow(seconds: float = 30) -> None:
    nap(seconds)


class Waiting:
    live = False
    name = "waiting"

    def complete(self, request: object) -> Completion:
        print("asked", flush=True)
        while not Path("answer").exists():
            time.sleep(0.01)
        return Completion("late", TokenUsage(3, 4, 7), "waiting")


register_provider("waiting", Waiting())


@workflow
def wait_for_model() -> str:
    return ask("Are you there?", LLM("waiting:any"))


class Tool: ...


NUMBER = 5
'''


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with flows.py, which is the working directory; modules from there are forgotten."""
    (tmp_path / "flows.py").write_text(FLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Execute a command line here; give exit code, stdout and stderr."""

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        out, err = capsys.readouterr()
        return code, out, err

    return call


# --- flowlet run: what runs ------------------------------------------------------------------------


def test_text_is_written_as_it_is(call: Call) -> None:
    """A result that is text goes to stdout alone, inputs are read by their hints."""
    assert call("run", "flows.py:talk", "topic=tea", "count=5", "--quiet") == (
        0,
        "List three points about tea 5 dry\n",
        "",
    )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_workflow_runs_on_either_backend(call: Call, backend: str) -> None:
    """Values other than text are written as JSON."""
    code, out, _ = call("run", "flows:atalk", "topic=tea", "--backend", backend, "-q")
    assert (code, json.loads(out)) == (0, [{"text": "List three points about tea", "stars": 3}])


def test_a_step_runs_by_itself(call: Call) -> None:
    """An async step needs no workflow around it."""
    code, out, _ = call("run", "flows:anote", "text=hi", "-q")
    assert (code, json.loads(out)) == (0, {"text": "hi", "stars": 3})


def test_a_plain_function_runs_too(call: Call) -> None:
    """Positional-only and variadic parameters take inputs by name, ``:=`` takes raw JSON."""
    code, out, _ = call("run", "flows:plain", "a:=[1, 2]", "c=4", "-q")
    assert code == 0
    assert out.splitlines()[0] == "printed by plain"
    assert json.loads(out.partition("\n")[2]) == {"a": [1, 2], "b": 3, "c": 4}


def test_none_is_written_as_nothing(call: Call) -> None:
    """A workflow that returns nothing leaves stdout empty."""
    assert call("run", "flows:give", "what=none", "-q") == (0, "", "")


def test_what_is_no_json_is_written_as_its_repr(call: Call) -> None:
    """The run was good, so its exit code is 0, and stderr says what happened to the result."""
    code, out, err = call("run", "flows:give", "what=object", "-q")
    assert code == 0
    assert out.startswith("<object object at")
    assert "the result is written as its repr" in err


def test_json_is_one_object(call: Call) -> None:
    """With --json, stdout holds result and metrics; what a step prints goes to stderr."""
    code, out, err = call("run", "flows:plain", "a=x", "--json")
    found = json.loads(out)
    assert (code, found["result"], found["error"]) == (0, {"a": "x", "b": 3}, None)
    assert found["metrics"]["state"] == "completed"
    assert "printed by plain" in err


def test_progress_goes_to_stderr(call: Call) -> None:
    """Without a terminal it is plain lines."""
    code, out, err = call("run", "flows:talk", "topic=tea")
    assert code == 0
    assert out == "List three points about tea 3 dry\n"
    assert re.search(r"^talk \w+  outline #0  done in", err, re.MULTILINE)


def test_the_model_can_be_chosen(call: Call) -> None:
    """``--model offline`` needs no key."""
    code, out, _ = call("run", "flows:answer", "question=Why?", "--model", "offline", "-q")
    assert code == 0
    assert out.startswith("[offline]")


def test_offline_replaces_the_models_of_workflows_below(call: Call, project: Path) -> None:
    """``--model offline`` sends nothing, whatever model a child run names."""
    child = 'named = workflow(model="nobody:m")(lambda question: ask(question))\n'
    text = (
        "from flows import ask, workflow\n"
        + child
        + "@workflow\ndef outer(question: str) -> str:\n    return named(question)\n"
    )
    (project / "pinned.py").write_text(text)
    code, out, err = call("run", "pinned:outer", "question=Why?", "--model", "offline", "-q")
    assert (code, err) == (0, "")
    assert out.startswith("[offline]")


def test_a_module_in_a_package_is_found_by_its_path(call: Call, project: Path) -> None:
    """It is imported under its full name, so that its relative imports work."""
    package = project / "pack"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text("def shout(text: str) -> str:\n    return text.upper()\n")
    (package / "inner.py").write_text("from .parts import shout\n")
    assert call("run", "pack/inner.py:shout", "text=a", "-q")[:2] == (0, "A\n")


# --- inputs ---------------------------------------------------------------------------------------


def test_inputs_come_from_a_file_of_json(call: Call, project: Path) -> None:
    """A word on the command line wins over the file."""
    (project / "in.json").write_text('{"topic": "tea", "count": 7}')
    code, out, _ = call("run", "flows:talk", "--input", "in.json", "count=8", "-q")
    assert (code, out) == (0, "List three points about tea 8 dry\n")


def test_inputs_come_from_standard_input(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is standard input; JSON is read strictly."""
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"topic": "tea", "count": "7"}'))
    code, _, err = call("run", "flows:talk", "--input", "-")
    assert code == 2
    assert 'count: expected a whole number, found "7"' in err


def test_all_faults_of_inputs_are_told_with_the_signature(call: Call) -> None:
    """One message has the signature, every fault and the nearest right name."""
    code, out, err = call("run", "flows:talk", "topik=tea", "count=many", "style=cold", "x", "count=2")
    assert (code, out) == (2, "")
    signature = "talk(topic: str, count: int = 3, style: Literal['dry', 'warm'] = 'dry') -> str"
    assert err.splitlines() == [
        f"flowlet: {signature} can't take these inputs:",
        "  'x': expected name=value",
        "  count: given twice",
        "  topik: there is no such input, did you mean topic?",
        '  count: expected a whole number, found "many"',
        '  style: expected "dry" or "warm", found "cold"',
        "  topic: missing; write topic=…",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "--input: in.json has to be a JSON object of inputs"),
        ("{", "--input: in.json is no JSON"),
        (None, "--input in.json: No such file or directory"),
    ],
)
def test_a_bad_input_file_is_told(call: Call, project: Path, text: str | None, told: str) -> None:
    """It names the file and what was expected."""
    if text is not None:
        (project / "in.json").write_text(text)
    code, _, err = call("run", "flows:talk", "--input", "in.json")
    assert code == 2
    assert told in err


def test_raw_json_is_checked(call: Call) -> None:
    """``:=`` takes JSON and nothing else."""
    code, _, err = call("run", "flows:talk", "topic:=tea", "count:=1.5")
    assert code == 2
    assert "topic: expected JSON after :=" in err
    assert "count: expected a whole number, found 1.5" in err


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("flows", "'flows' does not say what to run; write flows:talk or flows:atalk or flows:answer"),
        ("flows.py", "write flows.py:talk or"),
        ("flows:", "write flows:talk or"),
        ("flwos:talk", "there is no module 'flwos'; did you mean flows?"),
        ("flwos.py:talk", "there is no file flwos.py; did you mean flows.py?"),
        ("nothere:talk", "there is no module 'nothere'; looked in"),
        ("os.nothere:talk", "there is no module 'os.nothere'"),
        ("flows:tlak", "there is no 'tlak' in flows; did you mean flows:talk?\n  it has: talk, atalk"),
        ("flows:Tool", "flows:Tool is no function but a class\n  it has: talk"),
        ("flows:NUMBER", "flows:NUMBER is no function but a value of type int"),
        ("empty.py:x", "there is no 'x' in empty.py\n  it has no workflow, step or function"),
        ("json.py:x", "the name 'json' is taken by"),
        ("sys.py:x", "the name 'sys' is taken by built into Python"),
        ("flows.v2:talk", "there is no module 'flows.v2'; did you mean flows.v2.py?"),
        ("broken.v2.py:x", "broken.v2.py can't be imported: ZeroDivisionError"),
    ],
)
def test_a_wrong_target_is_told_with_what_there_is(call: Call, project: Path, target: str, told: str) -> None:
    """The message has the nearest right name, or all of them."""
    (project / "empty.py").touch()
    for name in ("json.py", "sys.py", "flows.v2.py"):
        (project / name).touch()
    (project / "broken.v2.py").write_text("1 / 0")
    code, out, err = call("run", target)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def x(:\n", "bad.py can't be imported: SyntaxError: invalid syntax (bad.py, line 1)"),
        ("import sys\nsys.exit(7)\n", "bad.py can't be imported: SystemExit: 7\n  bad.py:2, in <module>"),
        ("import nothere\n", "No module named 'nothere'\n  bad.py:1, in <module>\n      import nothere"),
        (
            "from flowlet import step\n@step\ndef s():\n    yield\n",
            "bad.py can't be imported: @step s is a generator function",
        ),
    ],
)
def test_a_module_that_fails_is_told_with_its_line(call: Call, project: Path, source: str, told: str) -> None:
    """It is the user's module, so it is the user's line."""
    (project / "bad.py").write_text(source)
    code, _, err = call("run", "bad.py:x")
    assert code == 2
    assert told in err
    assert "Traceback" not in err


# --- failures -------------------------------------------------------------------------------------


def test_a_failing_step_is_told_with_the_lines_of_the_user(call: Call) -> None:
    """The step, the exception and the last frames of the user's own code; no frame of the library."""
    code, out, err = call("run", "flows:broken", "name=x", "-q")
    lines = FLOWS.splitlines()
    outer, inner = lines.index("    return look({}, name)") + 1, lines.index("    return pages[name]") + 1
    assert (code, out) == (1, "")
    assert re.sub(r"run \w{16}", "run ID", err).splitlines() == [
        "flowlet: step 'look' failed: KeyError: 'x'",
        "  in step 'look' of workflow 'broken' (run ID)",
        f"  flows.py:{outer}, in broken",
        "      return look({}, name)",
        f"  flows.py:{inner}, in look",
        "      return pages[name]",
        "  (--traceback shows the whole traceback)",
    ]


def test_the_whole_traceback_is_shown_on_request(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """By --traceback or FLOWLET_DEBUG."""
    assert "Traceback (most recent" in call("run", "flows:broken", "name=x", "-q", "--traceback")[2]
    monkeypatch.setenv("FLOWLET_DEBUG", "1")
    assert "Traceback (most recent" in call("run", "flows:broken", "name=x", "-q")[2]


def test_a_failure_is_part_of_the_json(call: Call) -> None:
    """With its type, its step and the metrics until then."""
    code, out, err = call("run", "flows:broken", "name=x", "-q", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["error"] == {
        "type": "KeyError",
        "message": "'x'",
        "step": "look",
        "path": ["look"],
        "attempt": 1,
    }
    assert [step["state"] for step in found["metrics"]["steps"]] == ["failed"]
    assert err.startswith("flowlet: step 'look' failed")


def test_causes_are_told_and_texts_are_made_harmless(call: Call) -> None:
    """Secrets are redacted, and control characters do not reach the terminal."""
    code, _, err = call("run", "flows:chained", "name=x", "-q")
    assert code == 1
    assert "flowlet: LookupError: not\\x1b[31m here: [redacted]\n" in err
    assert "caused by KeyError: 'x'" in err


def test_every_exception_of_a_group_is_told(call: Call) -> None:
    """A group by itself says only how many there are."""
    code, _, err = call("run", "flows:group", "-q")
    assert code == 1
    assert "  - OSError: one" in err
    assert "  - OSError: two" in err


def test_an_input_error_within_a_run_is_a_failure(call: Call) -> None:
    """It is the workflow that is wrong, at this line, and not the command line."""
    code, _, err = call("run", "flows:misuse", "-q")
    assert code == 1
    assert "topic: expected text, found 5" in err
    assert "in misuse\n      return talk(5)" in err
    assert "--traceback" not in err


def test_without_a_provider_it_says_what_to_set(call: Call) -> None:
    """A setting is missing: exit code 2, whenever it turns out."""
    code, _, err = call("run", "flows:answer", "question=Why?", "-q")
    assert code == 2
    assert "set OPENAI_API_KEY=sk-..." in err
    assert "Traceback" not in err


@pytest.mark.parametrize("target", ["flows:slow", "flows:nap"])
def test_a_timeout_has_its_own_code(call: Call, target: str) -> None:
    """``--timeout`` limits the whole run, of a workflow as of a step."""
    code, out, err = call("run", target, "seconds=30", "--timeout", "0.05", "--json", "-q")
    assert code == 124
    assert json.loads(out)["metrics"]["state"] == "timeout"
    assert "did not finish within its timeout of 0.05 s" in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--timeout", "-3"], "timeout=-3.0 is not a positive number of seconds"),
        (["--timeout", "soon"], "--timeout"),
        (["--backend", "tri"], 'Did you mean "trio"?'),
        (["--topic", "tea"], "inputs of the workflow are written without dashes: name=value"),
        (["--log", "--quiet"], "expected a file, or - alone"),
    ],
)
def test_a_wrong_option_is_told(call: Call, options: list[str], told: str) -> None:
    """Nothing runs."""
    code, out, err = call("run", "flows:talk", "topic=tea", *options)
    assert (code, out) == (2, "")
    assert told in err


def test_wrong_settings_are_told_before_anything_runs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON, too."""
    monkeypatch.setenv("FLOWLET_GRACE", "soon")
    code, out, err = call("run", "flows:talk", "topic=tea", "--json")
    assert code == 2
    assert json.loads(out)["error"]["type"] == "ConfigError"
    assert "FLOWLET_GRACE: expected a number of seconds" in err


@pytest.mark.parametrize("argv", [["rum"], ["list"], ["run"], ["usage", "--jsn"], ["list", "flows", "--jsn"]])
def test_a_wrong_command_line_says_where_help_is(call: Call, argv: list[str]) -> None:
    """With exit code 2."""
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert "--help tells the options" in err


# --- log and report -------------------------------------------------------------------------------


def test_a_run_leaves_a_log_and_a_report(call: Call, project: Path) -> None:
    """The log has a JSON object a line, model calls included; the report is a page."""
    argv = ("run", "flows:answer", "question=Why?", "--model", "offline", "-q")
    assert call(*argv, "--log", "run.log", "--report", "run.html")[0] == 0
    events = [json.loads(line)["event"] for line in (project / "run.log").read_text().splitlines()]
    assert events[0] == "run_started"
    assert "model_called" in events
    assert "answer" in (project / "run.html").read_text()


def test_a_log_that_can_not_be_written_is_told(call: Call, project: Path) -> None:
    """Before anything runs."""
    code, out, err = call("run", "flows:talk", "topic=tea", "--log", str(project))
    assert (code, out) == (2, "")
    assert "--log" in err


def test_a_report_that_can_not_be_written_does_not_lose_the_result(call: Call, project: Path) -> None:
    """The run was good, and stderr says what is missing."""
    code, out, err = call("run", "flows:talk", "topic=tea", "-q", "--report", "no/such/run.html")
    assert (code, out) == (0, "List three points about tea 3 dry\n")
    assert "no report was written" in err


# --- flowlet list ---------------------------------------------------------------------------------


def test_list_tells_signatures_and_first_lines(call: Call) -> None:
    """Workflows come first; plain functions are not listed beside them."""
    code, out, _ = call("list", "flows.py")
    lines = out.splitlines()
    assert code == 0
    assert lines[:3] == [
        "workflow  talk(topic: str, count: int = 3, style: Literal['dry', 'warm'] = 'dry') -> str",
        "              Prepare a talk.",
        "workflow  async atalk(topic: str) -> list[Note]",
    ]
    assert "step      ask(question: str, llm: LLM = LLM(…)) -> str" in lines
    assert "plain" not in out


def test_list_writes_hints_that_are_objects_without_their_modules(call: Call, project: Path) -> None:
    """As they stand in the source, whether its annotations are kept as text or not."""
    (project / "plain.py").write_text(
        "from collections.abc import Iterable\nfrom typing import Literal\nimport flows\n\n\n"
        "@flows.step\ndef ask(llm: flows.LLM, notes: Iterable[flows.Note] | None, pages: tuple[int, ...] = (),\n"
        "        kind: Literal['a.b'] = 'a.b') -> dict[str, flows.Note]: ...\n"
    )
    _, out, _ = call("list", "plain.py")
    assert out.splitlines()[0] == (
        "step  ask(llm: LLM, notes: Iterable[Note] | None, pages: tuple[int, ...] = (), "
        "kind: Literal['a.b'] = 'a.b') -> dict[str, Note]"
    )


def test_list_as_json(call: Call) -> None:
    """A program finds what it needs for a call."""
    code, out, _ = call("list", "flows", "--json")
    first = json.loads(out)["functions"][0]
    assert code == 0
    assert (first["name"], first["kind"], first["async"], first["doc"]) == (
        "talk",
        "workflow",
        False,
        "Prepare a talk.",
    )
    assert first["inputs"][:2] == [
        {"name": "topic", "type": "str", "required": True},
        {"name": "count", "type": "int", "required": False},
    ]


def test_list_of_an_empty_module(call: Call, project: Path) -> None:
    """It says so."""
    (project / "empty.py").touch()
    assert call("list", "empty") == (0, "empty has no workflow, step or function\n", "")


def test_list_of_a_wrong_module_as_json(call: Call) -> None:
    """The error is JSON on stdout, and told on stderr."""
    code, out, err = call("list", "flwos", "--json")
    assert code == 2
    assert json.loads(out)["error"]["message"] == "there is no module 'flwos'; did you mean flows?"
    assert "did you mean flows?" in err


# --- flowlet usage --------------------------------------------------------------------------------


def written(call: Call, project: Path) -> tuple[str, str]:
    """The log and the JSON result of one run with one model call."""
    argv = ("run", "flows:answer", "question=Why?", "--model", "offline", "-q", "--json", "--log", "run.log")
    (project / "result.json").write_text(call(*argv)[1])
    return "run.log", "result.json"


@pytest.mark.parametrize(("by", "name"), [("model", "offline"), ("workflow", "answer"), ("step", "ask")])
def test_logs_and_results_tell_the_same_usage(call: Call, project: Path, by: str, name: str) -> None:
    """By model, workflow or step; a line that is no JSON is passed over."""
    log, result = written(call, project)
    (project / log).write_text("Starting up\n" + (project / log).read_text() + '{"event": "cut o')
    by_log, by_result = (json.loads(call("usage", f, "--by", by, "--json")[1]) for f in (log, result))
    costs = [Decimal(found["total"].pop("cost")) for found in (by_log, by_result)]
    assert costs[0] == costs[1]
    assert by_log["total"] == by_result["total"]
    assert by_log["usage"][name]["calls"] == by_result["usage"][name]["calls"] == 1
    assert by_log["total"]["total_tokens"] > 0


def test_usage_counts_child_runs(call: Call, project: Path) -> None:
    """The metrics of a run hold those of its child runs."""
    out = call("run", "flows:both", "question=Why?", "--model", "offline", "-q", "--json")[1]
    (project / "result.json").write_text(out)
    found = json.loads(call("usage", "result.json", "--by", "workflow", "--json")[1])
    assert {name: one["calls"] for name, one in found["usage"].items()} == {"both": 1, "answer": 1}


def test_usage_is_a_table_for_people(call: Call, project: Path) -> None:
    """Several files are summed up."""
    code, out, _ = call("usage", *written(call, project))
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["model", "calls", "failed"],
        ["offline", "2", "0"],
        ["total", "2", "0"],
    ]


def test_usage_reads_standard_input(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` takes the result of a run before it in a pipe."""
    _, result = written(call, project)
    monkeypatch.setattr(sys, "stdin", io.StringIO((project / result).read_text()))
    assert json.loads(call("usage", "-", "--json")[1])["total"]["calls"] == 1


def test_unknown_tokens_are_no_zeros(call: Call, project: Path) -> None:
    """A call whose tokens nobody told shows as ``?``, in sum with others as ``+``."""
    line = {
        "event": "model_called",
        "model": "m",
        "provider": "p",
        "state": "completed",
        "total_tokens": None,
    }
    known = line | {"model": "n", "total_tokens": 5, "prompt_tokens": 5, "cost": 0.25}
    (project / "run.log").write_text(f"{json.dumps(line)}\n{json.dumps(known)}\n")
    rows = [row.split() for row in call("usage", "run.log")[1].splitlines()]
    assert rows[1:] == [
        ["n", "1", "0", "5", "$0.25"],
        ["m", "1", "0", "?", "?"],
        ["total", "2", "0", "5+", "$0.25+"],
    ]


def test_usage_says_what_it_needs(call: Call, project: Path) -> None:
    """Nothing is summed up silently: no file, no log, a log without model calls."""
    (project / "run.log").write_text('{"event": "run_started"}\n{"event": "run_finished"}\n')
    assert "name a log or a JSON result" in call("usage")[2]
    assert "neither a log in JSON nor a result" in call("usage", "flows.py")[2]
    assert "nothere: No such file" in call("usage", "nothere")[2]
    assert "logged at the level DEBUG" in call("usage", "run.log")[2]


def test_usage_reads_the_log_of_the_settings(call: Call, project: Path) -> None:
    """Where they name one, no argument is needed."""
    written(call, project)
    (project / "flowlet.yaml").write_text("log: {file: run.log, level: DEBUG}\n")
    flowlet.settings.process.reset()
    assert json.loads(call("usage", "--json")[1])["total"]["calls"] == 1


# --- flowlet check --------------------------------------------------------------------------------


def test_check_tells_what_holds_and_from_where(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, environment and defaults."""
    (project / "flowlet.yaml").write_text("model: offline\ngrace: 5\n")
    monkeypatch.setenv("FLOWLET_GRACE", "3")
    code, out, _ = call("check")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert rows[0][0] == "ok:"
    assert ["model", "offline", "flowlet.yaml"] in rows
    assert ["grace", "3", "FLOWLET_GRACE"] in rows
    assert ["attempts", "3", "default"] in rows
    assert "note:" not in out


def test_check_as_json(call: Call) -> None:
    """With notes about what is no fault and yet often forgotten: no file, no key."""
    code, out, _ = call("check", "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (0, True)
    assert {"name": "attempts", "value": 3, "from": "default"} in found["settings"]
    assert "no flowlet.yaml" in found["notes"][0]
    assert "no model provider is configured" in found["notes"][1]


def test_check_tells_all_faults(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the file with their line, those of the environment with their name."""
    (project / "flowlet.yaml").write_text("modle: offline\n")
    monkeypatch.setenv("FLOWLET_GRACE", "soon")
    code, out, err = call("check", "--json")
    assert code == 2
    assert "flowlet.yaml:1:1" in err
    assert "FLOWLET_GRACE" in err
    assert len(json.loads(out)["error"]["faults"]) == 2


# --- flowlet init ---------------------------------------------------------------------------------


def test_init_makes_a_project_that_works(call: Call, project: Path) -> None:
    """Its test passes, and its workflow runs without key or network."""
    assert call("init", "fresh")[0] == 0
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tested = subprocess.run(tests, cwd="fresh", capture_output=True, text=True, check=False)
    ran = process("run", "flows.py:talk", "topic=tea", "-q", cwd=project / "fresh")
    out, err = ran.communicate(timeout=PATIENCE)
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
    assert (ran.returncode, err) == (0, "")
    assert out.startswith("[offline]")


def test_init_overwrites_nothing(call: Call, project: Path) -> None:
    """One file in the way, and nothing is written."""
    code, _, err = call("init")
    assert code == 2
    assert "has flows.py already" in err
    assert sorted(path.name for path in project.iterdir()) == ["flows.py"]
    assert (project / "flows.py").read_text() == FLOWS


def test_init_says_what_it_made(call: Call, project: Path) -> None:
    """And, as JSON, where."""
    found = json.loads(call("init", "a/b", "--json")[1])
    assert found["files"] == [str(Path("a/b", n)) for n in ("flows.py", "flowlet.yaml", "test_flows.py")]
    assert call("init", "flows.py")[0] == 2


# --- processes ------------------------------------------------------------------------------------


def process(*argv: str, cwd: Path | None = None) -> "subprocess.Popen[str]":
    """Start ``python -m flowlet`` in a process of its own."""
    command = [sys.executable, "-m", "flowlet", *argv]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_help_tells_commands_and_exit_codes() -> None:
    """``python -m flowlet --help`` works as ``flowlet --help`` does."""
    ran = process("--help")
    out, err = ran.communicate(timeout=PATIENCE)
    assert (ran.returncode, err) == (0, "")
    assert all(word in out for word in ("run", "list", "usage", "check", "init", "124", "130"))


def test_help_needs_no_engine() -> None:
    """What is not needed is not imported, so that it comes quickly."""
    code = (
        "import sys; from flowlet.cli import main; main(['--help']);"
        "assert not [n for n in ('anyio', 'flowlet.context', 'flowlet.events') if n in sys.modules]"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_plain_run_loads_only_what_it_needs(project: Path) -> None:
    """Models, budgets, prices, journals, YAML, rules of settings: imported by the runs that have them."""
    (project / "plain.py").write_text(PLAIN)
    code = (
        "import sys; from flowlet.cli import main; main(['run', 'plain.py:one', 'x=1']);"
        f"print(*(n for n in sys.modules if n.startswith({UNNEEDED!r})))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout == "2\n\n", ran.stderr


PLAIN = """
from flowlet import step, workflow

@step
def inc(x: int) -> int:
    return x + 1

@workflow
def one(x: int) -> int:
    return inc(x)
"""
UNNEEDED = (
    *("asyncio", "genai_prices", "loguru", "openai", "rich", "ruamel", "stamina", "traceback", "trio"),
    *("typing_extensions", "flowlet.llm", "flowlet.messages", "flowlet.entries", "flowlet.pricing"),
    *("flowlet.declarative", "flowlet.journals", "flowlet.pii", "flowlet.plugins", "flowlet._plugins"),
    *("flowlet._sections", "flowlet._settings_rules", "flowlet._schema", "flowlet._yaml"),
    *("flowlet._engine._attempts", "flowlet._engine._budget", "flowlet._engine._models"),
)


def test_the_version_is_that_of_the_package() -> None:
    """``flowlet --version``."""
    out, _ = process("--version").communicate(timeout=PATIENCE)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", out)


unix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as Unix has them")


def begun(target: str, word: str, *options: str) -> "subprocess.Popen[str]":
    """A run of *target* that has written *word*."""
    ran = process("run", target, "-q", *options)
    stream = ran.stderr if "--json" in options else ran.stdout
    assert stream is not None
    assert stream.readline() == f"{word}\n"
    return ran


def cancelled(ran: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Send a signal, and wait until the run says that it heard it."""
    ran.send_signal(number)
    assert ran.stderr is not None
    assert "flowlet: cancelling" in ran.stderr.readline()


@unix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_run(number: signal.Signals, code: int) -> None:
    """It says so, keeps the metrics, and ends without waiting for a step that only sleeps."""
    ran = begun("flows:slow", "napping", "--json")
    cancelled(ran, number)
    out, err = ran.communicate(timeout=PATIENCE)
    assert ran.returncode == code
    assert json.loads(out)["metrics"]["state"] == "cancelled"
    assert "workflow 'slow' was cancelled" in err


@unix
def test_a_model_call_in_flight_may_finish(project: Path) -> None:
    """After Ctrl-C its answer is awaited and booked."""
    ran = begun("flows:wait_for_model", "asked", "--json")
    cancelled(ran, signal.SIGINT)
    (project / "answer").touch()
    out, _ = ran.communicate(timeout=PATIENCE)
    assert ran.returncode == 130
    assert json.loads(out)["metrics"]["usage"]["total_tokens"] == 7


@unix
def test_a_second_signal_ends_at_once() -> None:
    """It does not wait for the model."""
    ran = begun("flows:wait_for_model", "asked")
    cancelled(ran, signal.SIGINT)
    ran.send_signal(signal.SIGINT)
    _, err = ran.communicate(timeout=PATIENCE)
    assert ran.returncode == 130
    assert err == "flowlet: ended at once\n"


@unix
@pytest.mark.parametrize("argv", [("list", "flows"), ("run", "flows:talk", "topic=tea", "-q")])
def test_a_closed_pipe_is_quiet(argv: tuple[str, ...]) -> None:
    """As in ``flowlet list flows | head -1``: the exit code is that of SIGPIPE."""
    ran = process(*argv)
    for_nobody: Any = ran.stdout
    for_nobody.close()
    ran.stdout = None
    _, err = ran.communicate(timeout=PATIENCE)
    assert (ran.returncode, err) == (141, "")


# --- recordings -----------------------------------------------------------------------------------


def test_a_run_is_recorded_and_replayed(call: Call, project: Path) -> None:
    """What was recorded once is answered again; what was not is told, with the difference."""
    argv = ("run", "flows:answer", "question=Why?", "--model", "offline", "-q")
    code, first, _ = call(*argv, "--record", "talk.json")
    assert code == 0
    text = (project / "talk.json").read_text()
    (project / "talk.json").write_text(text.replace("[offline]", "[recorded]"))
    assert call(*argv, "--replay", "talk.json") == (0, first.replace("[offline]", "[recorded]"), "")
    code, out, err = call(
        "run", "flows:answer", "question=How?", "--model", "offline", "--replay", "talk.json"
    )
    assert (code, out) == (1, "")
    assert '+      "content": "How?"' in err


def test_a_replay_without_a_file_is_told(call: Call) -> None:
    """Before anything runs; nor can it be recorded at the same time."""
    code, _, err = call("run", "flows:answer", "question=Why?", "--replay", "none.json")
    assert (code, "--replay none.json: there is no such file" in err) == (2, True)
    code, _, err = call("run", "flows:answer", "question=Why?", "--replay", "a", "--record", "b")
    assert (code, "can't be given together" in err) == (2, True)


def test_calls_that_a_replay_did_not_use_are_told(call: Call) -> None:
    """In a line on stderr; the result stands."""
    call("run", "flows:both", "question=Why?", "--model", "offline", "-q", "--record", "talk.json")
    argv = ("run", "flows:answer", "question=Why?", "--model", "offline", "-q", "--replay", "talk.json")
    code, out, err = call(*argv)
    assert code == 0
    assert "Why?" in out
    assert err == "flowlet: recorded calls of talk.json that were not used: 1\n"


def test_a_recording_that_can_not_be_written_does_not_lose_the_result(call: Call, project: Path) -> None:
    """It is told, and the result stands."""
    argv = ("run", "flows:answer", "question=Why?", "--model", "offline", "-q", "--record", str(project))
    code, out, err = call(*argv)
    assert code == 0
    assert "Why?" in out
    assert "can't be written" in err
