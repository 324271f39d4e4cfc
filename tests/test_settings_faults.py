"""Faults in the configuration: a newcomer mends each from its message alone.

Each message tells the place, what was found, what is expected, and what to do.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flowlet import ConfigError, Settings, configure
from flowlet.settings import check, process
from rig import Planted

KEY = "sk-proj-abcdefghijklmnop1234567890"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fault_in(text: str | bytes) -> str:
    """What is said of a ``flowlet.yaml`` with *text*."""
    Path("flowlet.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        check()
    return str(caught.value)


PLANTED = [
    Planted(
        "a name with a slip", "modle: offline\n", ("yaml:1:1", "modle", "no setting", "did you mean model?")
    ),
    Planted(
        "an inner name with a slip",
        "log:\n  levle: INFO\n",
        ("yaml:2:3", "levle", "no setting in log", "did you mean level?"),
    ),
    Planted(
        "a name at the wrong level",
        "temperature: 0\n",
        ("yaml:1:1", "temperature", "no setting", "belongs in models, under the name of a model"),
    ),
    Planted(
        "a word for a number",
        "model: offline\ngrace: soon\n",
        ("yaml:2:8", 'found "soon"', "expected a number of seconds, 0 or more", "such as 30"),
    ),
    Planted(
        "a number in quotes",
        'attempts: "5"\n',
        ("yaml:1:11", 'found "5"', "a whole number of at least 1", "write it without quotes"),
    ),
    Planted("too small a number", "max_threads: 0\n", ("yaml:1:14", "found 0", "at least 1")),
    Planted("a fraction", "reasks: 1.5\n", ("yaml:1:9", "found 1.5", "a whole number")),
    Planted(
        "one of a few, misspelt",
        "backend: asynco\n",
        ("yaml:1:10", 'found "asynco"', '"asyncio" or "trio"', "did you mean asyncio?"),
    ),
    Planted("small letters", "log:\n  level: debug\n", ("yaml:2:10", 'found "debug"', "did you mean DEBUG?")),
    Planted(
        "yes", "log:\n  prompts: yes\n", ("yaml:2:12", 'found "yes"', "true or false", "did you mean true?")
    ),
    Planted(
        "nothing", "grace:\nmodel: offline\n", ("yaml:1:1", "found nothing", "a number of seconds", "remove")
    ),
    Planted(
        "a model without its provider",
        "models:\n  gpt-5-mini:\n    seed: 1\n",
        ("yaml:2:3", 'found "gpt-5-mini"', "provider:model", "such as openai:gpt-5-mini"),
    ),
    Planted(
        "half a price",
        "prices:\n  openai:my-model:\n    input: 1\n",
        ("yaml:3:5", "prices.openai:my-model", "expected output too"),
    ),
    Planted(
        "an address without its scheme",
        "openai:\n  base_url: localhost:8000\n",
        ("yaml:2:13", 'found "localhost:8000"', "such as http://localhost:8000/v1"),
    ),
    Planted(
        "a key",
        f"openai:\n  api_key: {KEY}\n",
        ("yaml:2:3", "found a secret", "expected none", "set OPENAI_API_KEY in the environment", "remove it"),
    ),
    Planted(
        "a key under a harmless name",
        f"model: {KEY}\n",
        ("yaml:1:1", "found a secret", "expected none", "set OPENAI_API_KEY in the environment", "remove it"),
    ),
    Planted(
        "a name twice",
        "grace: 5\nmodel: offline\ngrace: 6\n",
        ("yaml:3:1", "set on line 1 already", "remove one of the two"),
    ),
    Planted(
        "a missing colon",
        "model offline\ngrace: 5\n",
        ("yaml:2:6", 'found a ":"', "the line above has a", "quotes"),
    ),
    Planted("a tab", "log:\n\tlevel: INFO\n", ("yaml:2:1", "found a tab", "indent with spaces")),
    Planted(
        "an open quote", 'model: "offline\ngrace: 5\n', ("yaml:1:8", "not closed", "expected the same quote")
    ),
    Planted("a list", "- model: offline\n", ("yaml:1:1", "found a list", 'expected lines of "name: value"')),
    Planted(
        "a group that is no group",
        "log: INFO\n",
        ("yaml:1:6", 'found "INFO"', "log", 'lines of "name: value"', "indented below the name"),
    ),
    Planted(
        "what only Python can give",
        "observers: [print]\n",
        ("yaml:1:1", "observers can't be set in a file", "pass it to configure(observers=...)"),
    ),
]


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_a_planted_fault_is_told_whole(fault: Planted) -> None:
    """Place, found, expected, what to do; and the line with a caret."""
    told = fault_in(fault.text)
    assert [part for part in fault.says if part not in told] == []
    assert "^" in told
    assert KEY[:12] not in told


def test_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the file in its order, then those of the environment."""
    monkeypatch.setenv("FLOWLET_GRACE", "soon")
    told = fault_in("grace: x\nmodle: y\nlog: {level: z}\n")
    places = ["yaml:1:8", "yaml:2:1", "yaml:3:14", "FLOWLET_GRACE"]
    assert sorted(places, key=told.index) == places


def test_the_whole_message() -> None:
    """It reads well."""
    assert fault_in("model: offline\nlog:\n  levle: INFO\n") == (
        "the settings can't be used:\n"
        "  flowlet.yaml:3:3: levle is no setting in log; did you mean level?\n"
        "      3 |   levle: INFO\n"
        "        |   ^^^^^"
    )


def test_the_caret_stands_below_wide_characters() -> None:
    """A terminal shows some characters in two columns, and accents in none."""
    told = fault_in("log: {'日本e\u0301': 1}\n").splitlines()
    assert told[2].index("'日") == told[3].index("^")
    told = fault_in("log: {file: '日', levle: INFO}\n").splitlines()
    assert told[3].index("^") == told[2].index("levle") + 1


def test_a_long_line_is_cut_around_the_place() -> None:
    """Nobody reads 50,000 characters."""
    told = fault_in(f"log: {{file: '{'x' * 50_000}', levle: INFO, prompts: false}}\n")
    assert "levle: INFO" in told
    assert max(map(len, told.splitlines())) < 150


# --- the environment and Python ------------------------------------------------------------------

VARIABLES = [
    ("FLOWLET_GRACE", "soon", ('found "soon"', "a number of seconds")),
    ("FLOWLET_GRACE", "nan", ('found "nan"', "a number of seconds")),
    ("FLOWLET_ATTEMPTS", "1_0", ('found "1_0"', "a whole number")),
    ("FLOWLET_ATTEMPTS", "014", ('found "014"', "did you mean 14?")),
    ("FLOWLET_BACKEND", "Trio", ('found "Trio"', "did you mean trio?")),
    ("FLOWLET_LOG_PROMPTS", "on", ("true or false", "did you mean true?")),
    ("FLOWLET_MODLE", "offline", ("reads no such variable", "did you mean FLOWLET_MODEL?")),
    ("FLOWLET_XYZZYQ", "1", ("reads no such variable", "FLOWLET_LOG_LEVEL")),
    ("FLOWLET_API_KEY", "hunter2hunter2", ("OPENAI_API_KEY",)),
    ("FLOWLET_MODEL", KEY, ("found", "a model such as")),
    ("OPENAI_BASE_URL", "localhost", ("such as http://localhost:8000/v1",)),
]


@pytest.mark.parametrize(("variable", "value", "says"), VARIABLES)
def test_a_fault_in_the_environment(
    variable: str, value: str, says: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is the place; a secret is not shown."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        check()
    told = str(caught.value)
    assert [part for part in (variable, *says) if part not in told] == []
    assert KEY[:12] not in told
    assert "hunter2" not in told


def test_variables_that_kubernetes_sets_are_no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service called flowlet gives every container such variables."""
    for name in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP_ADDR", "WORKER_SERVICE_HOST"):
        monkeypatch.setenv(f"FLOWLET_{name}", "10.0.0.1")
    assert check() == ()


def test_faults_of_configure_are_told_at_once() -> None:
    """A name, a value and a value inside a group."""
    from flowlet.messages import Parameters

    with pytest.raises(ConfigError) as caught:
        configure(modle="x", grace=-1, models={"default": Parameters(temperature=9)}, log="INFO")  # type: ignore[call-arg]
    told = str(caught.value)
    for part in (
        "modle: no such setting; did you mean model?",
        "grace: expected a number of seconds, 0 or more, such as 30, found -1",
        'models["default"].temperature: expected a number from 0 to 2, found 9',
        'log: expected LogSettings(...), found "INFO"',
    ):
        assert part in told


# --- files that are not meant well ---------------------------------------------------------------

HOSTILE = {
    "a depth bomb": ("a: " + "[" * 90_000, "1:24: nested too deep; expected at most 20 levels"),
    "a deep mapping": ("{a: " * 20_000, "nested too deep"),
    "an alias bomb": (
        "a: &a [x, x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)),
        "2:8: an alias (*a) is not allowed; write the value out",
    ),
    "an alias to itself": ("models: &a {default: *a}", "1:22: an alias (*a)"),
    "a tag": (
        "model: !!python/object/apply:os.system ['true']",
        "1:8: a tag (!...) is not allowed; remove it",
    ),
    "a tag of its own": ("model: !secret x", "1:8: a tag"),
    "no as a value": ("log: {prompts: no}", 'found "no"; did you mean false?'),
    "a leading zero": ("attempts: 014", 'found "014"; did you mean 14?'),
    "a number to base 60": ("grace: 12:30:45", 'found "12:30:45"'),
    "not a number": ("call_timeout: .nan", "1:15: call_timeout: expected a number of seconds above 0"),
    "infinite": ("grace: .inf", "expected a number of seconds"),
    "a number beyond all floats": ("grace: 1e999", "expected a number of seconds"),
    "a number of many digits": (f"attempts: {'9' * 9000}", "expected a whole number"),
    "two documents": ("model: a\n---\nmodel: b\n", '2:1: expected one document; remove this "---"'),
    "another version": ("%YAML 1.1\n---\nmodel: a\n", "expected YAML 1.2"),
    "a version that nobody knows": ("%YAML 9.9\n---\nmodel: a\n", "expected YAML 1.2"),
    "a merge": ("log: {<<: {level: INFO}}", "<< is no setting in log"),
    "a key that is a list": ("? [a]\n: b\n", "expected text as a key"),
    "a null byte": ("model: \0", "1:8: found a control character; remove it"),
    "a way to steer the terminal": ("model: \x1b[31mred", "1:8: found a control character"),
    "binary": (bytes(range(256)), "found the byte 0x80; save the file as UTF-8"),
    "UTF-16": ("model: offline".encode("utf-16"), "1:1: expected text in UTF-8, found the byte 0xff"),
    "Latin-1": (
        "# caf\xe9\nmodel: \xe9".encode("latin-1"),
        "1:6: expected text in UTF-8, found the byte 0xe9",
    ),
    "10 MB": ("# " + "x" * 10_000_000, "too large: expected at most 100,000 bytes"),
    "a character beyond Unicode": ('model: "\\UFFFFFFFF"', "expected YAML"),
    "half a character": ('model: "\\uD800"', "expected"),
    "an unknown escape": ('log: {file: "C:\\qdir"}', "unknown escape"),
    "thousands of faults": ("\n".join(f"k{i}: {i}" for i in range(5000)), "and 4950 more"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_in_one_error(name: str) -> None:
    """It has a place, and costs little time."""
    text, says = HOSTILE[name]
    started = time.process_time()
    told = fault_in(text)
    assert says in told
    assert "flowlet.yaml" in told
    assert time.process_time() - started < 5
    assert told.isprintable() or all(line.isprintable() for line in told.splitlines())


def test_an_alias_has_no_second_fault() -> None:
    """What can't be read is not judged."""
    assert fault_in("grace: *x").count("yaml:") == 1


def test_lines_that_take_long_to_search() -> None:
    """No pattern of ours goes over a text again and again."""
    for part in (" ", "\t", "key ", "-----BEGIN ", "eyJ-", "://", "bearer ", "a", "?key=", "0", "sk-"):
        started = time.process_time()
        fault_in("x: '" + part * (90_000 // len(part)) + "'\nmodle: 1\n")
        assert time.process_time() - started < 5


def test_an_indent_that_takes_long_to_search() -> None:
    """It is gone over once."""
    started = time.process_time()
    fault_in(" " * 90_000 + "#\nmodle: 1\n")
    assert time.process_time() - started < 5


def plant_directory(path: Path) -> None:
    path.mkdir()


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("plant", [plant_directory, plant_fifo, plant_loop])
def test_what_is_no_file(plant: Callable[[Path], None]) -> None:
    """It is told, and not waited for."""
    plant(Path("flowlet.yaml"))
    with pytest.raises(ConfigError, match=r"flowlet\.yaml: (expected a file|can't be read)"):
        check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read(here: Path) -> None:
    """It is not taken for one that is not there."""
    (here / "flowlet.yaml").write_text("model: offline")
    (here / "flowlet.yaml").chmod(0)
    with pytest.raises(ConfigError, match="can't be read"):
        check()


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names a file wants it read."""
    monkeypatch.setenv("FLOWLET_CONFIG", "/nowhere/settings.yaml")
    with pytest.raises(
        ConfigError, match=r"/nowhere/settings\.yaml: there is no such file; .*FLOWLET_CONFIG"
    ):
        check()


def test_a_file_with_the_other_ending(here: Path) -> None:
    """It would be left unread in silence."""
    (here / "flowlet.yml").write_text("model: offline")
    with pytest.raises(
        ConfigError, match=r"flowlet\.yml: this name is not read; rename the file to flowlet\.yaml"
    ):
        check()


# --- secrets -------------------------------------------------------------------------------------

SECRETS = [
    f"model: {KEY}",
    f"{KEY}: 1",
    f"log: [{KEY}]",
    f"log: [[{{a: {KEY}}}]]",
    f"openai: {{api_key: {KEY}, base_url: [}}",
    "openai: {api_key: hunter2-and-more, base_url: [}",
    "openai:\n  api_key: |\n    hunter2-and-more\n    : [\n",
    "openai:\n  api-key:\n    hunter2-and-more: x: y\n",
    "openai:\n  apiKey: 'hunter2-and-more\n",
    "password: hunter2-and-more\nmodle: 1",
    "GITHUB_TOKEN: hunter2-and-more",
    "openai: {base_url: 'https://me:hunter2-and-more@example.org/v1'}",
    "openai: {base_url: 'https://example.org/v1?api-key=hunter2-and-more'}",
    "models: {default: {secret: hunter2-and-more}}",
    "log: {file: hunter2-and-more, level: x}",
    "hunter2-and-more",
    "# hunter2-and-more\n[",
]


@pytest.mark.parametrize("text", SECRETS)
def test_no_message_shows_a_secret(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the fault is the secret itself, or stands beside it; the process knows one of them by heart."""
    monkeypatch.setenv("OTHER_API_KEY", "hunter2-and-more")
    told = fault_in(text)
    assert KEY[:12] not in told
    assert "hunter2" not in told


@pytest.mark.parametrize("text", SECRETS[4:10])
def test_a_secret_is_known_by_its_name(text: str) -> None:
    """Also one that has no shape, and that the process does not know."""
    assert "hunter2" not in fault_in(text)


def test_a_secret_is_sent_to_the_variable_of_its_name() -> None:
    """Not every token is OpenAI's."""
    assert "set GITHUB_TOKEN in the environment" in fault_in("github-token: hunter2")


def test_names_that_only_sound_like_secrets(here: Path) -> None:
    """Tokens are what models count."""
    (here / "flowlet.yaml").write_text(
        "models: {default: {max_tokens: 5}, acme:skeleton-key: {seed: 1}}\nbudget: {run: {tokens: 9}}\n"
    )
    assert len(check()) == 3


# --- any text ------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        *(
            "model: offline",
            "grace: 5",
            "log:",
            "  level: INFO",
            "models:",
            "  default:",
            "    seed: 1",
            "- a",
        ),
        *(
            "{",
            "}",
            "[",
            "]",
            "? a",
            ": b",
            "&a",
            "*a",
            "!t x",
            "|",
            ">",
            "'",
            '"',
            "---",
            "...",
            "%YAML 1.2",
        ),
        *(
            "#",
            "\t",
            "openai: {base_url: http://x/v1}",
            "prices: {a:b: {input: 1, output: .5}}",
            "api_key: x",
        ),
    ]
)


@given(st.one_of(st.text(), st.lists(LINES, max_size=12).map("\n".join), st.binary()))
@hypothesis_settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_gives_settings_or_a_config_error(text: str | bytes) -> None:
    """Nothing else comes out of a file."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    Path("flowlet.yaml").write_bytes(data)
    process.reset()
    try:
        found: Settings | ConfigError = process.settings
    except ConfigError as exc:
        found = exc
    assert isinstance(found, Settings) or "flowlet.yaml" in str(found)
