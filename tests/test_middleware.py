"""Middleware by name, and failures of middleware attributed to it."""

import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from flowlet import (
    BudgetExceeded,
    ConfigError,
    DefinitionError,
    ModelCall,
    PluginError,
    RunCall,
    StepCall,
    WorkflowTimeout,
    arun,
    configure,
    register_middleware,
    register_provider,
    run,
    start,
    with_options,
    workflow,
)
from flowlet.events import PluginFailed
from flowlet.settings import process
from flowlet.testing import MockProvider
from rig import PATIENCE, Heard, aask, ask
from test_plugins import install, site

__all__ = ["site"]


@pytest.fixture(autouse=True)
def mock() -> None:
    """A model that says the same each time."""
    register_provider("mock", MockProvider(lambda request: "tea"))
    configure(model="mock:m")


@pytest.fixture(params=["run", "start", "arun", "astart"])
def running(request: pytest.FixtureRequest, backend: str) -> Callable[..., object]:
    """Asks a model in a step of a run, begun in every way."""
    mode = request.param

    def runs(**options: object) -> object:
        configure(backend=backend)
        fn = with_options(aask if mode.startswith("a") else ask, **options)
        if mode == "run":
            return run(fn, "x")
        return (
            anyio.run(arun, fn, "x", backend=backend) if mode == "arun" else start(fn, "x").result(PATIENCE)
        )

    return runs


def coloured(colour: str, kind: type, before: Callable[[], object] = bool) -> Callable[..., object]:
    """A middleware of *colour* for *kind* that goes on after *before*."""

    def wraps(call, next):
        before()
        return next(call)

    async def awraps(call, next):
        before()
        return await next(call)

    made = wraps if colour == "def" else awraps
    made.__annotations__ = {"call": kind}
    return made


def raising(exc: BaseException) -> Callable[[], object]:
    def raises() -> None:
        raise exc

    return raises


PLACES = [
    (StepCall, r"step 'a?ask'"),
    (ModelCall, "a call of model 'mock:m'"),
    (RunCall, r"the run of 'a?ask'"),
]


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize(("kind", "place"), PLACES, ids=["step", "model", "run"])
def test_a_failure_names_the_middleware(
    colour: str, kind: type, place: str, running: Callable[..., object]
) -> None:
    """With a note, and what it wraps; those around it are not named."""
    fails = coloured(colour, kind, raising(OSError("down")))
    around = coloured(colour, kind)
    around.__qualname__, fails.__qualname__ = "around", "fails"
    with pytest.raises(OSError, match="down") as caught:
        running(middleware=[around, fails, coloured(colour, kind)])
    notes = [note for note in caught.value.__notes__ if "middleware" in note]
    assert len(notes) == 1
    assert notes[0].startswith("raised by the middleware 'fails' around ")
    assert re.search(place, notes[0])


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize(("kind", "place"), PLACES, ids=["step", "model", "run"])
def test_what_passes_through_is_not_attributed(
    colour: str, kind: type, place: str, running: Callable[..., object]
) -> None:
    """The failure of what it wraps is not its own."""
    register_provider("mock", MockProvider([BudgetExceeded("run", "1", "1")]))
    with pytest.raises(BudgetExceeded) as caught:
        running(middleware=[coloured(colour, kind)])
    assert not [note for note in caught.value.__notes__ if "middleware" in note]


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_a_model_middleware_that_returns_nothing_is_told(colour: str, running: Callable[..., object]) -> None:
    """Its caller would stumble over it somewhere else."""

    def forgets(call, next):
        next(call)

    async def aforgets(call, next):
        await next(call)

    middleware = forgets if colour == "def" else aforgets
    middleware.__annotations__ = {"call": ModelCall}
    with pytest.raises(
        PluginError, match=r"forgets' around a call of model 'mock:m' returned NoneType, expected a Comp"
    ):
        running(middleware=[coloured(colour, ModelCall), middleware])


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, OSError])
def test_a_named_one_hurts_its_run_alone(
    exc: type[BaseException], running: Callable[..., object], heard: Heard
) -> None:
    """It is a plugin, whatever it raises; and it is told once."""
    register_middleware("broken", coloured("def", StepCall, raising(exc("x"))))
    with pytest.raises(OSError if exc is OSError else PluginError) as caught:
        running(middleware="broken")
    assert "raised by the plugin middleware 'broken'" in caught.value.__notes__
    assert [event.plugin for event in heard.of(PluginFailed)] == ["middleware broken"]
    assert running() == "tea"


def test_a_named_one_may_refuse(running: Callable[..., object], heard: Heard) -> None:
    """An error of flowlet's is its answer, and no failure of the plugin."""
    register_middleware("guard", coloured("def", ModelCall, raising(BudgetExceeded("day", "$5", "$5"))))
    with pytest.raises(BudgetExceeded, match=r"\$5 per day") as caught:
        running(middleware=["guard"])
    assert "raised by the plugin middleware 'guard'" in caught.value.__notes__
    assert heard.of(PluginFailed) == []


# --- by name -------------------------------------------------------------------------------------


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the registered middleware "first" and "second" tell, in a directory of their own."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    for name in ("first", "second"):
        register_middleware(name, coloured("def", RunCall, lambda name=name: said.append(name)))
    return said


def forget_settings() -> None:
    """Read file and environment again, and keep what is registered."""
    registered = process.registered
    process.reset()
    process.registered = registered


@pytest.mark.parametrize(
    "text", ["middleware: [first, second]", "middleware:\n  - first\n  - second", "middleware: first, second"]
)
def test_the_file_names_middleware(text: str, told: list[str]) -> None:
    """As a list, in its order."""
    Path("flowlet.yaml").write_text(text, encoding="utf-8")
    forget_settings()
    assert run(lambda: 3) == 3
    assert told == ["first", "second"]


def test_the_environment_names_middleware(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With commas."""
    monkeypatch.setenv("FLOWLET_MIDDLEWARE", "second,first")
    forget_settings()
    run(lambda: 3)
    assert told == ["second", "first"]


def test_options_and_settings_name_middleware(told: list[str]) -> None:
    """Names and functions may be mixed, and child runs add to those of their parents."""
    configure(middleware="first")
    child = workflow(middleware="second")(lambda: 1)
    run(with_options(lambda: child(), middleware=[coloured("def", RunCall, lambda: told.append("own"))]))
    assert told == ["first", "own", "first", "own", "second"]


def test_a_name_may_be_registered_after_the_settings_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked up by the first run."""
    monkeypatch.chdir(tmp_path)
    Path("flowlet.yaml").write_text("middleware: [late]", encoding="utf-8")
    process.reset()
    configure(grace=1)
    said: list[str] = []
    register_middleware("late", coloured("def", RunCall, lambda: said.append("late")))
    run(lambda: 1)
    assert said == ["late"]


def test_an_unknown_name_in_the_file_has_its_place(told: list[str]) -> None:
    """With the line, a caret, and the nearest name."""
    Path("flowlet.yaml").write_text("grace: 1\nmiddleware:\n  - first\n  - secnd\n", encoding="utf-8")
    forget_settings()
    with pytest.raises(ConfigError) as caught:
        run(lambda: 3)
    text = str(caught.value)
    assert "flowlet.yaml:4:5" in text
    assert "there is no middleware 'secnd'; did you mean 'second'?" in text
    assert "  - secnd" in text


def test_an_unknown_name_elsewhere_says_where(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment, in code."""
    monkeypatch.setenv("FLOWLET_MIDDLEWARE", "thrd")
    forget_settings()
    with pytest.raises(ConfigError, match="FLOWLET_MIDDLEWARE: there is no middleware 'thrd'"):
        run(lambda: 3)
    configure(middleware="other")
    with pytest.raises(ConfigError, match="middleware='other': there is no middleware 'other'"):
        run(lambda: 3)


@pytest.mark.parametrize(
    "text", ["middleware: 3", "middleware: {a: 1}", "middleware: [3]", "middleware: ['']"]
)
def test_other_values_are_faults(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told with the settings."""
    monkeypatch.chdir(tmp_path)
    Path("flowlet.yaml").write_text(text, encoding="utf-8")
    process.reset()
    with pytest.raises(ConfigError, match="middleware: expected a list of names of middleware"):
        run(lambda: 3)


def test_what_can_not_be_called_is_refused() -> None:
    """When it is registered."""
    with pytest.raises(DefinitionError, match="expected a function, found int"):
        register_middleware("three", 3)  # type: ignore[arg-type]


CLASS = """
class Told:
    made = 0
    def __init__(self):
        Told.made += 1
    def __call__(self, call, next):
        return next(call)
"""


def test_an_installed_class_is_made_once(site: Path) -> None:
    """Its object is the middleware of all runs."""
    install(site, "tea-told", CLASS, "[flowlet.middleware]\ntold = tea_told:Told\n")
    configure(middleware="told")
    assert [run(lambda: 1) for _ in range(3)] == [1] * 3
    assert sys.modules["tea_told"].Told.made == 1


def test_a_broken_one_fails_the_runs_that_name_it(site: Path, heard: Heard) -> None:
    """And is told with its distribution."""
    install(site, "tea-told", "1 / 0", "[flowlet.middleware]\ntold = tea_told:Told\n")
    for _ in range(2):
        with pytest.raises(
            PluginError, match=r"middleware 'told' of tea-told 1.2 can't be used: .*ZeroDivisionError"
        ):
            run(with_options(lambda: 1, middleware="told"))
    assert run(lambda: 1) == 1
    (event,) = heard.of(PluginFailed)
    assert (event.plugin, event.distribution, event.version) == ("middleware told", "tea-told", "1.2")


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize("body", ["def", "async def"])
def test_one_that_hangs_ends_with_the_run(colour: str, body: str, background: str) -> None:
    """By the deadline of that run; others go on."""
    free = threading.Event()

    def stuck(call, next):
        free.wait(PATIENCE)

    async def astuck(call, next):
        await anyio.sleep(PATIENCE)

    async def abody() -> str:
        return await aask("x")

    register_middleware("stuck", stuck if colour == "def" else astuck)
    fn = workflow((lambda: ask("x")) if body == "def" else abody)
    started = time.monotonic()
    try:
        with pytest.raises(WorkflowTimeout):
            run(with_options(fn, middleware="stuck", timeout=0.1))
        assert time.monotonic() - started < PATIENCE / 2
        assert run(fn) == "tea"
    finally:
        free.set()
