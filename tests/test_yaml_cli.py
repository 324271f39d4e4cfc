"""The commands on workflows in YAML: run, check, list and graph."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flowlet.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"
BRIEF = """\
inputs: {topic: str, count: {type: int, default: 2}}
steps:
  outline: {prompt: "{count} points on {topic}", returns: "list[str]"}
  title: {prompt: "Title", when: count > 1, else: ""}
  end: {for_each: "{outline}", use: "yaml_steps:twice", with: {text: "{item}{title}"}, needs: title}
output: {title: {title}, parts: {end}}
"""
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command beside ``brief.yaml``: its code, what it wrote, and what it told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWLET_MODEL", "offline")
    (tmp_path / "brief.yaml").write_text(BRIEF, encoding="utf-8")

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        return (code, *capsys.readouterr())

    return call


def test_run_reads_inputs_by_the_types_of_the_file(call: Call) -> None:
    """And writes the result as JSON."""
    code, out, err = call("run", "brief.yaml", "topic=tea", "count=1")
    assert (code, json.loads(out)["title"]) == (0, "")
    assert "brief" in err
    code, _, err = call("run", "brief.yaml", "topik=tea", "count=x")
    assert code == 2
    assert "topik: there is no such input, did you mean topic?" in err
    assert "count: expected a whole number" in err


def test_run_tells_all_that_is_wrong_in_the_file(call: Call) -> None:
    """Before anything runs."""
    Path("brief.yaml").write_text("steps:\n  a: {promt: x}\n  b: {prompt: '{c}'}\n")
    code, out, err = call("run", "brief.yaml")
    assert (code, out) == (2, "")
    assert "brief.yaml:2:7: promt is no key in steps.a; did you mean prompt?\n" in err
    assert "      2 |   a: {promt: x}\n        |       ^^^^^\n" in err
    assert "brief.yaml:3:16" in err


def test_check_tells_what_is_there(call: Call) -> None:
    """In one line for each file, or as JSON."""
    assert call("check", "brief.yaml") == (
        0,
        "ok: brief.yaml: brief(topic: str, count: int = 2) -> {title: str, parts: list[str]}, 3 steps\n",
        "",
    )
    code, out, _ = call("check", "brief.yaml", "brief.yaml", "--json")
    found = json.loads(out)
    assert (code, found["ok"], [w["name"] for w in found["workflows"]]) == (0, True, ["brief", "brief"])


def test_check_tells_the_faults_of_all_files(call: Call) -> None:
    """At once; with ``--json`` as data."""
    Path("one.yaml").write_text("steps: {a: {prompt: '{x}'}}\n")
    Path("two.yaml").write_text("steps: []\n")
    code, _, err = call("check", "one.yaml", "brief.yaml", "two.yaml")
    assert code == 2
    assert "one.yaml:1:22: there is no input or step 'x'" in err
    assert "two.yaml:1:8: steps: expected" in err
    code, out, _ = call("check", "one.yaml", "--json")
    assert len(json.loads(out)["error"]["faults"]) == 1


def test_check_of_the_settings_stays_what_it_was(call: Call) -> None:
    """Without a file, and for the file of the settings."""
    Path("flowlet.yaml").write_text("grace: 3\n")
    assert "grace" in call("check")[1]
    assert "grace" in call("check", "flowlet.yaml")[1]


def test_list_shows_the_workflow(call: Call) -> None:
    """With its inputs."""
    assert call("list", "brief.yaml")[1].startswith("workflow  async brief(topic: str, count: int = 2)")


def test_graph_shows_the_stages(call: Call) -> None:
    """What runs at once, what each step needs, when and for what."""
    assert call("graph", "brief.yaml")[1].splitlines() == [
        "brief(topic: str, count: int = 2) -> {title: str, parts: list[str]}",
        "",
        "1  outline  prompt            count, topic",
        "   title    prompt            count           when count > 1",
        "2  end      yaml_steps:twice  title, outline  for each",
        "   result                     title, end",
    ]


def test_graph_draws_a_flow_chart(call: Call) -> None:
    """For Mermaid; a step may be called as a word of it."""
    lines = call("graph", "brief.yaml", "--format", "mermaid")[1].splitlines()
    assert lines[0] == "flowchart TD"
    assert '    end_["end: yaml_steps:twice"]' in lines
    assert '    outline -->|"for each"| end_' in lines
    assert '    count -->|"when"| title' in lines
    assert "    end_ --> return" in lines


def test_graph_as_json(call: Call) -> None:
    """Steps with what they need."""
    found = json.loads(call("graph", "brief.yaml", "--json")[1])
    assert found["steps"][2] == {
        "name": "end",
        "calls": "yaml_steps:twice",
        "needs": ["title", "outline"],
        "inputs": [],
        "for_each": True,
        "when": None,
    }
    assert found["output"] == ["title", "end"]


def test_graph_names_a_circle(call: Call) -> None:
    """In place of a drawing."""
    Path("brief.yaml").write_text("steps: {a: {prompt: '{b}'}, b: {prompt: '{a}'}}")
    code, out, err = call("graph", "brief.yaml")
    assert (code, out) == (2, "")
    assert "these steps wait for one another: a → b → a" in err


def test_the_page_shows_the_example(call: Call) -> None:
    """Its text, and what ``flowlet graph`` says of it."""
    page = (EXAMPLES.parent / "docs" / "yaml.md").read_text(encoding="utf-8")
    example = (EXAMPLES / "brief.yaml").read_text(encoding="utf-8").partition("\n")[2]
    assert f"```yaml\n{example}```" in page
    assert f"```text\n{call('graph', str(EXAMPLES / 'brief.yaml'))[1]}```" in page


def test_the_example_runs(call: Call) -> None:
    """As its page says."""
    code, out, _ = call("run", str(EXAMPLES / "brief.yaml"), "topic=tea", "-q")
    assert code == 0
    assert out.startswith("# [offline]")
