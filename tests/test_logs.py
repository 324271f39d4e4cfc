"""Logs: the same lines in every mode, safe texts, and the host's own loggers left alone."""

import io
import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import stamina
from loguru import logger as host

import flowlet
from flowlet import (
    LLM,
    AsyncLLM,
    BudgetExceeded,
    ConfigError,
    arun,
    configure,
    log_to,
    run,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.errors import ProviderError
from flowlet.events import (
    BudgetRefused,
    CacheFailed,
    FailureUnfetched,
    LoopRetired,
    PIIFound,
    PluginFailed,
    RunInfo,
    RunsCancelledAtExit,
    ThreadAbandoned,
)
from flowlet.observers._lines import LEVELS, fields_of, sentence_of
from flowlet.providers.openai import OpenAIProvider
from flowlet.settings import LogSettings, process
from flowlet.specs import Budget
from flowlet.testing import MockProvider
from rig import Heard

KEY = "fl-canary-0123456789abcdef"
INFO = RunInfo("r1", "talk", "c1")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """A stream that gets everything as JSON."""
    stream = io.StringIO()
    log_to(stream, level="DEBUG")
    yield stream
    log_to(None)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def told(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines without what differs from run to run: ids by their workflow, times by their presence."""
    found = lines(stream)
    names = {line["run_id"]: line["workflow"] for line in found}
    for line in found:
        assert line.pop("time").endswith("+00:00")
        if "duration_ms" in line:
            assert line.pop("duration_ms") >= 0
        for name in {"run_id", "parent_id", "correlation_id"} & set(line):
            line[name] = names.get(line[name], line[name])
    return found


# --- the same lines in every mode ----------------------------------------------------------------


class Flaky(Exception):
    pass


def sync_story() -> Callable[..., Any]:
    tries: list[int] = []

    @step(attempts=2)
    def shaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise Flaky("not {yet}")
        return 1

    @step
    def broken() -> None:
        raise ValueError("no good")

    @step
    def asked(llm: LLM = LLM()) -> str:
        return llm.ask("hello")

    @workflow
    def child() -> None:
        broken()

    @workflow
    def story() -> int:
        asked()
        try:
            child()
        except ValueError:
            return shaky()
        return 0

    return story


def async_story() -> Callable[..., Any]:
    tries: list[int] = []

    @step(attempts=2)
    async def shaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise Flaky("not {yet}")
        return 1

    @step
    async def broken() -> None:
        raise ValueError("no good")

    @step
    async def asked(llm: AsyncLLM = AsyncLLM()) -> str:
        return await llm.ask("hello")

    @workflow
    async def child() -> None:
        await broken()

    @workflow
    async def story() -> int:
        await asked()
        try:
            await child()
        except ValueError:
            return await shaky()
        return 0

    return story


PLACE = {"run_id": "story", "correlation_id": "request 7", "workflow": "story"}
CHILD = {"run_id": "child", "parent_id": "story", "correlation_id": "request 7", "workflow": "child"}
ASKED = {**PLACE, "step": "asked", "step_index": 0}
SHAKY = {**PLACE, "step": "shaky", "step_index": 1}
BROKEN = {**CHILD, "step": "broken", "step_index": 0}
ANSWER = {"provider": "offline", "model": "offline", "attempt": 1, "finish_reason": "stop"}
TOKENS = {"prompt_tokens": 2, "completion_tokens": 14, "total_tokens": 16}
NONE = {"cached_tokens": 0, "reasoning_tokens": 0, "cost": 0.0}
DONE = {"state": "completed"}
FAILED = {"state": "failed", "error": "ValueError: no good"}
STORY = [
    {"level": "INFO", "event": "run_started", "state": "running", **PLACE},
    {"level": "DEBUG", "event": "step_started", "state": "running", **ASKED},
    {"level": "DEBUG", "event": "model_called", **DONE, **ASKED, **ANSWER, **TOKENS, **NONE},
    {"level": "DEBUG", "event": "step_finished", **DONE, **ASKED, "attempts": 1},
    {"level": "INFO", "event": "run_started", "state": "running", **CHILD},
    {"level": "DEBUG", "event": "step_started", "state": "running", **BROKEN},
    {"level": "ERROR", "event": "step_finished", **FAILED, **BROKEN, "attempts": 1},
    {"level": "ERROR", "event": "run_finished", **FAILED, **CHILD},
    {"level": "DEBUG", "event": "step_started", "state": "running", **SHAKY},
    {
        "level": "WARNING",
        "event": "step_retried",
        **SHAKY,
        "attempt": 1,
        "wait_ms": 0.0,
        "reason": "Flaky: not {yet}",
    },
    {"level": "DEBUG", "event": "step_finished", **DONE, **SHAKY, "attempts": 2},
    {"level": "INFO", "event": "run_finished", **DONE, **PLACE},
]


@pytest.mark.usefixtures("no_waits", "background")
@pytest.mark.parametrize("begin", [run, lambda fn: start(fn).result()], ids=["run", "start"])
@pytest.mark.parametrize("story", [sync_story, async_story])
def test_a_story_is_told_in_the_same_lines(story: Any, begin: Any, log: io.StringIO) -> None:
    """A model call, a failing child and a retry give the same lines in every mode, on both backends."""
    configure(model="offline")
    assert begin(with_options(story(), correlation_id="request 7")) == 1
    assert told(log) == STORY


@pytest.mark.anyio
@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("story", [sync_story, async_story])
async def test_a_story_is_told_in_the_same_lines_in_a_loop(story: Any, log: io.StringIO) -> None:
    """So it is in the loop of the caller."""
    configure(model="offline")
    assert await arun(with_options(story(), correlation_id="request 7")) == 1
    assert told(log) == STORY


def stuck(*, is_async: bool) -> Any:
    if is_async:

        @workflow(name="stuck")
        async def forever() -> None:
            await anyio.sleep_forever()

        return forever

    @step
    def tick() -> None:
        pass

    @workflow(name="stuck")
    def ticking() -> None:
        while True:  # every call of a step looks whether the run is over
            tick()

    return ticking


@pytest.mark.usefixtures("background")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_cancelled_run_is_told(is_async: bool, heard: Heard) -> None:
    """A cancellation that was asked for is the end of the run, and no failure."""
    stream = io.StringIO()
    log_to(stream)
    handle = start(stuck(is_async=is_async))
    heard.wait(flowlet.events.RunStarted)
    handle.cancel()
    with pytest.raises(flowlet.RunCancelled):
        handle.result()
    heard.wait(flowlet.events.RunFinished)
    place = {"run_id": "stuck", "correlation_id": "stuck", "workflow": "stuck"}
    first, last = [line for line in told(stream) if line["event"].startswith("run_")]
    assert first == {"level": "INFO", "event": "run_started", "state": "running", **place}
    assert last.pop("error").startswith("RunCancelled: ")
    assert last == {"level": "INFO", "event": "run_finished", "state": "cancelled", **place}


@pytest.mark.usefixtures("background")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_timed_out_run_is_told(is_async: bool, heard: Heard) -> None:
    """A deadline that passed is a failure, with its own state."""
    stream = io.StringIO()
    log_to(stream)
    with pytest.raises(flowlet.WorkflowTimeout):
        run(with_options(stuck(is_async=is_async), timeout=0.05))
    heard.wait(flowlet.events.RunFinished)
    (last,) = [line for line in told(stream) if line["event"] == "run_finished"]
    assert last.pop("error").startswith("WorkflowTimeout: ")
    place = {"run_id": "stuck", "correlation_id": "stuck", "workflow": "stuck"}
    assert last == {"level": "ERROR", "event": "run_finished", "state": "timeout", **place}


def test_a_refusal_of_a_budget_is_told(log: io.StringIO) -> None:
    """A call that a budget forbids leaves a warning with the figures."""
    configure(model="offline")

    @workflow
    def greedy(llm: LLM = LLM()) -> None:
        llm.ask("one")
        llm.ask("two")

    with pytest.raises(BudgetExceeded):
        run(with_options(greedy, budget=Budget(calls=1)))
    (refusal,) = [line for line in told(log) if line["event"] == "budget_refused"]
    assert refusal.items() >= {"level": "WARNING", "model": "offline", "spent": "1 call"}.items()
    assert refusal["limit"] == "1 call"


@pytest.mark.usefixtures("no_waits")
def test_a_retry_of_a_model_call_is_told(log: io.StringIO) -> None:
    """Its attempts are lines of their own, with the reason and the wait between."""
    fault = ProviderError("rate_limit", "slow down", retryable=True, retry_after=2.0)
    configure(providers={"mock": MockProvider([fault, "yes"])}, model="mock:m")
    assert LLM().ask("hm?") == "yes"
    first, again, second = lines(log)
    assert (first["state"], first["attempt"], second["state"], second["attempt"]) == (
        "failed",
        1,
        "completed",
        2,
    )
    assert again["event"] == "model_retried"
    assert again["wait_ms"] >= 0
    assert "slow down" in again["reason"]


def test_a_stream_is_one_line(log: io.StringIO) -> None:
    """Streaming goes on in pieces; its line comes with the end, and the answer on request."""
    configure(model="offline")
    log_to(log, level="DEBUG", prompts=True)
    with LLM().stream("hello") as pieces:
        text = "".join(pieces)
    (line,) = lines(log)
    assert line["answer"] == text
    assert line["prompt"] == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("event", "level", "words"),
    [
        (ThreadAbandoned(INFO, 1.0, "s", 2), "WARNING", "left behind"),
        (LoopRetired(INFO, 1.0, "trio", "s"), "WARNING", "given up"),
        (FailureUnfetched(INFO, 1.0, "ValueError: x"), "ERROR", "nobody fetched"),
        (RunsCancelledAtExit((INFO,), 1.0), "WARNING", "talk r1"),
        (PluginFailed(None, 1.0, "observer f", "ValueError", "dist"), "ERROR", "observer f of dist"),
        (BudgetRefused(INFO, 1.0, "s", "m", "run", "3 calls", "3 calls"), "WARNING", "3 calls per run"),
        (CacheFailed(INFO, 1.0, "s", "the disk is full"), "WARNING", "the cache of step s failed"),
        (PIIFound(INFO, 1.0, "s", "m", "warn", ("email",)), "WARNING", "is sent: email"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_wrong_around_runs_is_told(event: Any, level: str, words: str) -> None:
    """Each such event has a level, words, and fields that JSON can hold."""
    stream, text = io.StringIO(), io.StringIO()
    log_to(stream)
    log_to(text, format="text")
    process.notice(event)
    (line,) = lines(stream)
    assert (line["level"], line["time"]) == (level, "1970-01-01T00:00:01.000000+00:00")
    assert words in text.getvalue()


def test_no_field_is_taken_in_a_record_of_logging() -> None:
    """The fields of every event can be extras of the standard library's records."""
    taken = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    for kind in flowlet.events.Event.__args__:
        fields = {a.name for a in kind.__attrs_attrs__} - {"run", "runs", "record"}
        assert not fields & taken


# --- texts are safe ------------------------------------------------------------------------------

NASTY = "{0} {x} <red>%s</red> \x1b[31m\r\n2026 ERROR forged \u202e \ud800"


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_texts_of_users_stay_in_their_line(format: Any, encoding: str) -> None:
    """Braces and markup survive; control characters can neither forge a line nor steer a terminal."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    log_to(stream, format=format)
    process.notice(PluginFailed(None, 1.0, NASTY, "é"))
    stream.flush()
    line = raw.getvalue().decode(encoding)
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    if format == "json":
        assert json.loads(line)["plugin"] == NASTY
    else:
        assert "{0} {x} <red>%s</red> " in line


def test_secrets_are_redacted_everywhere(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
    """A key is in no line, wherever it comes from and whatever it is in."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    text = io.StringIO()
    log_to(log, level="DEBUG", prompts=True)
    log_to(text, level="DEBUG", prompts=True, format="text")
    configure(providers={"mock": MockProvider([f"I know {KEY}"])}, model="mock:m")

    @step(name=f"step {KEY}")
    def leaky(llm: LLM = LLM()) -> None:
        llm.ask(f"say {KEY}")
        raise ValueError(KEY)

    with pytest.raises(ValueError, match=KEY):
        run(with_options(leaky, tags=[KEY], correlation_id=KEY, run_id=f"run-{KEY}"))
    for stream in (log, text):
        assert stream.getvalue().count("\n") == 5
        assert KEY[:12] not in stream.getvalue()


def test_a_key_given_to_the_provider_is_a_secret() -> None:
    """It need not be in the environment."""
    OpenAIProvider(KEY, base_url="http://localhost:1/v1")._account()
    assert process.redactor.contains_secret(f"x {KEY}")


def test_prompts_and_answers_are_logged_on_request_only(log: io.StringIO) -> None:
    """They are the user's; without being asked for, they are in no line, at no level."""
    configure(model="offline")
    LLM().ask("my secret wish")
    assert "wish" not in log.getvalue()


# --- where the lines go --------------------------------------------------------------------------


@step
def one() -> int:
    return 1


def test_files_are_appended_to(tmp_path: Path) -> None:
    """A path is a path, with its braces; its folder is made."""
    path = tmp_path / "new" / "{x}.jsonl"
    for _ in range(2):
        log_to(path)
        run(one)
        log_to(None)
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == [
        "run_started",
        "run_finished",
    ] * 2


def test_a_second_call_replaces_the_first(log: io.StringIO) -> None:
    """A cell that is executed again does not double the lines."""
    log_to(log)
    run(one)
    assert [line["event"] for line in lines(log)] == ["run_started", "run_finished"]


def test_configure_leaves_logs_alone(log: io.StringIO) -> None:
    """Other observers don't replace the log."""
    configure(observers=[])
    run(one)
    assert len(lines(log)) == 4


def test_a_run_that_goes_on_follows_a_change(log: io.StringIO) -> None:
    """A level that is changed while a run goes on holds for it too."""

    @workflow
    def talk() -> None:
        one()
        log_to(log, level="ERROR")
        one()

    run(talk)
    assert [line["event"] for line in lines(log)] == ["run_started", "step_started", "step_finished"]


def test_text_is_for_terminals() -> None:
    """A terminal gets text by itself."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    log_to(terminal)
    process.notice(FailureUnfetched(INFO, 1.0, "ValueError: x"))
    assert terminal.getvalue().endswith(
        " ERROR   run talk failed and nobody fetched its result: ValueError: x  [talk r1]\n"
    )


def test_faults_of_arguments_are_told_together() -> None:
    """What can't be is refused, with what was found and what is expected."""
    with pytest.raises(ConfigError) as caught:
        log_to(5, level="LOUD", format="xml")  # type: ignore[call-overload, arg-type]
    assert [fault.partition("=")[0] for fault in caught.value.faults] == ["target", "level", "format"]


def test_a_broken_stream_is_told_once(heard: Heard) -> None:
    """A log that can't be written hurts no run, and the diagnostics hear of it."""
    noticed: list[Any] = []
    process.notices = (noticed.append,)
    stream = io.StringIO()
    log_to(stream)
    stream.close()
    assert run(one) == 1
    (failure,) = noticed
    assert isinstance(failure, PluginFailed)
    assert "closed file" in failure.error


def test_nothing_is_said_twice(log: io.StringIO) -> None:
    """What a log says, the diagnostics leave out; below its level they say it."""
    noticed: list[Any] = []
    process.notices = (noticed.append,)
    event = ThreadAbandoned(INFO, 1.0, "s", 1)
    process.notice(event)
    assert noticed == []
    log_to(log, level="ERROR")
    process.notice(event)
    assert noticed == [event]


def test_a_run_within_a_sink_is_not_logged() -> None:
    """A stream that itself runs something neither deadlocks nor goes on for ever."""

    class Busy(io.StringIO):
        def write(self, text: str) -> int:
            run(one)
            return super().write(text)

    stream = Busy()
    log_to(stream)
    run(one)
    assert [line["event"] for line in lines(stream)] == ["run_started", "run_finished"]


# --- the host's loggers --------------------------------------------------------------------------


@pytest.fixture
def sink() -> Iterator[list[Any]]:
    """What the host's own loguru gets; the handlers that it had before come back."""
    found: list[Any] = []
    number = host.add(found.append, level=0, diagnose=True, backtrace=True)
    yield found
    host.remove(number)


def test_the_loguru_of_the_host_is_left_alone(sink: list[Any], log: io.StringIO) -> None:
    """Its handlers stay, and get none of our lines."""
    before = repr(host)
    run(one)
    assert repr(host) == before
    assert sink == []
    host.info("mine")
    assert len(sink) == 1
    assert "mine" not in log.getvalue()


def test_the_loguru_of_the_host_gets_the_lines_when_asked() -> None:
    """Its handlers get sentences, with the fields as extras."""
    found: list[Any] = []
    stream = io.StringIO()
    numbers = [host.add(found.append, format="{message}"), host.add(stream, serialize=True)]
    try:
        log_to(host.opt(colors=True))
        process.notice(PluginFailed(INFO, 1.0, "a {b} <red>", "no </x>"))
    finally:
        for number in numbers:
            host.remove(number)
    (message,) = found
    assert message == "a {b} <red> failed: no </x>\n"
    assert message.record["extra"].items() >= {"event": "plugin_failed", "run_id": "r1"}.items()
    assert message.record["name"].startswith("flowlet.")
    assert json.loads(stream.getvalue())["record"]["extra"]["workflow"] == "talk"


def test_the_logging_of_the_host_gets_the_lines_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    """Its handlers get sentences, with the fields as attributes of the record."""
    with caplog.at_level(logging.INFO):
        log_to(logging.getLogger("mine"))
        process.notice(PluginFailed(INFO, 1.0, "100% {b}", "%s"))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mine", "ERROR")
    assert record.getMessage() == "100% {b} failed: %s"
    assert vars(record).items() >= {"event": "plugin_failed", "run_id": "r1"}.items()


def test_structlog_gets_the_lines_through_logging() -> None:
    """A host whose structlog formats the standard library's records has the fields."""
    structlog = pytest.importorskip("structlog")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(),
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        )
    )
    mine = logging.getLogger("with structlog")
    mine.propagate = False
    mine.addHandler(handler)
    log_to(mine)
    process.notice(PluginFailed(INFO, 1.0, "p", "e"))
    assert json.loads(stream.getvalue())["run_id"] == "r1"


@pytest.mark.usefixtures("no_waits")
def test_the_hooks_of_stamina_hear_of_the_retries_of_the_host_only(log: io.StringIO) -> None:
    """Ours are told in our log; told by stamina too, a retry would be there twice, with a wrong wait."""
    seen: list[str] = []
    configure(model="offline")
    stamina.instrumentation.set_on_retry_hooks([lambda details: seen.append(details.name)])
    try:
        assert run(sync_story()) == 1
        assert seen == []
        tries = iter([Flaky, int])

        @stamina.retry(on=Flaky, attempts=2)
        def of_the_host() -> None:
            if (kind := next(tries)) is Flaky:
                raise kind

        of_the_host()
        assert len(seen) == 1
    finally:
        stamina.instrumentation.set_on_retry_hooks(None)
    assert [line["event"] for line in lines(log)].count("step_retried") == 1


def test_lines_of_many_threads_stay_whole(log: io.StringIO) -> None:
    """Runs that go on at the same time don't cut one another's lines."""
    handles = [start(with_options(one, tags=["t" * 500])) for _ in range(50)]
    assert [handle.result() for handle in handles] == [1] * 50
    assert len(lines(log)) == 200


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


FAILING = """
    import sys
    import flowlet
    from flowlet import LLM, run, step, start, log_to

    @step(attempts=2)
    def fails():
        raise ValueError("no")

    def go():
        try:
            run(fails)
        except ValueError:
            pass
"""


def test_a_library_is_quiet_until_it_is_asked() -> None:
    """A run with a retry and a failure prints nothing, and does not even import loguru."""
    ran = python(FAILING + "\n    go()\n    assert 'loguru' not in sys.modules")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("before", ["", "from loguru import logger", "logging.basicConfig(level=0)"])
def test_one_line_asks(before: str) -> None:
    """Each line comes once, whatever the host has set up, and nothing beside them."""
    code = f"\n    import logging\n    {before}\n    log_to(sys.stderr)\n    go()"
    ran = python(FAILING + code)
    found = [json.loads(line) for line in ran.stderr.splitlines()]
    events = [line["event"] for line in found]
    assert events == ["run_started", "step_retried", "step_finished", "run_finished"]
    assert (ran.returncode, ran.stdout) == (0, "")


def test_settings_ask_for_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Environment and configure() turn a log on, change it and turn it off."""
    monkeypatch.setenv("FLOWLET_LOG_LEVEL", "INFO")
    configure(observers=[])
    run(one)
    configure(log=LogSettings(level="DEBUG", file=str(tmp_path / "log")))
    run(one)
    configure(log=LogSettings())
    run(one)
    first = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert first == ["run_started", "run_finished"]
    assert len((tmp_path / "log").read_text().splitlines()) == 4


def test_a_log_of_the_settings_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    """It is told with the name of the setting, before anything runs."""
    configure(log=LogSettings(level="INFO", file=str(tmp_path)))
    with pytest.raises(ConfigError, match="log.file = "):
        run(one)
    with pytest.raises(ConfigError, match="log.file = "):
        LLM("offline:x").ask("hello")


def test_files_are_closed_at_exit(tmp_path: Path) -> None:
    """Not even the strictest Python has a warning about them."""
    path = tmp_path / "log.jsonl"
    ran = python(FAILING + f"\n    log_to({str(path)!r})\n    go()")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(path.read_text().splitlines()) == 4


def test_levels_are_those_of_the_standard_library() -> None:
    """Names and numbers are known to every tool."""
    assert {name: logging.getLevelName(name) for name in LEVELS} == LEVELS


def test_fields_and_sentence_of_an_unknown_event() -> None:
    """An event that has no words of its own yet is told by its name and fields."""
    from attrs import frozen

    @frozen
    class MoonRose:
        run: RunInfo
        at: float
        height: int

    event: Any = MoonRose(INFO, 1.0, 3)
    assert fields_of(event, str)["height"] == 3
    assert sentence_of(event, str) == "moon_rose"
