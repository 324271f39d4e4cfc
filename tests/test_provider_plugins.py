"""Providers as plugins: found by name, and kept from hurting more than the run that asks them."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest

from flowlet import (
    LLM,
    AsyncLLM,
    ConfigError,
    DefinitionError,
    PluginError,
    ProviderError,
    arun,
    configure,
    register_provider,
    run,
    start,
    step,
    with_options,
)
from flowlet._engine import _models
from flowlet._engine._lifetimes import Lifetimes
from flowlet.events import PluginFailed
from flowlet.messages import Completion, Delta, Request
from flowlet.metrics import TokenUsage
from flowlet.settings import process
from flowlet.testing import MockProvider
from rig import PATIENCE, Heard
from test_plugins import install, site
from test_step_plugins import Odd

__all__ = ["site"]

TOKENS = TokenUsage(1, 1, 2)
WRONG = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, Odd]


@step
def ask(model: str) -> str:
    return LLM(model, timeout=0.3, attempts=1).ask("x")


@step
async def aask(model: str) -> str:
    return await AsyncLLM(model, timeout=0.3, attempts=1).ask("x")


@step
def streamed(model: str) -> str:
    with LLM(model).stream("x") as pieces:
        return "".join(pieces)


@step
async def astreamed(model: str) -> str:
    async with AsyncLLM(model).stream("x") as pieces:
        return "".join([piece async for piece in pieces])


@pytest.fixture(params=["run", "start", "arun", "astart"])
def asking(request: pytest.FixtureRequest, backend: str) -> Callable[..., object]:
    """Asks a model in a run, begun in every way."""
    mode = request.param

    def asks(model: str, fns: tuple[Callable[..., object], ...] = (ask, aask)) -> object:
        configure(backend=backend)
        fn = fns[mode.startswith("a")]
        if mode == "run":
            return run(fn, model)
        return (
            anyio.run(arun, fn, model, backend=backend)
            if mode == "arun"
            else start(fn, model).result(PATIENCE)
        )

    return asks


def provider(colour: str, act: Callable[[], object]) -> object:
    """A provider of *colour* that does *act* when it is asked."""

    class Sync:
        live = False

        def complete(self, request: Request) -> object:
            return act()

        @contextmanager
        def stream(self, request: Request):
            def deltas():
                yield Delta("te")
                act()

            yield deltas()

    class Async:
        live = False

        async def acomplete(self, request: Request) -> object:
            await anyio.sleep(0)
            return act()

        @asynccontextmanager
        async def astream(self, request: Request):
            async def deltas():
                yield Delta("te")
                act()

            made = deltas()
            try:
                yield made
            finally:
                await made.aclose()

    return Sync() if colour == "def" else Async()


def raising(exc: type[BaseException]) -> Callable[[], object]:
    def act() -> object:
        raise exc("odd")

    return act


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize("exc", WRONG, ids=lambda exc: exc.__name__)
def test_what_it_raises_fails_its_run_alone(
    exc: type[BaseException], colour: str, asking: Callable[..., object], heard: Heard
) -> None:
    """It becomes a ProviderError, and is told once."""
    register_provider("odd", provider(colour, raising(exc)))
    register_provider("mock", MockProvider(lambda request: "tea"))
    name = "RuntimeError" if exc is StopIteration and colour == "async def" else exc.__name__
    with pytest.raises(ProviderError, match=f"odd: the provider raised {name}") as caught:
        asking("odd:m")
    assert caught.value.kind == "other"
    assert [event.plugin for event in heard.of(PluginFailed)] == ["provider odd"]
    assert asking("mock:m") == "tea"


@pytest.mark.parametrize("exc", [ValueError, SystemExit, Odd], ids=lambda exc: exc.__name__)
def test_what_a_stream_raises_fails_its_run_alone(
    exc: type[BaseException], asking: Callable[..., object], heard: Heard
) -> None:
    """Between its pieces, too."""
    both = type("Both", (), {"live": False})()
    for colour, names in (("def", ("complete", "stream")), ("async def", ("acomplete", "astream"))):
        for name in names:
            setattr(both, name, getattr(provider(colour, raising(exc)), name))
    register_provider("odd", both)
    with pytest.raises(ProviderError, match=f"the provider raised {exc.__name__}"):
        asking("odd:m", (streamed, astreamed))
    assert [event.plugin for event in heard.of(PluginFailed)] == ["provider odd"]


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize(
    "answer", ["tea", None, Completion("tea", "many")], ids=["text", "nothing", "no usage"]
)  # type: ignore[arg-type]
def test_a_wrong_answer_is_a_failure(
    answer: object, colour: str, asking: Callable[..., object], heard: Heard
) -> None:
    """What it returned is told."""
    register_provider("odd", provider(colour, lambda: answer))
    with pytest.raises(ProviderError, match="the provider returned") as caught:
        asking("odd:m")
    assert caught.value.kind == "bad_response"
    (event,) = heard.of(PluginFailed)
    assert event.plugin == "provider odd"
    assert event.error.startswith("it returned ")


def test_a_hang_ends_with_the_time_of_the_call(
    asking: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a sync provider hangs in sync code."""
    monkeypatch.setattr(_models, "OVERDUE", 0.01)
    free = threading.Event()
    register_provider("stuck", provider("def", lambda: free.wait(PATIENCE)))
    started = time.monotonic()
    try:
        with pytest.raises(ProviderError, match=r"no whole answer within 0.3 s") as caught:
            asking("stuck:m")
    finally:
        free.set()
    assert caught.value.kind == "timeout"
    assert time.monotonic() - started < PATIENCE / 2


def test_a_late_answer_is_not_booked_twice() -> None:
    """The attempt was given up, and is one call."""
    free, answered = threading.Event(), threading.Event()

    def act() -> Completion:
        free.wait(PATIENCE)
        answered.set()
        return Completion("late", TOKENS)

    register_provider("stuck", provider("def", act))
    handle = start(with_options(lambda: LLM("stuck:m", timeout=0.05, attempts=1).ask("x")))
    with pytest.raises(ProviderError):
        handle.result(PATIENCE)
    free.set()
    assert answered.wait(PATIENCE)
    assert handle.metrics.usage.calls == 1


def test_who_keeps_the_time_is_called_in_the_callers_thread() -> None:
    """Others are called on one that can be left behind; context variables come through either way."""
    threads = []

    class Kept:
        live = False
        keeps_time = True

        def complete(self, request: Request) -> Completion:
            threads.append(threading.current_thread())
            return Completion("tea", TOKENS)

    class Other(Kept):
        keeps_time = False

    register_provider("kept", Kept())
    register_provider("other", Other())
    for name in ("kept:m", "other:m"):
        assert run(ask, name) == "tea"
    assert [thread is threading.current_thread() for thread in threads] == [True, False]


ECHO = """
from flowlet.messages import Completion
from flowlet.metrics import TokenUsage
class Echo:
    live = False
    made = 0
    def __init__(self): Echo.made += 1
    def complete(self, request):
        return Completion(request.messages[-1].content, TokenUsage(1, 1, 2))
echo = Echo()
"""


@pytest.mark.parametrize("name", ["Echo", "echo"])
def test_an_installed_provider_is_found_by_its_name(
    name: str, site: Path, asking: Callable[..., object]
) -> None:
    """An object, or a class of which one is made."""
    install(site, "tea-echo", ECHO, f"[flowlet.providers]\necho = tea_echo:{name}\n")
    assert [asking("echo:m") for _ in range(2)] == ["x", "x"]
    assert sys.modules["tea_echo"].Echo.made == 1 + (name == "Echo")


def test_an_installed_one_fails_with_its_distribution(site: Path, heard: Heard) -> None:
    """Who is to blame can be looked up."""
    code = "class Bad:\n    live = False\n    def complete(self, request):\n        raise SystemExit(3)\n"
    install(site, "tea-bad", code, "[flowlet.providers]\nbad = tea_bad:Bad\n")
    with pytest.raises(ProviderError, match="SystemExit"):
        run(ask, "bad:m")
    (event,) = heard.of(PluginFailed)
    assert (event.plugin, event.distribution, event.version) == ("provider bad", "tea-bad", "1.2")


def test_the_built_in_ones_can_not_be_shadowed_by_a_package(site: Path) -> None:
    """Only code that registers one replaces them."""
    install(site, "tea-echo", ECHO, "[flowlet.providers]\noffline = tea_echo:Echo\n")
    assert "[offline]" in run(ask, "offline:m")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_that_name", "can't be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "can't be imported: SystemExit: 3"),
        ("raise KeyboardInterrupt", "can't be imported: KeyboardInterrupt"),
        ("def", "can't be imported: SyntaxError"),
        ("x = 1", "can't be imported: AttributeError"),
        ("class Echo:\n    def __init__(self): 1 / 0", "it can't be made: ZeroDivisionError"),
        ("class Echo: pass", r"complete\(request\), acomplete\(request\) or both; found Echo"),
    ],
)
def test_a_broken_one_fails_the_runs_that_ask_it(code: str, reason: str, site: Path, heard: Heard) -> None:
    """The error says what is broken; it is told once, and other providers go on."""
    install(site, "tea-echo", code, "[flowlet.providers]\necho = tea_echo:Echo\n")
    for _ in range(2):
        with pytest.raises(PluginError, match=f"provider 'echo' of tea-echo 1.2.*{reason}"):
            run(ask, "echo:m")
    assert "[offline]" in run(ask, "offline:m")
    assert [event.distribution for event in heard.of(PluginFailed)] == ["tea-echo"]


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ("Requires-Dist: flowlet>=99", "it needs flowlet >=99, this is "),
        ("Requires-Dist: Flowlet <0.0.1 ; python_version > '3'", "it needs flowlet <0.0.1"),
        ("Requires-Python: >=4", "it needs Python >=4, this is 3"),
        ("Requires-Dist: flowlet ??", "its requirements can't be read"),
    ],
)
def test_one_that_does_not_fit_is_not_even_imported(
    needs: str, reason: str, site: Path, heard: Heard
) -> None:
    """Its metadata say so."""
    install(site, "tea-echo", ECHO, "[flowlet.providers]\necho = tea_echo:Echo\n", needs=needs + "\n")
    with pytest.raises(PluginError, match=f"{reason}.*install a version that fits"):
        run(ask, "echo:m")
    assert "tea_echo" not in sys.modules
    assert len(heard.of(PluginFailed)) == 1


@pytest.mark.parametrize(
    "needs",
    ["Requires-Dist: flowlet>=0.0.1", "Requires-Dist: flowlet>=99; extra == 'all'", "Requires-Dist: other>9"],
)
def test_other_requirements_are_no_concern(needs: str, site: Path) -> None:
    """Extras that nobody asked for, and other packages."""
    install(site, "tea-echo", ECHO, "[flowlet.providers]\necho = tea_echo:Echo\n", needs=needs + "\n")
    assert run(ask, "echo:m") == "x"


def test_two_of_one_name_are_refused(site: Path) -> None:
    """Neither is guessed."""
    for name in ("tea-echo", "tee-echo"):
        points = f"[flowlet.providers]\necho = {name.replace('-', '_')}:Echo\n"
        install(site, name, ECHO, points)
    with pytest.raises(
        PluginError, match=r"tea-echo 1.2 and tee-echo 1.2 both have it|tee-echo 1.2 and tea-echo 1.2"
    ):
        run(ask, "echo:m")


def test_an_unknown_name_tells_what_is_installed(site: Path) -> None:
    """The nearest of all that there are."""
    install(site, "tea-echo", ECHO, "[flowlet.providers]\necho = tea_echo:Echo\n")
    with pytest.raises(
        ConfigError, match=r"no provider 'eco'; did you mean 'echo'\?.*installing the package"
    ):
        run(ask, "eco:m")


def test_a_class_is_not_registered() -> None:
    """Its object is."""
    with pytest.raises(DefinitionError, match=r"register_provider\('mock', MockProvider\(\)\)"):
        register_provider("mock", MockProvider)  # type: ignore[arg-type]


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_one_with_open_and_close_is_opened_once_in_a_process(
    colour: str, asking: Callable[..., object]
) -> None:
    """Before its first call, whatever the colours; and closed at the end of the process."""
    told = []

    class Sync:
        live = False

        def open(self) -> None:
            told.append("open")

        def complete(self, request: Request) -> Completion:
            told.append("call")
            return Completion("tea", TOKENS)

        def close(self) -> None:
            told.append("close")

    class Async:
        live = False

        async def open(self) -> None:
            told.append("open")

        async def acomplete(self, request: Request) -> Completion:
            told.append("call")
            return Completion("tea", TOKENS)

        async def close(self) -> None:
            told.append("close")

    register_provider("tea", Sync() if colour == "def" else Async())
    assert [asking("tea:m"), asking("tea:m", (streamed, astreamed))] == ["tea", "tea"]
    assert told == ["open", "call", "call"]
    process.of(Lifetimes).close()
    assert told == ["open", "call", "call", "close"]


@pytest.mark.anyio
async def test_one_is_opened_outside_of_runs_too() -> None:
    """An event loop is not blocked by it."""
    told = []

    class Async:
        live = False

        async def open(self) -> None:
            told.append("open")

        async def acomplete(self, request: Request) -> Completion:
            return Completion("tea", TOKENS)

        async def close(self) -> None:
            told.append("close")

    register_provider("tea", Async())
    assert await AsyncLLM("tea:m").ask("x") == "tea"
    assert told == ["open"]


def test_one_that_can_not_be_opened_fails_the_call(asking: Callable[..., object], heard: Heard) -> None:
    """And is tried again by the next one."""
    tries = []

    class Late:
        live = False

        def open(self) -> None:
            tries.append(1)
            if len(tries) == 1:
                raise OSError("not yet")

        def complete(self, request: Request) -> Completion:
            return Completion("tea", TOKENS)

        def close(self) -> None: ...

    register_provider("late", Late())
    with pytest.raises(ProviderError, match="late: the provider raised OSError: not yet"):
        asking("late:m")
    assert asking("late:m") == "tea"
    assert [event.plugin for event in heard.of(PluginFailed)] == ["provider late"]
