"""The commands about recorded runs, in this process, and one that is killed for real."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve

from flowlet import rewind
from flowlet.cli import main
from flowlet.entries import Entry
from flowlet.journals import SQLiteJournal

FLOWS = """\
import os
import signal
from pathlib import Path

from flowlet import LLM, step, workflow


@step
def outline(topic: str) -> str:
    with Path("ran.txt").open("a") as ran:
        ran.write("outline\\n")
    return f"About {topic}"


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    answer = llm.ask(question)
    with Path("ran.txt").open("a") as ran:
        ran.write("ask\\n")
    if Path("kill").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if Path("interrupt").exists():
        os.kill(os.getpid(), signal.SIGINT)
    if Path("fail").exists():
        raise ValueError("no")
    return answer


@workflow
def talk(topic: str) -> str:
    return ask(outline(topic))


@workflow
def series() -> list[str]:
    return [talk("tea"), talk("milk")]
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with workflows and a journal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("journalled_flows", None)
    monkeypatch.setenv("FLOWLET_JOURNAL", "runs.db")
    monkeypatch.setenv("FLOWLET_MODEL", "offline")
    (tmp_path / "journalled_flows.py").write_text(FLOWS)
    return tmp_path


def run_it(*words: str) -> int:
    return main(["run", "journalled_flows.py:talk", "topic=tea", "-q", *words])


def ran() -> list[str]:
    """What ran since the last look."""
    file = Path("ran.txt")
    found = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def test_a_killed_run_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    """In another process, without what has finished, and without asking the model again."""
    Path("kill").touch()
    command = [
        sys.executable,
        "-m",
        "flowlet",
        "run",
        "journalled_flows.py:talk",
        "topic=tea",
        "--run-id",
        "r",
        "-q",
    ]
    killed = subprocess.run(command, env=dict(os.environ), timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert ran() == ["outline", "ask"]
    assert main(["runs"]) == 0
    assert "killed" in capsys.readouterr().out
    Path("kill").unlink()
    assert main(["resume", "--all", "-q", "--json"]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["run_id"] == "r"
    assert "offline" in outcome["result"]
    assert [call["replayed"] for call in outcome["metrics"]["calls"]] == [True]
    assert ran() == ["ask"]
    assert main(["resume", "--all"]) == 0
    assert f"no run was killed in {Path(os.environ['FLOWLET_JOURNAL']).resolve()}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs"], "no such runs"),
        (["resume", "--all"], "no run was killed"),
        (["prune", "--older-than", "1d"], "0 runs dropped"),
    ],
)
def test_a_journal_that_is_not_there_is_named(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its whole path, since a relative one is another file in another directory."""
    monkeypatch.setenv("FLOWLET_JOURNAL", "elsewhere.db")
    assert main(words) == 0
    assert capsys.readouterr().out == f"{told}: there is no file {Path('elsewhere.db').resolve()}\n"


def test_an_execution_may_have_a_timeout_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """When it is resumed, and when it is run again from a step on; its exit code is that of a timeout."""
    killed("one")
    assert main(["resume", "one", "-q", "--timeout", "-1"]) == 2
    assert "timeout=-1.0 is not a positive number" in capsys.readouterr().err
    assert main(["resume", "one", "-q", "--timeout", "0.000001"]) == 124
    assert main(["resume", "one", "-q", "--timeout", "60"]) == 0
    assert main(["rerun", "one", "--from", "ask", "-q", "--timeout", "0.000001"]) == 124


def killed(*names: str) -> SQLiteJournal:
    """Begin runs that nobody goes on with; the last is listed, and resumed, first."""
    run_it("--run-id", "model")
    journal = SQLiteJournal(os.environ["FLOWLET_JOURNAL"])
    begun = journal.read("model")[0]
    journal.append([evolve(begun, run_id=name) for name in names])
    ran()
    return journal


@pytest.mark.parametrize("file", ["app/__main__.py", "flows.v2.py"])
def test_a_run_of_a_script_is_resumed_that_no_import_can_name(
    file: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where what resumes it is a script without a file."""
    script = project / file
    script.parent.mkdir(exist_ok=True)
    script.write_text(FLOWS + 'if __name__ == "__main__":\n    with_options(talk, run_id="r")("tea")\n')
    script.write_text(script.read_text().replace("import LLM,", "import LLM, with_options,"))
    Path("fail").touch()
    python = [sys.executable, script.parent if script.name == "__main__.py" else script]
    assert b"ValueError: no" in subprocess.run(python, capture_output=True, check=False).stderr
    Path("fail").unlink()
    ran()
    resuming = [sys.executable, "-c", "import flowlet; print(flowlet.resume('r'))"]
    found = subprocess.run(resuming, capture_output=True, text=True, check=True).stdout
    assert "About tea" in found
    assert main(["resume", "r", "-q"]) == 0
    assert capsys.readouterr().out == found
    assert ran() == ["ask"]


def test_a_run_that_cant_be_resumed_keeps_no_other_back(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told, and the code is that of a refusal; as JSON each is named."""
    journal = killed("one")
    journal.append([evolve(journal.read("one")[0], run_id="two", inputs='{"subject": "tea"}')])
    killed("three")
    capsys.readouterr()
    assert main(["resume", "--all", "-q", "--json"]) == 2
    out, err = capsys.readouterr()
    found = {one["run_id"]: one["error"] and one["error"]["type"] for one in json.loads(out)}
    assert found == {"one": None, "two": "InputError", "three": None}
    assert "can't take the recorded arguments" in err


def test_ctrl_c_begins_no_other_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are left are named."""
    killed("one", "two", "three")
    Path("interrupt").touch()
    capsys.readouterr()
    assert main(["resume", "--all", "-q", "--json"]) == 130
    out, err = capsys.readouterr()
    assert [one["run_id"] for one in json.loads(out)] == ["three"]
    assert "flowlet: not resumed: two, one" in err


def test_another_workflow_of_the_same_name_is_not_resumed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As long as the one that ran is there; the one that is meant can be named."""
    Path("fail").touch()
    assert main(["run", "journalled_flows:talk", "topic=tea", "--run-id", "r", "-q"]) == 1
    journal = str(Path("runs.db").resolve())
    (project / "other").mkdir()
    monkeypatch.chdir("other")
    Path("journalled_flows.py").write_text(FLOWS.replace("About", "Of"))
    sys.modules.pop("journalled_flows")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(project)])
    capsys.readouterr()
    assert main(["resume", "r", "-q", "--journal", journal]) == 2
    told = capsys.readouterr().err
    assert f"is in {project}/journalled_flows.py, and here journalled_flows:talk is in {Path.cwd()}" in told
    assert "flowlet run journalled_flows:talk --run-id r" in told
    (project / "journalled_flows.py").unlink()
    assert main(["resume", "r", "-q", "--journal", journal, "--changed-code", "reuse"]) == 0


def test_a_failed_run_is_shown_and_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    """With its inputs, results, answers and errors."""
    Path("fail").touch()
    assert run_it("--run-id", "r") == 1
    capsys.readouterr()
    assert main(["show", "r"]) == 0
    shown = capsys.readouterr().out
    for part in (
        'inputs  topic="tea"',
        "outline: completed",
        '→ "About tea"',
        "offline:offline: completed",
        " tokens\n",
        "✗ ValueError: no",
    ):
        assert part in shown
    Path("fail").unlink()
    ran()
    assert main(["resume", "r", "-q"]) == 0
    assert ran() == ["ask"]
    assert main(["show", "r", "--json"]) == 0
    out = capsys.readouterr().out
    data = json.loads(out[out.index("{") :])
    assert (data["state"], data["usage"]["calls"]) == ("completed", 1)


def test_what_a_call_has_made_is_shown_before_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one that was killed, and of one that is open again."""
    run_series = ["run", "journalled_flows.py:series", "--run-id", "r", "-q"]
    Path("kill").touch()
    subprocess.run([sys.executable, "-m", "flowlet", *run_series], env=dict(os.environ), timeout=60)
    Path("kill").unlink()
    assert main(["show", "r"]) == 0
    out = capsys.readouterr().out
    assert "  a call: has not ended\n      outline: completed" in out
    assert "  a call: has not ended\n      offline:offline: completed" in out
    assert main(["resume", "r", "-q"]) == 0
    rewind("r", "ask")
    capsys.readouterr()
    assert main(["show", "r"]) == 0
    assert "  talk: has not ended\n      outline: completed" in capsys.readouterr().out


def test_each_argument_of_a_step_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Also behind a long one, or where what is recorded was cut off; in the letters that it has."""
    journal, long = SQLiteJournal(os.environ["FLOWLET_JOURNAL"]), '{"llm":{"model":"' + "x" * 80 + '"},'
    inputs = {"whole": '"text":"caf\\u00e9"}', "cut": '"text":"tea and mil…', "named": '"te…', "none": "…"}
    calls = [Entry("r", k, "step", k, "completed", inputs=long + text) for k, text in inputs.items()]
    journal.append([Entry("r", "", "run", "talk", "running", inputs='{"topic":[1]}'), *calls])
    assert main(["show", "r"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  inputs  topic=[1]"
    journal.append([Entry("bare", "", "run", "talk", "running", inputs="{}")])
    assert main(["show", "bare"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    shown = [line.partition("← ")[2] for line in lines if "←" in line]
    model = '{"model":"' + "x" * 61
    half = '{"model":"' + "x" * 25 + "…"
    assert shown[:2] == [f'llm={half}, text="café"', f'llm={half}, text="tea and mil…']
    assert shown[2:] == [f"llm={model}…"] * 2


def test_results_are_shown_in_the_letters_that_they_have(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And with the mark of text from outside."""
    flows = "from flowlet import untrusted\n" + FLOWS.replace(
        'return f"About {topic}"', 'return untrusted("café")'
    )
    (project / "journalled_flows.py").write_text(flows)
    assert run_it("--run-id", "r") == 0
    capsys.readouterr()
    assert main(["show", "r"]) == 0
    assert '→ "⟦untrusted⟧ café"' in capsys.readouterr().out


def test_the_faults_of_a_value_are_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can't be kept is told with its path."""
    flows = FLOWS.replace('return f"About {topic}"', "return [topic]")
    (project / "journalled_flows.py").write_text(flows)
    assert run_it("--run-id", "r") == 1
    capsys.readouterr()
    assert main(["show", "r"]) == 0
    assert "can't be kept; $: expected text, found" in capsys.readouterr().out


def test_rerun_begins_at_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    """And a step that is not there is named with those that are."""
    assert run_it("--run-id", "r") == 0
    ran()
    assert main(["rerun", "r", "--from", "ask", "-q"]) == 0
    assert ran() == ["ask"]
    assert main(["rerun", "r", "--from", "asc", "-q"]) == 2
    assert "it has outline, ask" in capsys.readouterr().err


def test_runs_are_listed_and_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    """As a table and as JSON."""
    run_it("--run-id", "one")
    run_it("--run-id", "two")
    capsys.readouterr()
    assert main(["runs", "--limit", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("two  talk      completed")
    assert main(["runs", "--state", "failed"]) == 0
    path = Path(os.environ["FLOWLET_JOURNAL"]).resolve()
    assert capsys.readouterr().out == f"no such runs in {path}\n"
    assert main(["runs", "--limit", "-1"]) == 2
    assert "--limit" in capsys.readouterr().err
    assert main(["runs", "--workflow", "talk", "--json"]) == 0
    assert [run["run_id"] for run in json.loads(capsys.readouterr().out)] == ["two", "one"]


def test_prune_drops_old_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are old enough."""
    run_it("--run-id", "one")
    capsys.readouterr()
    assert main(["prune", "--older-than", "1h"]) == 0
    assert main(["prune", "--older-than", "0s"]) == 0
    told = f"0 runs dropped in {Path(os.environ['FLOWLET_JOURNAL']).resolve()}\n1 run dropped\n"
    assert capsys.readouterr().out == told
    assert main(["prune", "--older-than", "soon"]) == 2
    assert "write a number and s, m, h, d or w: 30d" in capsys.readouterr().err


def test_killed_runs_are_listed_and_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """And those that are open again."""
    journal = killed("one", "two")
    journal.claim("two")
    run_it("--run-id", "three")
    rewind("three", "ask")
    capsys.readouterr()
    for state, run_id in (("killed", "one"), ("pending", "three")):
        assert main(["runs", "--state", state, "--json"]) == 0
        assert [run["run_id"] for run in json.loads(capsys.readouterr().out)] == [run_id]
        assert main(["prune", "--older-than", "0s", "--state", state, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"dropped": [run_id]}
    journal.release("two")


def test_prune_looks_again_at_what_it_has_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that somebody went on with meanwhile, or executes now, is left; others are dropped."""
    Path("fail").touch()
    for name in ("went on", "executed", "old"):
        run_it("--run-id", name)
    Path("fail").unlink()
    claim, journal = SQLiteJournal.claim, SQLiteJournal(os.environ["FLOWLET_JOURNAL"])

    def late(self: SQLiteJournal, run_id: str) -> str | None:
        if run_id == "went on":
            journal.append([Entry(run_id, "", "run", "talk", "completed", value='"tea"', at=time.time())])
        return "process 1" if run_id == "executed" else claim(self, run_id)

    monkeypatch.setattr(SQLiteJournal, "claim", late)
    assert main(["prune", "--older-than", "0s", "--state", "failed", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index('{\n  "dropped') :]) == {"dropped": ["old"]}
    assert {run.run_id: run.owner for run in journal.runs()} == {"executed": None, "went on": None}


def test_prune_drops_what_has_expired_in_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where no run is old enough."""
    journal = SQLiteJournal(os.environ["FLOWLET_JOURNAL"])
    journal.keep("old", "1", time.time() - 1)
    journal.keep("new", "2", time.time() + 60)
    assert main(["prune", "--older-than", "1d"]) == 0
    assert (journal.kept("old", 0.0), journal.kept("new", 0.0)) == (None, "2")


def test_prune_drops_a_damaged_run_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The others are listed all the same, resumed, and shown; that one is missing is told."""
    run_it("--run-id", "one")
    run_it("--run-id", "two")
    with closing(sqlite3.connect(os.environ["FLOWLET_JOURNAL"])) as db, db:
        db.execute("UPDATE runs SET body = CAST('{}' AS BLOB) WHERE name = CAST('one' AS BLOB)")
    capsys.readouterr()
    assert main(["runs"]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["run", "two"]
    assert "run 'one' is damaged" in err
    assert [main(["show", "one"]), main(["show", "two"]), main(["show", "nope"])] == [2, 0, 2]
    assert "it has two" in capsys.readouterr().err
    assert main(["rerun", "two", "--from", "ask", "-q"]) == 0
    assert [main(["resume", "--all", "-q"]), main(["prune", "--older-than", "1h"])] == [2, 2]
    capsys.readouterr()
    assert main(["prune", "one"]) == 0
    assert capsys.readouterr().out == "dropped: one\n"
    assert main(["runs", "--json"]) == 0
    assert [run["run_id"] for run in json.loads(capsys.readouterr().out)] == ["two"]
    assert main(["prune", "two", "too"]) == 2
    assert "runs.db; none was dropped" in capsys.readouterr().err
    assert main(["prune"]) == 2
    assert main(["prune", "two", "--older-than", "1d"]) == 2


def test_prune_leaves_a_run_that_is_executed(capsys: pytest.CaptureFixture[str]) -> None:
    """Also when it is named."""
    run_it("--run-id", "one")
    journal = SQLiteJournal(os.environ["FLOWLET_JOURNAL"])
    journal.claim("one")
    assert main(["prune", "one"]) == 2
    assert "run 'one' is being executed by this process" in capsys.readouterr().err
    journal.release("one")
    assert main(["prune", "one"]) == 0


def test_rerun_says_what_becomes_of_changed_code(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where that is an error, the run stays as it was."""
    assert run_it("--run-id", "r") == 0
    (project / "journalled_flows.py").write_text(FLOWS.replace("About", "On"))
    sys.modules.pop("journalled_flows", None)
    journal = SQLiteJournal(os.environ["FLOWLET_JOURNAL"])
    before = journal.read("r")
    assert main(["rerun", "r", "--from", "ask", "-q"]) == 2
    assert "the code of step 'outline' has changed" in capsys.readouterr().err
    assert (journal.read("r"), journal.runs()[0].state) == (before, "completed")
    assert main(["rerun", "r", "--from", "ask", "-q", "--changed-code", "rerun"]) == 0
    assert main(["show", "r"]) == 0
    assert "On tea" in capsys.readouterr().out


def test_a_rerun_that_is_refused_late_keeps_what_it_made(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is open from there; to resume it goes on."""
    assert run_it("--run-id", "r") == 0
    flows = FLOWS.replace('f"About {topic}"', '"On tea"')
    flows = flows.replace("return ask(outline(topic))", 'return ask("About tea") + outline(topic)')
    (project / "journalled_flows.py").write_text(flows)
    sys.modules.pop("journalled_flows", None)
    ran()
    assert main(["rerun", "r", "--from", "ask", "-q"]) == 2
    assert "the code of step 'outline' has changed" in capsys.readouterr().err
    assert main(["runs", "--state", "pending", "--json"]) == 0
    assert [run["run_id"] for run in json.loads(capsys.readouterr().out)] == ["r"]
    assert main(["resume", "r", "-q", "--changed-code", "reuse"]) == 0
    assert capsys.readouterr().out.endswith("About tea\n")
    assert ran() == ["ask"]


def test_rerun_of_a_run_that_is_executed_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Who executes it is told."""
    assert run_it("--run-id", "r") == 0
    journal = SQLiteJournal(os.environ["FLOWLET_JOURNAL"])
    before = journal.read("r")
    journal.claim("r")
    assert main(["rerun", "r", "--from", "ask", "-q"]) == 2
    assert "being executed by this process" in capsys.readouterr().err
    journal.release("r")
    assert journal.read("r") == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "nope"], "runs.db; it has none"),
        (["resume"], "name a run to resume"),
        (["resume", "r", "--all"], "name a run to resume"),
        *[
            ([*words, "--journal", "typo.db"], 'Invalid value "typo.db" for --journal. there is no such file')
            for words in (
                ["runs"],
                ["show", "r"],
                ["resume", "--all"],
                ["rerun", "r", "--from", "s"],
                ["prune", "r"],
            )
        ],
    ],
)
def test_mistakes_are_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what to do."""
    assert main(words) == 2
    assert told in capsys.readouterr().err
    assert not Path("typo.db").exists()


def test_without_a_journal_it_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three ways."""
    monkeypatch.delenv("FLOWLET_JOURNAL")
    assert main(["runs"]) == 2
    told = capsys.readouterr().err
    assert all(way in told for way in ("FLOWLET_JOURNAL=runs.db", "journal: runs.db", "--journal runs.db"))
