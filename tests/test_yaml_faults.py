"""Faults in workflows of YAML: each is told with its place, all at once, and nothing else ever comes of a file."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flowlet import DefinitionError, load_workflow
from flowlet.declarative._format import SCHEMA, schema
from rig import Planted

KEY = "sk-proj-abcdefghijklmnop1234567890"
Fault = Callable[[str | bytes], str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; the path of modules is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return tmp_path


def fault_in(text: str | bytes) -> str:
    """What is said of a ``brief.yaml`` with *text*."""
    Path("brief.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DefinitionError) as caught:
        load_workflow("brief.yaml")
    return str(caught.value)


STEPS = "steps:\n"
TOPIC = "inputs: {topic: str}\nsteps:\n"
PLANTED = [
    Planted(
        "a key with a slip", "setps: {a: {prompt: x}}\n", (":1:1", "setps is no key", "did you mean steps?")
    ),
    Planted(
        "a key of a step with a slip",
        STEPS + "  a:\n    promt: x\n",
        (":3:5", "promt is no key in steps.a", "did you mean prompt?"),
    ),
    Planted(
        "a key as others call it",
        STEPS + "  a: {prompt: x}\n  b: {prompt: x, depends_on: a}\n",
        (":3:18", "depends_on is no key in steps.b; did you mean needs?"),
    ),
    Planted(
        "a key at the wrong level",
        "prompt: hello\n" + STEPS + "  a: {prompt: x}\n",
        (":1:1", "prompt is no key; it belongs in steps, under the name of a step"),
    ),
    Planted("no steps", "name: x\n", (":1:1", "expected steps too")),
    Planted("empty steps", "steps:\n", (":1:1", "steps: expected the name of a step, indented below")),
    Planted(
        "neither prompt nor use", STEPS + "  a: {model: x}\n", (":2:3", "either prompt or use, found neither")
    ),
    Planted(
        "a step of nothing", STEPS + "  a:\n", (":2:3", "a: expected either prompt or use, found neither")
    ),
    Planted(
        "a step that is text", STEPS + "  a: hello\n", (":2:6", "steps.a: expected lines of", 'found "hello"')
    ),
    Planted(
        "an input of nothing",
        "inputs:\n  a:\n" + STEPS + "  b: {prompt: x}\n",
        ("inputs.a: expected type too",),
    ),
    Planted(
        "both prompt and use",
        STEPS + "  a: {prompt: x, use: 'a:b'}\n",
        (":2:3", "expected either prompt or use, found both"),
    ),
    Planted(
        "with beside a prompt",
        STEPS + "  a: {prompt: x, with: {y: 1}}\n",
        (":2:18", "with belongs to a step with use; a has none"),
    ),
    Planted(
        "else without when",
        STEPS + "  a: {prompt: x, else: y}\n",
        (":2:18", "else belongs to a step with when"),
    ),
    Planted(
        "an unknown name",
        TOPIC + '  a: {prompt: "On {topik}"}\n',
        (":3:19", "no input or step 'topik'", "did you mean topic?"),
    ),
    Planted(
        "a name that may be meant as text",
        TOPIC + '  a: {prompt: "On {zzz}"}\n',
        (":3:19", "no input or step 'zzz'", "write {{zzz}} for the text {zzz}"),
    ),
    Planted(
        "a word of Python in braces",
        TOPIC + '  a: {prompt: "On {class}"}\n',
        (":3:19", "no input or step 'class'", "write {{class}} for the text {class}"),
    ),
    Planted(
        "a name in a block of text",
        TOPIC + "  a:\n    prompt: |\n      One\n      two {topik} three\n",
        (":6:11", "topik", "6 |       two {topik}"),
    ),
    Planted(
        "a part of a value",
        TOPIC + '  a: {prompt: "On {topic.title}"}\n',
        (":3:19", "only whole values are referred to, as {topic}", "use: module:function"),
    ),
    Planted(
        "spaces in braces",
        TOPIC + '  a: {prompt: "On { topic }"}\n',
        (":3:19", "{ topic } is text, no reference; write {topic}"),
    ),
    Planted(
        "the path of an input", TOPIC + '  a: {prompt: "On {inputs.topic}"}\n', (":3:19", "write {topic}")
    ),
    Planted(
        "the path of a part of a step",
        STEPS + '  b: {prompt: x}\n  a: {prompt: "On {steps.b.title}"}\n',
        (":3:19", "only whole values are referred to, as {b}"),
    ),
    Planted("braces of others", TOPIC + '  a: {prompt: "On {{ topic }}"}\n', (":3:19", "write {topic}")),
    Planted(
        "a for_each of a name without braces",
        "inputs: {points: 'list[str]'}\nsteps: {a: {for_each: points, prompt: '{item}'}}\n",
        (":2:9", "expected a list, found str; did you mean {points}?"),
    ),
    Planted(
        "an output of a name without braces",
        STEPS + "  a: {prompt: x}\noutput: a\n",
        (":3:9", "output is the text a; did you mean {a}?"),
    ),
    Planted(
        "an item outside of a for_each",
        STEPS + '  a: {prompt: "On {item}"}\n',
        (":2:19", "{item} is what a for_each goes through; there is none here"),
    ),
    Planted(
        "a circle",
        STEPS + '  a: {prompt: "{c}"}\n  b: {prompt: "{a}"}\n  c: {prompt: "{b}"}\n',
        (":2:16", "these steps wait for one another: a → b → c → a", "remove one of the references"),
    ),
    Planted("a step that needs itself", STEPS + '  a: {prompt: "{a}"}\n', (":2:16", "a → a")),
    Planted(
        "a step named as an input",
        TOPIC + "  topic: {prompt: x}\n",
        (":3:3", "topic is an input already", "give the step another name"),
    ),
    Planted(
        "an unknown type",
        "inputs: {topic: string}\nsteps: {a: {prompt: x}}\n",
        (":1:17", "there is no type 'string'", "did you mean str?"),
    ),
    Planted(
        "an unknown type within another",
        "inputs: {topic: 'list[strr]'}\nsteps: {a: {prompt: x}}\n",
        (":1:23", "there is no type 'strr'", "did you mean str?"),
    ),
    Planted(
        "a type with an open bracket",
        "inputs: {topic: 'list[str'}\nsteps: {a: {prompt: x}}\n",
        (":1:17", "expected , or ]", "found the end"),
    ),
    Planted(
        "a class that does not exist",
        "inputs: {topic: 'yaml_steps:Pag'}\nsteps: {a: {prompt: x}}\n",
        (":1:18", "no class 'Pag' in yaml_steps", "did you mean yaml_steps:Page?"),
    ),
    Planted(
        "a type that is no answer of a model",
        "steps: {a: {prompt: x, returns: 'yaml_steps:TOGETHER'}}\n",
        (":1:34", "there is no class 'TOGETHER'"),
    ),
    Planted(
        "an answer that is no data",
        "steps: {a: {prompt: x, returns: 'threading:Barrier'}}\n",
        (":1:33", "a.returns: $.value: Barrier is no data"),
    ),
    Planted(
        "a default of what is no data",
        "inputs: {a: {type: 'threading:Barrier', default: 1}}\nsteps: {a_: {prompt: x}}\n",
        (":1:50", "a: "),
    ),
    Planted(
        "a dotted name in place of a function",
        "steps: {a: {use: yaml_steps.split}}\n",
        (":1:18", "did you mean yaml_steps:split?"),
    ),
    Planted(
        "a default that does not fit",
        "inputs: {n: {type: int, default: x}}\nsteps: {a: {prompt: x}}\n",
        (":1:34", "n: expected a whole number", 'found "x"'),
    ),
    Planted(
        "a module that does not exist",
        STEPS + "  a: {use: 'yaml_step:split'}\n",
        (":2:12", "there is no module 'yaml_step'"),
    ),
    Planted(
        "a function that does not exist",
        STEPS + "  a: {use: 'yaml_steps:splt'}\n",
        (":2:12", "there is no 'splt' in yaml_steps", "did you mean yaml_steps:split?"),
    ),
    Planted(
        "a file in place of a module",
        STEPS + "  a: {use: './pack/steps.py:split'}\n",
        (":2:12", "expected module:function", "did you mean pack.steps:split?"),
    ),
    Planted(
        "a class in place of a function",
        STEPS + "  a: {use: 'yaml_steps:Page'}\n",
        (":2:12", "yaml_steps:Page is no function but a class"),
    ),
    Planted(
        "an unknown registered step",
        STEPS + "  a: {use: nothing_like_it}\n",
        (":2:12", "nothing_like_it", "a function of yours is written module:function"),
    ),
    Planted(
        "an argument with a slip",
        STEPS + "  a: {use: 'yaml_steps:split', with: {txt: x}}\n",
        (":2:39", "split(text) takes no txt, did you mean text?"),
    ),
    Planted(
        "an argument that is missing",
        STEPS + "  a: {use: 'yaml_steps:split'}\n",
        (":2:12", "split(text) needs text", "write with: {text: ...}"),
    ),
    Planted(
        "a parameter without a name",
        STEPS + "  a: {use: 'yaml_steps:only', with: {text: x}}\n",
        (
            ":2:38",
            "only(text) takes no text by name, but by position",
            "write a function that takes it by name",
        ),
    ),
    Planted(
        "data that does not fit",
        STEPS + "  a: {use: 'yaml_steps:split', with: {text: 5}}\n",
        (":2:45", "text: expected text, found 5"),
    ),
    Planted(
        "a result that does not fit",
        STEPS + "  a: {prompt: x, returns: 'list[str]'}\n  b: {use: 'yaml_steps:split', with: {text: {a}}}\n",
        (":3:45", "a is list[str], but yaml_steps:split takes str for text"),
    ),
    Planted(
        "a text that does not fit",
        TOPIC + "  b: {use: 'yaml_steps:twice', with: {text: x, times: '{topic}!'}}\n",
        (":3:55", "this is str, but yaml_steps:twice takes int for times"),
    ),
    Planted(
        "a result that may be skipped",
        STEPS + "  a: {prompt: x, when: true}\n  b: {use: 'yaml_steps:split', with: {text: {a}}}\n",
        (
            ":3:45",
            "a is str | None",
            "takes str",
            "a may be skipped: give it an else, or say when: a != null here",
        ),
    ),
    Planted(
        "a text that may be null",
        "inputs: {topic: str | None}\nsteps: {a: {prompt: '{topic}'}}\n",
        (":2:22", "topic may be null, which has no place in a text", "say when: topic != null here"),
    ),
    Planted(
        "a for_each of no list",
        TOPIC + "  a: {for_each: '{topic}', prompt: '{item}'}\n",
        (":3:17", "a.for_each: expected a list, found str"),
    ),
    Planted(
        "a comparison that never holds",
        'inputs: {mood: \'Literal["good", "bad"]\'}\nsteps: {a: {prompt: x, when: mood == "god"}}\n',
        (":2:38", '"good" or "bad" is never "god"', 'did you mean "good"?'),
    ),
    Planted(
        "a comparison that can't be made",
        TOPIC + "  a: {prompt: x, when: topic > 3}\n",
        (":3:32", "str > 3", "expected two numbers, or two texts"),
    ),
    Planted(
        "in what is no list",
        "inputs: {n: int}\nsteps: {a: {prompt: x, when: 3 in n}}\n",
        (":2:35", "expected a list or a text to the right of in, found int"),
    ),
    Planted(
        "in a list that never has it",
        'inputs: {mood: \'Literal["good", "bad"]\'}\nsteps: {a: {prompt: x, when: \'mood in ["fine", "god"]\'}}\n',
        (":2:39", '"good" or "bad" is never "fine" or "god"'),
    ),
    Planted(
        "an order of what may be null",
        "inputs: {n: int | None}\nsteps: {a: {prompt: x, when: n > 3}}\n",
        (":2:34", "int | None > 3: expected two numbers", "write name != null and name > ..."),
    ),
    Planted(
        "untrusted data",
        "inputs: {n: {type: int, untrusted: true}}\nsteps: {a: {prompt: x}}\n",
        (":1:36", "n.untrusted: only an input of the type str can be marked so"),
    ),
    Planted(
        "arguments that are none",
        STEPS + "  a: {use: 'yaml_steps:split', with: text}\n",
        (
            ":2:38",
            'steps.a.with: expected the arguments, as lines of "name: value" indented below, found "text"',
        ),
    ),
    Planted(
        "an unknown name in a condition",
        TOPIC + "  a: {prompt: x, when: topik == 'x'}\n",
        (":3:24", "no input or step 'topik'", "did you mean topic?"),
    ),
    Planted(
        "a single equals sign",
        TOPIC + "  a: {prompt: x, when: topic = 'x'}\n",
        (":3:30", "expected == in place of ="),
    ),
    Planted(
        "half a condition",
        TOPIC + "  a: {prompt: x, when: topic and}\n",
        (":3:24", "expected a name, a number, a text in quotes", "found the end"),
    ),
    Planted(
        "a call in a condition",
        TOPIC + "  a: {prompt: x, when: len(topic) > 3}\n",
        (":3:27", "expected and, or, a comparison, or the end of the condition", "found ("),
    ),
    Planted(
        "an attribute in a condition",
        TOPIC + "  a: {prompt: x, when: topic.upper}\n",
        (":3:24", "a condition refers to whole values, by plain names"),
    ),
    Planted(
        "a name in needs with a slip",
        STEPS + "  a: {prompt: x}\n  b: {prompt: x, needs: [a, aa]}\n",
        (":3:29", "no step 'aa'", "did you mean a?"),
    ),
    Planted(
        "an input in needs",
        TOPIC + "  b: {prompt: x, needs: topic}\n",
        (":3:25", "topic is an input", "remove"),
    ),
    Planted(
        "a timeout that is no number",
        STEPS + "  a: {prompt: x, timeout: .nan}\n",
        (":2:27", "steps.a.timeout: expected a number of seconds above 0", "found nan"),
    ),
    Planted("no attempts", STEPS + "  a: {prompt: x, attempts: 0}\n", (":2:28", "at least 1", "found 0")),
    Planted(
        "a word of Python", STEPS + "  class: {prompt: x}\n", (":2:3", "expected a name", 'found "class"')
    ),
    Planted(
        "a way out", STEPS + "  ../../up: {prompt: x}\n", (":2:3", "expected a name", 'found "../../up"')
    ),
    Planted("a long name", STEPS + f"  {'n' * 255}: {{prompt: x}}\n", (":2:3", "at most 64", '"nnnnn')),
    Planted(
        "a prompt that begins with a brace",
        TOPIC + "  a:\n    prompt: {topic} in short\n",
        (":4:21", "put a text that begins with { or [ in quotes"),
    ),
    Planted(
        "a list of steps",
        "steps:\n  - prompt: x\n",
        (":2:3", "steps", 'lines of "name: value"', "found a list"),
    ),
    Planted(
        "a key", f"steps:\n  a:\n    prompt: {KEY}\n", (":3:5", "found a secret", "expected none in a file")
    ),
    Planted(
        "a key in a list",
        f"steps:\n  a:\n    use: yaml_steps:split\n    with: {{text: [{KEY}]}}\n",
        (":4:12", "found a secret"),
    ),
]


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_a_planted_fault_is_told_whole(fault: Planted) -> None:
    """Place, found, expected, what to do; and the line with a caret."""
    told = fault_in(fault.text)
    assert [part for part in fault.says if part not in told] == []
    assert "^" in told
    assert KEY[:12] not in told
    assert told.count("brief.yaml:") == 1, "one fault has no followers"


HOSTILE: list[tuple[str, str | bytes, str]] = [
    ("nothing", b"", "found nothing; expected steps"),
    ("a comment alone", b"# x\n", "found nothing"),
    ("null", b"null\n", "expected steps too"),
    ("a scalar", b"hello\n", 'expected lines of "name: value"; found "hello"'),
    ("a list", b"- a\n", "found a list"),
    ("two documents", STEPS + "  a: {prompt: x}\n---\nsteps: {}\n", "expected one document"),
    ("a tag", STEPS + "  a: {prompt: !!python/object:os.system x}\n", "a tag (!...) is not allowed"),
    ("an alias", "inputs: &a {x: str}\nsteps: {a: {prompt: x, with: *a}}\n", "an alias (*a) is not allowed"),
    (
        "an alias bomb",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{n}: &{n} [{','.join(['*' + p] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "an alias (*a) is not allowed",
    ),
    ("a depth bomb", b"steps: " + b"[" * 40_000, "nested too deep; expected at most 20 levels"),
    ("a depth bomb of mappings", b"steps: " + b"{a: " * 20_000, "nested too deep"),
    ("a key twice", STEPS + "  a: {prompt: x}\n  a: {prompt: y}\n", "this is set on line 2 already"),
    ("a key within a step twice", STEPS + "  a: {prompt: x, prompt: y}\n", "this is set on line 2 already"),
    ("a merge key", STEPS + "  a: {<<: {prompt: x}}\n", "<< is no key in steps.a"),
    ("a list as a key", "? [a]\n: b\n", "expected text as a key"),
    ("no", STEPS + "  a: {prompt: x, when: no}\n", "no input or step 'no'"),
    ("an old octal number", STEPS + "  a: {prompt: x, timeout: 014}\n", 'found "014"; did you mean 14?'),
    ("base sixty", STEPS + "  a: {prompt: x, timeout: 12:30:45}\n", 'found "12:30:45"'),
    ("infinity", STEPS + "  a: {prompt: x, timeout: .inf}\n", "found inf"),
    ("a negative limit", STEPS + "  a: {prompt: x, timeout: -1}\n", "found -1"),
    ("a huge number", STEPS + f"  a: {{prompt: x, attempts: {'9' * 5000}}}\n", "expected a whole number"),
    ("true as a number", STEPS + "  a: {prompt: x, attempts: true}\n", "expected a whole number"),
    ("invalid UTF-8", b"steps: \xff\n", "expected text in UTF-8, found the byte 0xff"),
    ("UTF-16", "steps: {}".encode("utf-16"), "expected text in UTF-8"),
    ("a control character", b"steps: \x00\n", "found a control character"),
    ("an escape for terminals", b"steps: \x1b[31m\n", "found a control character"),
    ("too large a file", b"#" * 100_001, "the file is too large"),
    ("a tab", b"steps:\n\ta: x\n", "found a tab; indent with spaces"),
    ("an open quote", b'steps: {a: {prompt: "x}}\n', "this quote is not closed"),
    ("a surrogate", b'steps: {a: {prompt: "\\ud800"}}\n', ""),
    ("a deep condition", STEPS + f"  a: {{prompt: x, when: '{'(' * 1000}'}}\n", "nested too deep"),
    ("a long condition", STEPS + f"  a: {{prompt: x, when: '{'(' * 9000}'}}\n", "expected a condition"),
    ("a deep type", f"inputs: {{a: '{'list[' * 90}'}}\nsteps: {{a: {{prompt: x}}}}\n", "nested too deep"),
    ("a condition with code", STEPS + "  a: {prompt: x, when: '__import__(\"os\")'}\n", "expected and, or"),
    ("a type with code", "inputs: {a: '__import__(1)'}\nsteps: {b: {prompt: x}}\n", "there is no type"),
    ("a relative module", STEPS + "  a: {use: '..os:system'}\n", "expected module:function"),
    ("a module that is a path", STEPS + "  a: {use: '../../etc/passwd:x'}\n", "expected module:function"),
]


@pytest.mark.parametrize(("text", "says"), [pytest.param(t, s, id=n) for n, t, s in HOSTILE])
def test_a_hostile_file_ends_in_one_clear_error(text: str | bytes, says: str) -> None:
    """Quickly, with its place."""
    begun = time.process_time()
    if not says:
        Path("brief.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        load_workflow("brief.yaml")
        return
    told = fault_in(text)
    assert says in told
    assert "brief.yaml" in told
    assert "\x1b" not in told
    assert time.process_time() - begun < 10


def test_a_byte_order_mark_is_no_fault() -> None:
    """Editors of Windows write one."""
    Path("brief.yaml").write_bytes(b"\xef\xbb\xbfsteps: {a: {prompt: x}}\n")
    assert load_workflow("brief.yaml").__name__ == "brief"


def test_a_file_that_is_not_there_is_told_with_its_like() -> None:
    """And a directory, and a name that no file can have."""
    Path("brief.yaml").write_text("steps: {a: {prompt: x}}\n")
    with pytest.raises(DefinitionError, match=r"there is no such file; did you mean brief.yaml\?"):
        load_workflow("brif.yaml")
    for path in (".", "a\0b", "x" * 300 + ".yaml"):
        with pytest.raises(DefinitionError):
            load_workflow(path)


def test_all_faults_are_told_at_once() -> None:
    """In the order of the file, those of structure, names, circles and types together."""
    told = fault_in("""\
inputs: {topic: strr}
steps:
  a: {prompt: "{topik}", modle: x}
  b: {prompt: "{c}"}
  c: {prompt: "{b}"}
  d: {use: "yaml_steps:split", with: {text: 5}}
output: "{e}"
""")
    places = [line.split(": ")[0].strip() for line in told.splitlines() if line.startswith("  brief.yaml")]
    assert places == [f"brief.yaml:{at}" for at in ("1:17", "3:16", "3:26", "4:16", "6:45", "7:9")]


@pytest.mark.parametrize("wrong", ["'nowhere:x'", "nobody", "'yaml_steps:splitt'", "'yaml_steps:split'"])
def test_a_circle_is_told_beside_what_can_t_be_called(wrong: str) -> None:
    """A step waits for what it is given, also where its function, or what that takes, is not known."""
    told = fault_in(f"""\
steps:
  a: {{use: {wrong}, with: {{txt: "{{b}}"}}}}
  b: {{prompt: "{{a}}"}}
""")
    assert "these steps wait for one another: a → b → a" in told
    assert told.count("brief.yaml:2:") == 2


def test_a_module_that_fails_is_told_with_its_reason(here: Path) -> None:
    """Whatever it raises."""
    Path("broken_for_yaml.py").write_text("raise SystemExit(3)\n")
    told = fault_in("steps: {a: {use: 'broken_for_yaml:x'}}\n")
    assert "broken_for_yaml can't be imported: SystemExit: 3" in told


def test_the_directory_of_the_file_is_behind_all_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules are found, and hide none that is installed."""
    (here / "flows").mkdir()
    (here / "flows" / "beside_yaml.py").write_text("def one() -> int:\n    return 1\n")
    (here / "flows" / "json.py").write_text("raise RuntimeError\n")
    (here / "flows" / "a.yaml").write_text("steps: {a: {use: 'beside_yaml:one'}}\n")
    load_workflow("flows/a.yaml")
    assert sys.path[-2:] == [str(here / "flows"), str(here)]


def test_the_schema_is_that_of_the_format() -> None:
    """``python -m flowlet.declarative._format`` writes it."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json.loads(json.dumps(schema()))


def test_the_schema_accepts_what_is_right_and_refuses_what_is_wrong() -> None:
    """As far as a schema can tell."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    step = {
        "prompt": "x",
        "when": "a",
        "else": 1,
        "for_each": "{a}",
        "max_concurrency": 2,
        "stop": ["a"],
    }
    assert validator.is_valid(
        {"inputs": {"a": "str", "b": {"type": "int", "default": 1}}, "steps": {"s": step}}
    )
    for wrong in (
        {},
        {"steps": {}},
        {"steps": {"class": {"prompt": "x"}}},
        {"steps": {"a": {"promt": "x"}}},
        {"steps": {"a": {"prompt": "x", "use": "y"}}},
        {"steps": {"a": {"prompt": "x", "with": {}}}},
        {"steps": {"a": {"use": "x", "returns": "str"}}},
        {"steps": {"a": {"prompt": "x", "timeout": 0}}},
        {"steps": {"a": {"prompt": "x"}}, "inputs": {"a": {"default": 1}}},
    ):
        assert not validator.is_valid(wrong), wrong


WORDS = st.sampled_from(
    [
        *(
            "steps",
            "inputs",
            "output",
            "name",
            "prompt",
            "use",
            "with",
            "when",
            "else",
            "for_each",
            "needs",
            "type",
        ),
        *(
            "default",
            "returns",
            "timeout",
            "attempts",
            "max_concurrency",
            "system",
            "model",
            "stop",
            "a",
            "b",
            "c",
        ),
        *(
            "{a}",
            "{b}",
            "{a",
            "{{a}}",
            "{a.b}",
            "{item}",
            "str",
            "list[str]",
            "int | None",
            'Literal["a"]',
            "a == 1",
        ),
        *(
            "yaml_steps:split",
            "yaml_steps:Page",
            "os:system",
            "a and not b in [1, 'x']",
            ".nan",
            "014",
            "no",
            "",
        ),
        *(
            "1",
            "-1",
            "true",
            "null",
            "é",
            "\u2028",
            "\x85",
            "😀",
            "<<",
            "*a",
            "&a",
            "!!str",
            "'",
            '"',
            "|",
            ">",
            "#",
        ),
        *(
            "a: b",
            "- a",
            "{",
            "}",
            "[",
            "]",
            ",",
            "? ",
            "%YAML 1.1",
            "---",
            "...",
            "\t",
            "a > 'x'",
            "(((",
            "not not",
        ),
    ]
)
SCALARS = WORDS | st.text(max_size=8) | st.integers() | st.floats() | st.booleans() | st.none()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=25,
)
NAMES = st.sampled_from("abc")
STEP = st.dictionaries(
    st.sampled_from(
        ["prompt", "use", "with", "when", "else", "for_each", "needs", "returns", "timeout", "system"]
    ),
    TREES,
    max_size=5,
)
WORKFLOWS = st.fixed_dictionaries(
    {"steps": st.dictionaries(NAMES, STEP, min_size=1, max_size=3)},
    optional={"inputs": st.dictionaries(NAMES, TREES, max_size=2), "output": TREES},
)
LINES = st.lists(st.tuples(st.integers(0, 6), st.lists(WORDS, max_size=4)), max_size=8).map(
    lambda lines: "\n".join(" " * indent + " ".join(words) for indent, words in lines)
)
FILES = (
    st.binary(max_size=60)
    | LINES.map(lambda text: text.encode("utf-8", "surrogatepass"))
    | (TREES | WORKFLOWS).map(lambda tree: json.dumps(tree).encode())
    | WORKFLOWS.map(lambda tree: json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass"))
)


@hypothesis_settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(FILES)
@example(rb'{"steps":{"_":{"for_each":{"\ud800":"{A}"}}}}')
@example(rb'{"steps":{"_":{"for_each":{"\u0000":"{A}"}}}}')
def test_nothing_but_a_workflow_or_one_error_comes_of_a_file(data: bytes) -> None:
    """Whatever is in it."""
    file = Path("fuzz.yaml")
    file.write_bytes(data)
    faults: tuple[str, ...] = ("fuzz.yaml",)
    try:
        load_workflow(file)
    except DefinitionError as exc:
        faults = exc.faults
    assert faults
    assert all(fault.startswith(("fuzz.yaml", "and ")) for fault in faults)
