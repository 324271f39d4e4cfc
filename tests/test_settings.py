"""Settings: where they come from, which of them counts, and who is told of them."""

import json
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import flowlet
from flowlet import (
    LLM,
    Budget,
    ConfigError,
    Settings,
    configure,
    register_provider,
    run,
    usage,
    with_options,
    workflow,
)
from flowlet import settings as settings_module
from flowlet._settings_pages import SCHEMA, schema, table
from flowlet._source import Fault, Source, render
from flowlet._yaml import parse, value_of
from flowlet.llm import Builtin, resolve
from flowlet.messages import Completion, Parameters, Request
from flowlet.metrics import TokenUsage
from flowlet.pricing import Price
from flowlet.providers.openai import OpenAIProvider
from flowlet.settings import Budgets, LogSettings, OpenAISettings, check, process

ROOT = Path(flowlet.__file__).parent.parent
EVERYTHING = """\
model: openai:gpt-5
backend: trio
grace: 0
max_threads: 0x10
attempts: 5
call_timeout: 1e1
reasks: 2
models:
  default: {max_tokens: 100, temperature: 0.5}
  openai:gpt-5: {max_tokens: 200, top_p: .5, seed: -1}
prices:
  acme:one: {input: 0.1, output: 2, cached_input: 0}
budget:
  run: {calls: 3, tokens: 1000, cost: 0.1}
  process: {cost: 10}
log: {level: INFO, format: json, prompts: true, file: flowlet.log}
openai: {base_url: http://localhost:8000/v1, organization: org-1, project: '007'}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> None:
    Path("flowlet.yaml").write_text(text, encoding="utf-8")


class Acme:
    """A provider that remembers what it is asked."""

    live = False

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        return Completion("yes", TokenUsage(1_000_000, 0, 1_000_000), model=f"{request.model}-2025-08-07")


@pytest.fixture
def acme() -> Acme:
    """A provider called acme."""
    provider = Acme()
    register_provider("acme", provider)
    return provider


# --- what counts ---------------------------------------------------------------------------------


def test_defaults_hold_without_a_file() -> None:
    """Nothing needs to be set."""
    assert process.settings == Settings()


@pytest.mark.parametrize(
    "text", ["", "\n", "# model: x\n", "---\n", "{}", "log:\nmodels:\n  # none\n", "null", "\ufeff"]
)
def test_a_file_may_say_nothing(text: str) -> None:
    """Also a group all of whose lines are comments."""
    write(text)
    assert process.settings == Settings()


def test_toml_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not beside the program, not in its pyproject, and one that is named is no settings."""
    Path("flowlet.toml").write_text('model = "offline"\n', encoding="utf-8")
    Path("pyproject.toml").write_text('[tool.flowlet]\nmodel = "offline"\n', encoding="utf-8")
    assert process.settings == Settings()
    process.reset()
    monkeypatch.setenv("FLOWLET_CONFIG", "flowlet.toml")
    with pytest.raises(ConfigError, match=r'flowlet\.toml:1:1: expected lines of "name: value"'):
        _ = process.settings


def test_the_file_sets_everything() -> None:
    """Every setting that a file may hold, as its type."""
    write(EVERYTHING)
    assert process.settings == Settings(
        model="openai:gpt-5",
        backend="trio",
        grace=0,
        max_threads=16,
        attempts=5,
        call_timeout=10,
        reasks=2,
        models={
            "default": Parameters(max_tokens=100, temperature=0.5),
            "openai:gpt-5": Parameters(max_tokens=200, top_p=0.5, seed=-1),
        },
        prices={"acme:one": Price("0.1", 2, 0)},
        budget=Budgets(Budget(3, 1000, Decimal("0.1")), Budget(cost=Decimal(10))),
        log=LogSettings("INFO", "json", True, "flowlet.log"),
        openai=OpenAISettings("http://localhost:8000/v1", "org-1", "007"),
    )


def test_each_source_counts_more_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment, configure, options."""
    write("model: acme:file")

    @workflow
    def look() -> str:
        return resolve(None)[2]

    register_provider("acme", Acme())
    assert run(look) == "file"
    monkeypatch.setenv("FLOWLET_MODEL", "acme:environment")
    process.reset()
    register_provider("acme", Acme())
    assert run(look) == "environment"
    configure(model="acme:configured")
    assert run(look) == "configured"
    assert run(with_options(look, model="acme:option")) == "option"


def test_groups_are_merged_value_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable does not wipe out what the file says beside it."""
    write("log: {format: json, level: INFO}\nbudget: {run: {calls: 5}}\n")
    monkeypatch.setenv("FLOWLET_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("FLOWLET_BUDGET_RUN_COST", "0.5")
    assert process.settings.log == LogSettings("DEBUG", "json")
    assert process.settings.budget.run == Budget(calls=5, cost=Decimal("0.5"))


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells and compose files set such."""
    write("grace: 5")
    for name in ("FLOWLET_GRACE", "FLOWLET_CONFIG", "FLOWLET_MODEL"):
        monkeypatch.setenv(name, " ")
    assert process.settings == Settings(grace=5)


def test_another_file_can_be_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the one in the working directory is not read."""
    write("attempts: 9")
    (here / "other.yaml").write_text("grace: 7")
    monkeypatch.setenv("FLOWLET_CONFIG", str(here / "other.yaml"))
    assert process.settings == Settings(grace=7)


def test_configure_keeps_what_it_does_not_name() -> None:
    """It stands on file and environment."""
    write("grace: 5")
    configure(attempts=1)
    assert process.settings == Settings(grace=5, attempts=1)


def test_configure_tells_the_faults_of_the_file() -> None:
    """It is the first to need the settings."""
    write("grace: x")
    with pytest.raises(ConfigError, match=r"flowlet\.yaml:1:8: grace"):
        configure(attempts=1)


def test_a_mended_file_is_read_again() -> None:
    """A notebook does not have to be restarted."""
    write("grace: x")
    with pytest.raises(ConfigError):
        _ = process.settings
    write("grace: 1")
    assert process.settings.grace == 1


def test_a_generator_of_observers_is_not_used_up_by_the_check() -> None:
    """What is checked is what is kept."""
    configure(observers=(one for one in [print]))
    assert process.settings.observers == (print,)


# --- what flowlet check says ---------------------------------------------------------------------


def test_check_tells_what_is_set_and_by_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults are in the documentation."""
    write("grace: 5\nlog: {level: INFO, format: text}\n")
    monkeypatch.setenv("FLOWLET_LOG_LEVEL", "ERROR")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1?api-key=hunter2")
    assert check() == (
        "grace = 5 (flowlet.yaml)",
        "log.level = ERROR (FLOWLET_LOG_LEVEL)",
        "log.format = text (flowlet.yaml)",
        "openai.base_url = https://example.org/v1?[redacted] (OPENAI_BASE_URL)",
    )


def test_check_takes_a_file_and_changes_nothing(here: Path) -> None:
    """It is for looking."""
    (here / "other.yaml").write_text("grace: 7")
    assert check(here / "other.yaml") == (f"grace = 7 ({here / 'other.yaml'})",)
    assert process.settings == Settings()


# --- what settings do ----------------------------------------------------------------------------


def test_models_fill_what_an_llm_leaves_open(acme: Acme) -> None:
    """First the model's own entry, then the one for all; what the LLM says stays."""
    configure(
        models={
            "default": Parameters(temperature=0.1, max_tokens=10, seed=1, extra={"user": "me"}),
            "acme:one": Parameters(max_tokens=20),
        }
    )
    LLM("acme:one", temperature=0).ask("?")
    LLM("acme:two").ask("?")
    assert [request.parameters for request in acme.requests] == [
        Parameters(temperature=0, max_tokens=20, seed=1, extra={"user": "me"}),
        Parameters(temperature=0.1, max_tokens=10, seed=1, extra={"user": "me"}),
    ]


def test_without_models_nothing_is_sent_that_was_not_said(acme: Acme) -> None:
    """Some models refuse a temperature."""
    LLM("acme:one").ask("?")
    assert acme.requests[0].parameters == Parameters()


def test_prices_go_before_the_list(acme: Acme) -> None:
    """By the name that was asked for; the answer's may be longer."""
    configure(prices={"acme:one": Price(input=3, output=4)})
    LLM("acme:one").ask("?")
    assert usage().cost == 3


def test_prices_go_before_those_of_a_provider(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user says counts."""
    monkeypatch.setattr(Acme, "price", lambda self, model, usage: Decimal(99), raising=False)
    configure(prices={"acme:one": Price(input=3, output=4)})
    LLM("acme:one").ask("?")
    assert usage().cost == 3


def test_the_built_in_provider_goes_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then environment, then configure; no key is needed at another server."""
    write("openai: {base_url: 'http://file/v1', organization: org-file}\n")
    provider = resolve("openai:x")[0]
    assert provider == OpenAIProvider(None, "http://file/v1", "org-file")
    process.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://environment/v1")
    provider = resolve("openai:x")[0]
    assert provider == OpenAIProvider(None, "http://environment/v1", "org-file")
    configure(openai=OpenAISettings("http://configure/v1"))
    assert resolve("openai:x")[0] == OpenAIProvider(None, "http://configure/v1")


def test_the_built_in_provider_is_made_once() -> None:
    """As long as the settings are the same."""
    builtin = process.of(Builtin)
    assert builtin.get("openai") is builtin.get("openai")


# --- what editors and readers see ----------------------------------------------------------------


def test_the_schema_in_the_package_is_that_of_the_settings() -> None:
    """``python -m flowlet._settings_pages`` writes it anew."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()


def test_the_page_has_the_table_of_the_settings() -> None:
    """``python -m flowlet._settings_pages`` prints it anew."""
    assert table() in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_table() -> None:
    """And none that does not exist."""
    from attrs import fields

    names = {row.split("`")[1].partition(".")[0] for row in table().splitlines()[2:]}
    assert names == {a.name for a in fields(Settings)}


def test_the_file_on_the_page_is_right() -> None:
    """What readers copy works."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    write(page.partition("```yaml\n")[2].partition("```")[0])
    assert "budget.process.calls = 10000 (flowlet.yaml)" in check()


def test_no_reader_is_loaded_where_nothing_is_said() -> None:
    """Programs without a file start as quickly as before."""
    code = (
        "import sys; from flowlet.settings import process; process.settings;"
        "print(*(n for n in ('ruamel', 'flowlet._yaml', 'flowlet._source') if n in sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert ran.stdout.split() == []


# --- YAML ----------------------------------------------------------------------------------------

SCALARS: list[tuple[str, Any]] = [
    *(("null", None), ("~", None), ("", None), ("true", True), ("FALSE", False), ("tRUE", "tRUE")),
    *(("0", 0), ("-5", -5), ("+5", 5), ("0x1F", 31), ("0o17", 15), ("014", "014"), ("1_000", "1_000")),
    *((".5", 0.5), ("1.", 1.0), ("-1e3", -1000.0), ("01.5", "01.5"), ("-.inf", float("-inf")), (".", ".")),
    *(
        ("no", "no"),
        ("12:30:45", "12:30:45"),
        ("2024-05-31", "2024-05-31"),
        ("=", "="),
        ("-", "-"),
        ("e1", "e1"),
    ),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    """But for leading zeros, which other readers take for octal numbers."""
    found = value_of(text)
    assert (type(found), found) == (type(value), value)


def test_every_node_has_its_place() -> None:
    """Keys too; lines and columns from 1."""
    faults: list[Fault] = []
    node = parse(Source("x", 'a:\n  - b\n  - "5": c\n'), faults)
    assert node is not None
    assert isinstance(node.data, dict)
    assert isinstance(node.data["a"].data, tuple)
    first, second = node.data["a"].data
    assert (str(first.place), str(second.keys["5"]), str(node.keys["a"])) == ("x:2:5", "x:3:5", "x:1:1")
    assert not faults


def test_faults_are_told_in_the_order_of_the_text() -> None:
    """And of several at one place only the first."""
    source = Source("x", "one\ntwo")
    found = [Fault("else", "c"), Fault(source.place(1, 0, 3), "b"), Fault(source.place(0, 1), "a")]
    found.append(evolve(found[1], message="follows from b"))
    assert render(found) == (
        "x:1:2: a\n    1 | one\n      |  ^",
        "x:2:1: b\n    2 | two\n      | ^^^",
        "else: c",
    )


def test_a_thread_of_before_a_reset_puts_no_settings_over_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that still reads them when everything is forgotten, as one that a test left behind."""
    reading, go_on = threading.Event(), threading.Event()
    real = settings_module._first_settings

    def slow(file: Path | None) -> Settings:
        if threading.current_thread() is late:
            reading.set()
            go_on.wait(10)
        return real(file)

    monkeypatch.setattr(settings_module, "_first_settings", slow)
    late = threading.Thread(target=lambda: process.settings)
    late.start()
    assert reading.wait(10)
    threading.Timer(0.1, go_on.set).start()
    process.reset()
    configure(model="offline")
    late.join(10)
    assert process.settings.model == "offline"
