"""A canary key in every place where one can be, and nowhere a sign of it: in no log, traceback, repr or recording.

The host's own frames hold no key here (``key()`` gives it, and steps delete their arguments): what a formatter
shows of them is the host's own doing. All that is left to show is ours.
"""

import inspect
import io
import json
import logging
import os
import pickle
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import anyio
import attrs
import loguru
import pytest
import rich.console
import rich.traceback
import structlog

from flowlet import (
    LLM,
    AsyncLLM,
    FlowletError,
    apmap,
    arun,
    configure,
    failure_of,
    last_run,
    log_to,
    pmap,
    register_provider,
    report,
    run,
    runs,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.errors import OutputError, ProviderError, RecordingError
from flowlet.messages import Completion, Delta, Request
from flowlet.observers.logs import _second_logger
from flowlet.providers.openai import OpenAIProvider
from flowlet.settings import OpenAISettings, process
from flowlet.testing import MockProvider, recording
from rig import ALL_MODULES, Heard
from server import Body, Drop, Redirect, Server, Status, Stream

pytest_plugins = "pytester"
LOADED = [*map(import_module, ALL_MODULES)]

NAME = "OPENAI_API_KEY"


def key() -> str:
    return os.environ[NAME]


@pytest.fixture(autouse=True)
def in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where keys come from; with characters that are escaped in URLs, and no shape that keys have."""
    monkeypatch.setenv(NAME, "c4n4ry/Key+odd=4~0123456789")
    process.reset()


def forms() -> Iterator[str]:
    """Every way in which the key could be told: whole or by its first 12 characters, in each encoding."""
    for text in (key(), key()[:12]):
        yield from (text, json.dumps(text)[1:-1], json.dumps(text)[1:-1].replace("/", "\\/"))
        yield from (quote(text, safe=""), quote(text), quote_plus(text), quote(text, safe="").lower())
    for before in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(b"x" * before + key().encode()).decode()[(0, 2, 3)[before] :].rstrip("=")[:-1]


def leaks(text: str) -> list[str]:
    return [form for form in forms() if form in text]


def test_a_leak_would_be_found() -> None:
    """In each encoding that is looked for."""
    for told in (
        key(),
        key()[:12],
        quote(key(), safe=""),
        json.dumps(key()),
        b64encode(f"ab:{key()}".encode()).decode(),
    ):
        assert leaks(f"x {told} y")
    assert not leaks("a text without it")


# --- what fails, with the key in one place -----------------------------------------------------------


class SDKError(Exception):
    """What a provider's SDK raises, with the key all over it."""


def sdk_error() -> SDKError:
    error = SDKError(f"Authorization: Bearer {key()}", {"headers": [quote(key(), safe="")]})
    error.add_note(f"a note with {key()}")
    error.__cause__ = ExceptionGroup("several", [ValueError(key()), KeyError(b64encode(key().encode()))])
    return error


class Careless:
    """A provider that lets the errors of its SDK through."""

    live = False

    def complete(self, request: Request) -> Completion:
        raise sdk_error()

    @contextmanager
    def stream(self, request: Request) -> Iterator[Iterator[Delta]]:
        def deltas() -> Iterator[Delta]:
            yield Delta("a")
            raise sdk_error()

        yield deltas()


class CarelessAsync:
    """The same, async."""

    live = False

    async def acomplete(self, request: Request) -> Completion:
        raise sdk_error()


@step
def breaks(secret: str) -> str:
    del secret
    raise LookupError("nothing there")


@step
async def abreaks(secret: str) -> str:
    del secret
    raise LookupError("nothing there")


@step(attempts=2, retry_on=LookupError, timeout=5)
def breaks_again(secret: str) -> str:
    del secret
    raise LookupError("nothing there")


@workflow
def body(secret: str) -> str:
    try:
        return breaks(secret)
    finally:
        del secret


@workflow
async def abody(secret: str) -> str:
    try:
        return breaks(secret)
    finally:
        del secret


@workflow
def counts(number: int) -> int:
    return number


@step
def asks(model: str, returns: Any = str) -> object:
    return LLM(model, system=f"The key is {key()}", attempts=1).ask(f"Is {key()} a key?", returns)


@step
async def aasks(model: str, returns: Any = str) -> object:
    return await AsyncLLM(model, attempts=1).ask(f"Is {key()} a key?", returns)


@step
def reads(model: str) -> str:
    with LLM(model).stream(f"Is {key()} a key?") as pieces:
        return "".join(pieces)


@step
async def areads(model: str) -> str:
    async with AsyncLLM(model).stream(f"Is {key()} a key?") as pieces:
        return "".join([piece async for piece in pieces])


def in_loop(backend: str, call: Callable[[], Any]) -> object:
    async def main() -> object:
        return await call()

    return anyio.run(main, backend=backend)


def arguments(backend: str) -> Iterator[Callable[[], object]]:
    """Calls with the key among the arguments."""
    for fn in (breaks, breaks_again, body):
        yield lambda fn=fn: fn(key())
        yield lambda fn=fn: run(fn, key())
        yield lambda fn=fn: run(with_options(fn, timeout=5), secret=key())
        yield lambda fn=fn: start(fn, key()).result(5)
        yield lambda fn=fn: in_loop(backend, lambda: arun(fn, key()))
    for afn in (abreaks, abody):
        yield lambda afn=afn: in_loop(backend, lambda: afn(key()))
        yield lambda afn=afn: run(afn, key())
        yield lambda afn=afn: start(afn, key()).result(5)
    yield lambda: pmap(breaks, [key()])
    yield lambda: in_loop(backend, lambda: apmap(abreaks, [key()]))
    yield lambda: run(counts, key())  # does not fit the hint


def of_models(backend: str) -> Iterator[Callable[[], object]]:
    """Model calls with the key in prompts, answers and the errors of providers."""
    register_provider("careless", Careless())
    register_provider("async", CarelessAsync())
    answers: list[Callable[[Request], object]] = [
        lambda request: key(),
        lambda request: json.dumps({"value": key()}),
        lambda request: Completion("", refusal=f"I won't tell {key()}"),
        lambda request: Completion(key(), finish_reason="length"),
        lambda request: ProviderError("server", f"bad {key()}", code=key()),
    ]
    for model in ("careless:m", "async:m"):
        yield lambda model=model: asks(model)
        yield lambda model=model: run(asks, model)
        yield lambda model=model: run(reads, model)
        yield lambda model=model: in_loop(backend, lambda: arun(aasks, model))
        yield lambda model=model: in_loop(backend, lambda: areads(model))
    for number, answer in enumerate(answers):
        register_provider(f"m{number}", MockProvider(answer))
        yield lambda number=number: run(asks, f"m{number}:m", int)
        yield lambda number=number: in_loop(backend, lambda: aasks(f"m{number}:m", int))
    register_provider("scripted", MockProvider([]))
    yield lambda: run(asks, "scripted:m")


def said() -> dict[str, str]:
    return {"message": f"bad key {key()}", "code": key(), "type": quote(key(), safe="")}


SERVERS: list[Callable[[], Any]] = [
    lambda: Status(401, **said()),
    lambda: Status(400, headers={"x-request-id": key()}, **said()),
    lambda: Status(404, body=f"<p>{key()}".encode()),
    lambda: Body(json.dumps({"error": said()}).encode()),
    lambda: Body(f"not JSON: {key()}".encode()),
    lambda: Body(json.dumps({"choices": [key()]}).encode()),
    lambda: Redirect(f"https://elsewhere.example/?key={quote(key(), safe='')}"),
    Drop,
    lambda: Stream(["a"], error=said()),
]
ADDRESSES: list[Callable[[], str]] = [
    lambda: f"http://user:{quote(key(), safe='')}@127.0.0.1:9/v1",
    lambda: f"http://127.0.0.1:9/v1?api-version=2024-10&key={quote(key(), safe='')}",
    lambda: f"gopher://{key()}",
    lambda: f"http://[{key()}",
]


def of_servers(backend: str) -> Iterator[Callable[[], object]]:
    """Calls of a server that tells the key back in every place that it has, or is not there."""
    for script in SERVERS:
        for fn in (asks, reads):
            yield lambda fn=fn, script=script: served(script, lambda: run(fn, "openai:m"))
        for afn in (aasks, areads):
            yield lambda afn=afn, script=script: served(
                script, lambda: in_loop(backend, lambda: arun(afn, "openai:m"))
            )
    for address in ADDRESSES:
        yield lambda address=address: of(lambda: OpenAIProvider(key(), address()))
        yield lambda address=address: of(lambda: OpenAIProvider("another-key-0123456789", address()))
    yield lambda: of(lambda: OpenAIProvider(f"{key()}\n☕", "http://127.0.0.1:9/v1"))


def served(script: Callable[[], Any], call: Callable[[], object]) -> object:
    with Server(lambda received: script(), keys=None) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.url)
        return call()


def of(make: Callable[[], OpenAIProvider]) -> object:
    register_provider("openai", make())
    return run(asks, "openai:m")


@pytest.fixture(params=[arguments, of_models, of_servers])
def failures(request: pytest.FixtureRequest, backend: str) -> Iterator[Exception]:
    """The errors that come out of flowlet, with the tracebacks that a host's logger gets."""

    def raised() -> Iterator[Exception]:
        configure(attempts=1, reasks=0)
        for call in request.param(backend):
            try:
                call()
            except (Exception, AssertionError) as exc:
                yield exc
            else:
                pytest.fail(f"it did not fail: {inspect.getsource(call)}")

    return raised()


# --- how a host shows an exception -------------------------------------------------------------------


def by_loguru(exc: Exception, **options: Any) -> str:
    stream = io.StringIO()
    logger = _second_logger()  # with no handler of another test
    logger.add(stream, catch=False, **options)
    logger.opt(exception=exc).error("it failed")
    return stream.getvalue()


def by_logging(exc: Exception) -> str:
    stream = io.StringIO()
    logging.StreamHandler(stream).handle(
        logging.LogRecord("host", logging.ERROR, "", 0, "it failed", (), (type(exc), exc, exc.__traceback__))
    )
    return stream.getvalue()


def by_structlog(exc: Exception) -> str:
    told = structlog.processors.dict_tracebacks(None, "error", {"event": "failed", "exc_info": exc})
    return json.dumps(told, default=repr)


def by_rich(exc: Exception) -> str:
    """What a rich traceback is drawn from; to draw it, with its colours, takes a second."""
    told = rich.traceback.Traceback.extract(type(exc), exc, exc.__traceback__, show_locals=True)
    lines = [f"{stack.exc_type}: {stack.exc_value} {stack.notes}" for stack in told.stacks]
    shown = [frame.locals or {} for stack in told.stacks for frame in stack.frames]
    return "\n".join([*lines, *(f"{name} = {node}" for names in shown for name, node in names.items())])


def by_traceback(exc: Exception) -> str:
    return "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())


SET_UPS: dict[str, Callable[[Exception], str]] = {
    "loguru as shipped": by_loguru,
    "loguru with diagnose": lambda exc: by_loguru(exc, diagnose=True, backtrace=True),
    "loguru serialized": lambda exc: by_loguru(exc, serialize=True),
    "logging": by_logging,
    "structlog": by_structlog,
    "rich": by_rich,
    "traceback with locals": by_traceback,
}


def test_no_set_up_of_a_host_shows_the_key(failures: Iterator[Exception]) -> None:
    """In any form, wherever it was: all failures, with their tracebacks, through all set-ups."""
    found = [
        (name, told, repr(exc)[:80])
        for exc in failures
        for name, show in SET_UPS.items()
        if (told := leaks(show(exc)))
    ]
    assert not found, found[:3]


def test_a_drawn_rich_traceback_shows_no_key() -> None:
    """Where arguments, prompt and answer have it."""
    register_provider("mock", MockProvider(lambda request: Completion(key(), finish_reason="length")))
    console = rich.console.Console(file=io.StringIO(), width=200)
    try:
        run(asks, "mock:m")
    except FlowletError:
        console.print(rich.traceback.Traceback(show_locals=True, width=200))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "the answer ended at the token limit" in told
    assert not leaks(told)


TESTS = """
import os
import pytest
from flowlet import LLM, register_provider, run, step
from flowlet.messages import Completion

def key():
    return os.environ["OPENAI_API_KEY"]

@step
def breaks(secret):
    del secret
    raise LookupError("nothing there")

@step
def asks(model="mock:m"):
    return LLM(model, system=f"The key is {key()}", attempts=1).ask(f"Is {key()} a key?", int)

def test_argument():
    run(breaks, key())

def test_answer(flowlet_mock):
    flowlet_mock(lambda request: f"It is {key()}")
    run(asks)

def test_unexpected_call(flowlet_mock):
    flowlet_mock([])
    run(asks)

def test_unused_answer(flowlet_mock):
    flowlet_mock([Completion(key())])

def test_not_recorded(flowlet_recording):
    run(asks, "openai:m")

def test_server(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:9/v1?key={key()}")
    run(asks, "openai:m")
"""


def test_the_failure_output_of_pytest_shows_no_key(pytester: pytest.Pytester) -> None:
    """With all that it can tell: locals and whole tracebacks."""
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-vv", "--showlocals", "--tb=long")
    result.assert_outcomes(failed=6)
    assert not leaks(result.stdout.str() + result.stderr.str())


# --- what flowlet itself tells -----------------------------------------------------------------------


@step
def raises(secret: str) -> str:
    raise sdk_error()


@workflow
def everything(secret: str) -> list[str]:
    """Tell the key in all that a run has: arguments, prompts, answers, and a failure of the host's own."""
    log = [LLM("mock:m", system=f"a {secret}").ask(secret)]
    with LLM("mock:m").stream(secret) as pieces:
        log.extend(pieces)
    with suppress(OutputError):
        LLM("mock:m").ask(secret, int)
    with suppress(FlowletError):
        LLM("careless:m", attempts=2).ask(secret)
    return [*log, raises(secret)]


def tell_everything() -> None:
    register_provider("mock", MockProvider(lambda request: f"the key is {key()}"))
    register_provider("careless", Careless())
    with pytest.raises(SDKError):
        run(with_options(everything, tags=[f"tag {key()}"], correlation_id=key()), key())


def to_stream(format: Any) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log_to(stream, level="DEBUG", format=format, prompts=True)
    yield stream


def to_loguru(**options: Any) -> Iterator[io.StringIO]:
    stream, logger = io.StringIO(), _second_logger()
    loguru.logger  # noqa: B018 -- a logger of loguru's is known when it was imported
    logger.add(stream, level=0, **options)
    log_to(logger, level="DEBUG", prompts=True)
    yield stream


def to_logging(formatter: logging.Formatter | None = None) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logger = logging.Logger("mine")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    log_to(logger, level="DEBUG", prompts=True)
    yield stream


LOGS = {
    "json": lambda: to_stream("json"),
    "text": lambda: to_stream("text"),
    "loguru as shipped": to_loguru,
    "loguru with diagnose": lambda: to_loguru(diagnose=True, backtrace=True, format="{message} {extra}"),
    "loguru serialized": lambda: to_loguru(serialize=True),
    "logging": to_logging,
    "structlog": lambda: to_logging(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(), foreign_pre_chain=[structlog.stdlib.ExtraAdder()]
        )
    ),
}


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_no_log_of_ours_has_the_key(log: Callable[[], Iterator[io.StringIO]]) -> None:
    """With prompts and answers, at the level that tells most, and the host's own error in it."""
    (stream,) = log()
    tell_everything()
    log_to(None)
    assert len(stream.getvalue().splitlines()) >= 10
    assert not leaks(stream.getvalue())


def test_nothing_that_a_run_leaves_has_the_key(heard: Heard, tmp_path: Path) -> None:
    """Handle, metrics, events, the place of the failure, the report."""
    try:
        tell_everything()
        raise AssertionError
    except AssertionError:
        pass
    handle = last_run()
    report(handle, tmp_path / "run.html")
    told = [repr(handle), repr(handle.metrics), str(handle.metrics), repr(runs()), *map(repr, heard.events)]
    told += [(tmp_path / "run.html").read_text(), repr([call.error for call in handle.metrics.calls])]
    assert len(heard.events) >= 10
    assert [leaks(text) for text in told if leaks(text)] == []


def test_the_place_of_a_failure_has_no_key() -> None:
    """The exception itself is the host's, and as it was."""
    with pytest.raises(SDKError) as caught:
        run(raises, key())
    failure = failure_of(caught.value)
    assert failure is not None
    assert not leaks(repr(failure) + failure.message + failure.note())
    assert key() in caught.value.args[0]


# --- reprs -------------------------------------------------------------------------------------------

MODULES = (
    "",
    ".messages",
    ".errors",
    ".events",
    ".metrics",
    ".protocols",
    ".testing",
    ".settings",
    ".entries",
    ".pii",
)
PUBLIC = {
    getattr(module, name)
    for module in (import_module(f"flowlet{name}") for name in MODULES)
    for name in module.__all__
}
VALUES = sorted(
    (cls for cls in PUBLIC if inspect.isclass(cls) and attrs.has(cls)), key=lambda cls: cls.__name__
)


def full_of(cls: type, told: object) -> Any:
    """A value whose every field has *told*, past all checks."""
    value = cls.__new__(cls)
    for field in attrs.fields(cls):
        object.__setattr__(value, field.name, told)
    return value


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
def test_no_repr_of_a_public_value_has_the_key(cls: type) -> None:
    """In whatever field it is; as rich shows values, too."""
    for told in (key(), [key()], {"a": (key(),)}, full_of(Delta, key())):
        value = full_of(cls, told if cls is not OpenAISettings else f"https://any:{key()}@models.example")
        assert not leaks(repr(value))
        assert not leaks(rich.pretty.pretty_repr(value))


ERRORS = [cls for cls in VALUES if issubclass(cls, FlowletError) and cls.__name__ != "FlowletError"]


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_no_error_of_ours_says_the_key(cls: type[FlowletError]) -> None:
    """What was found goes into messages; names and ids are no place for a key."""
    found = {
        "message": f"see {key()}",
        "faults": (f"found {key()}",),
        "code": key(),
        "request_id": key(),
        "kind": "server",
    }
    names = [field.name for field in attrs.fields(cls)]
    error = cls(**{name: found.get(name) for name in names if name not in ("text", "usage")})
    assert not leaks(repr(error) + repr(error.args))
    if found.keys() & set(names):
        assert not leaks(str(error) + str(pickle.loads(pickle.dumps(error))))


# --- recordings --------------------------------------------------------------------------------------


def test_what_a_recording_asks_has_no_key(tmp_path: Path) -> None:
    """In prompts, settings and schemas it is redacted; a replay finds the answer, whatever the key is by then."""
    register_provider("mock", MockProvider(lambda request: "Leaves."))
    llm = LLM("mock:m", system=f"a {key()}", stop=(key(),), extra={"user": f"me:{key()}"})
    with recording(tmp_path / "talk.json", "all"):
        assert llm.ask(f"{key()} {quote(key(), safe='')} {b64encode(key().encode()).decode()}") == "Leaves."
    assert not leaks((tmp_path / "talk.json").read_text())


ANSWERS: dict[str, Callable[[], object]] = {
    "whole": lambda: f"It is {key()}.",
    "a part": lambda: f"It begins with {key()[:13]}.",
    "in an address": lambda: f"https://models.example/?key={quote(key(), safe='')}",
    "in base64": lambda: b64encode(f"user:{key()}".encode()).decode(),
    "in JSON": lambda: json.dumps({"key": key()}),
    "refusal": lambda: Completion("", refusal=key()),
    "model": lambda: Completion("", model=key()),
    "request id": lambda: Completion("", request_id=key()),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_recording_of_an_answer_with_the_key_is_refused(
    answer: Callable[[], object], tmp_path: Path
) -> None:
    """Wherever in the answer it is, and in whatever form; the error itself does not tell it."""
    register_provider("mock", MockProvider(lambda request: answer()))
    refused = pytest.raises(RecordingError, match="holds a registered secret")
    with refused as caught, recording(tmp_path / "talk.json", "all"):
        LLM("mock:m").complete(f"Is it {key()}?")
    assert list(tmp_path.iterdir()) == []
    assert not leaks(str(caught.value))


def test_what_a_miss_shows_has_no_key(tmp_path: Path) -> None:
    """Neither of what was recorded nor of what was asked."""
    register_provider("mock", MockProvider(lambda request: "Leaves."))
    with recording(tmp_path / "talk.json", "all"):
        LLM("mock:m").ask(f"one\n{key()}")
    with pytest.raises(RecordingError, match=r"\+ .*two") as caught, recording(tmp_path / "talk.json"):
        LLM("mock:m").ask(f"two\n{key()}")
    assert not leaks(str(caught.value))
