"""Step plugins with a lifecycle: opened before their first use, closed once, whatever happens."""

import inspect
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import anyio
import pytest

from flowlet import (
    DefinitionError,
    InputError,
    PluginError,
    RunCancelled,
    StepTimeout,
    WorkflowTimeout,
    arun,
    configure,
    get_step,
    load_workflow,
    pmap,
    register_step,
    run,
    start,
    with_options,
    workflow,
)
from flowlet._engine import _lifetimes
from flowlet._fingerprint import fingerprint
from flowlet.events import PluginFailed
from rig import PATIENCE, Heard, until

MODES = ["run", "start", "arun", "astart"]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """How a run is begun: sync or async, here or in the background."""
    return request.param


def running(mode: str, backend: str, name: str, *args: object, calls: int = 1, **options: object) -> object:
    """Run a workflow that calls the step *name*, as *mode* says, and give what the last call gave."""
    fn = get_step(name)
    is_async = inspect.iscoroutinefunction(fn)

    def body() -> object:
        return [run(fn, *args) if is_async else fn(*args) for _ in range(calls)][-1]

    async def abody() -> object:
        return [await fn(*args) if is_async else fn(*args) for _ in range(calls)][-1]

    asked = with_options(abody if mode.startswith("a") else body, **options)
    configure(backend=backend)
    if mode == "run":
        return run(asked)
    if mode == "arun":
        return anyio.run(arun, asked, backend=backend)
    return start(asked).result(PATIENCE)


class Kettle:
    """Tells what happens to it, to all of its kind."""

    told: list[str]

    def open(self) -> None:
        self.told.append("open")

    def __call__(self, leaf: str) -> str:
        self.told.append("call")
        return f"tea of {leaf}"

    def close(self) -> None:
        self.told.append("close")


class AsyncKettle(Kettle):
    async def open(self) -> None:
        await anyio.sleep(0)
        self.told.append("open")

    async def __call__(self, leaf: str) -> str:
        await anyio.sleep(0)
        self.told.append("call")
        return f"tea of {leaf}"

    async def close(self) -> None:
        await anyio.sleep(0)
        self.told.append("close")


class AsyncAround(Kettle):
    open = AsyncKettle.open
    close = AsyncKettle.close


class AsyncInside(Kettle):
    __call__ = AsyncKettle.__call__


@pytest.fixture(params=[Kettle, AsyncKettle, AsyncAround, AsyncInside])
def kettle(request: pytest.FixtureRequest) -> type[Kettle]:
    """A plugin of every mixture of colours."""
    return type("Kettle", (request.param,), {"told": []})


def test_it_is_opened_once_and_closed_once(kettle: type[Kettle], mode: str, backend: str) -> None:
    """Each run opens before the first call and closes after the last, whatever the colours."""
    register_step("kettle", kettle)
    for _ in range(2):
        assert running(mode, backend, "kettle", "mint", calls=3) == "tea of mint"
    assert kettle.told == ["open", "call", "call", "call", "close"] * 2


def test_what_is_not_used_is_not_opened(backend: str) -> None:
    """A run that calls no step of it leaves it alone."""
    kettle = type("Kettle", (Kettle,), {"told": []})
    register_step("kettle", kettle)
    get_step("kettle")
    configure(backend=backend)
    run(workflow(lambda: 1))
    assert kettle.told == []


def test_outside_of_runs_each_call_opens_and_closes(kettle: type[Kettle]) -> None:
    """The step is the plain function there."""
    register_step("kettle", kettle)
    step = get_step("kettle")
    result = anyio.run(step, "mint") if inspect.iscoroutinefunction(step) else step("mint")
    assert result == "tea of mint"
    assert kettle.told == ["open", "call", "close"]


def test_concurrent_calls_open_once(kettle: type[Kettle], background: str) -> None:
    """Who comes while it is being opened waits for that."""
    register_step("kettle", kettle)
    step = get_step("kettle")

    @workflow
    def body() -> list[str]:
        return pmap(step, ["mint"] * 20)

    assert run(body) == ["tea of mint"] * 20
    assert (kettle.told[0], kettle.told[-1], len(kettle.told)) == ("open", "close", 22)


def test_each_run_has_its_own_of_a_class(background: str) -> None:
    """Two runs at once do not share what one of them opened."""
    seen = []

    class Own(Kettle):
        told: ClassVar[list[str]] = []
        gate = threading.Barrier(2)

        def __call__(self, leaf: str) -> str:
            self.gate.wait(PATIENCE)
            seen.append(self)
            return leaf

    register_step("own", Own)
    first, second = (start(get_step("own"), "mint") for _ in range(2))
    first.result(PATIENCE), second.result(PATIENCE)
    assert len({id(one) for one in seen}) == 2
    assert Own.told.count("close") == 2


def test_an_object_is_shared_by_all_runs() -> None:
    """What was registered itself is opened and closed in each run."""
    kettle = Kettle()
    kettle.told = []
    register_step("kettle", kettle)
    run(get_step("kettle"), "mint")
    run(get_step("kettle"), "mint")
    assert kettle.told == ["open", "call", "close"] * 2


def test_child_runs_open_their_own() -> None:
    """A child run is a run."""
    kettle = type("Kettle", (Kettle,), {"told": []})
    register_step("kettle", kettle)

    @workflow
    def child() -> str:
        return get_step("kettle")("mint")

    @workflow
    def parent() -> str:
        get_step("kettle")("mint")
        return child()

    run(parent)
    assert kettle.told == ["open", "call", "open", "call", "close", "close"]


def test_it_is_closed_after_a_failure(kettle: type[Kettle], mode: str, backend: str) -> None:
    """Of the body or of another step."""
    register_step("kettle", kettle)
    register_step("broken", lambda: 1 / 0)

    def body() -> None:
        step = get_step("kettle")
        run(step, "mint") if inspect.iscoroutinefunction(step) else step("mint")
        get_step("broken")()

    configure(backend=backend)
    with pytest.raises(ZeroDivisionError):
        run(workflow(body))
    assert kettle.told == ["open", "call", "close"]


def hanging(kind: type[Kettle], entered: threading.Event, free: threading.Event) -> type[Kettle]:
    """A plugin whose call does not end by itself."""

    class Hanging(kind):  # type: ignore[misc, valid-type]
        told: ClassVar[list[str]] = []

    def call(self: object, leaf: str) -> None:
        entered.set()
        free.wait(PATIENCE)

    async def acall(self: object, leaf: str) -> None:
        entered.set()
        await anyio.sleep(PATIENCE)

    Hanging.__call__ = acall if inspect.iscoroutinefunction(kind.__call__) else call
    return Hanging


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait long for what is stuck."""
    monkeypatch.setattr(_lifetimes, "SETTLE", 0.05)
    configure(grace=0)


@pytest.mark.parametrize("kind", [Kettle, AsyncKettle, AsyncAround])
def test_it_is_closed_after_a_deadline(kind: type[Kettle], backend: str, mode: str, soon: None) -> None:
    """Also when its call is stuck in a thread that nobody can stop."""
    entered, free = threading.Event(), threading.Event()
    plugin = hanging(kind, entered, free)
    register_step("kettle", plugin)
    try:
        with pytest.raises(WorkflowTimeout):
            running(mode, backend, "kettle", "mint", timeout=0.3)
        until(lambda: plugin.told == ["open", "close"])
    finally:
        free.set()


@pytest.mark.parametrize("kind", [Kettle, AsyncKettle, AsyncAround])
def test_it_is_closed_after_a_cancellation(kind: type[Kettle], background: str, soon: None) -> None:
    """Also when its call is stuck in a thread that nobody can stop."""
    entered, free = threading.Event(), threading.Event()
    plugin = hanging(kind, entered, free)
    register_step("kettle", plugin)
    try:
        handle = start(get_step("kettle"), "mint")
        assert entered.wait(PATIENCE)
        handle.cancel()
        with pytest.raises(RunCancelled):
            handle.result(PATIENCE)
        until(lambda: plugin.told == ["open", "close"])
    finally:
        free.set()


@pytest.mark.parametrize("kind", [AsyncKettle, AsyncInside])
def test_what_opens_too_late_on_a_loop_is_closed(kind: type[Kettle], background: str, soon: None) -> None:
    """Also when it ignores its cancellation for as long as that takes."""
    entered, free = threading.Event(), threading.Event()

    class Slow(kind):  # type: ignore[misc, valid-type]
        told: ClassVar[list[str]] = []

    async def aopen(self: Kettle) -> None:
        entered.set()
        while not free.is_set():
            with suppress(BaseException):
                await anyio.sleep(0.01)
        self.told.append("open")

    def opens(self: Kettle) -> None:
        entered.set()
        free.wait(PATIENCE)
        self.told.append("open")

    Slow.open = aopen if kind is AsyncKettle else opens
    register_step("slow", Slow)

    async def body() -> str:
        return await get_step("slow")("x")

    with pytest.raises(WorkflowTimeout):
        run(with_options(body, timeout=0.5))
    assert entered.is_set()
    time.sleep(0.1)
    free.set()
    until(lambda: Slow.told == ["open", "close"])


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_opens_too_late_is_closed(when: str, background: str, soon: None) -> None:
    """A thread that was left behind while it opened closes what it has then, and calls nothing."""
    entered, free = threading.Event(), threading.Event()

    class Slow(Kettle):
        told: ClassVar[list[str]] = []

        def open(self) -> None:
            entered.set()
            free.wait(PATIENCE)
            super().open()

    register_step("slow", Slow)
    with pytest.raises(WorkflowTimeout):
        run(with_options(workflow(lambda: get_step("slow")("x")), timeout=0.5))
    assert entered.is_set()
    if when == "after":
        time.sleep(0.1)
    free.set()
    until(lambda: Slow.told == ["open", "close"])


def test_once_per_process_by_declaration(kettle: type[Kettle], mode: str, backend: str) -> None:
    """It stays open from run to run."""
    kettle.lifetime = "process"
    register_step("kettle", kettle)
    for _ in range(2):
        assert running(mode, backend, "kettle", "mint") == "tea of mint"
    assert kettle.told == ["open", "call", "call"]


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_the_end_of_the_process_closes_the_rest(colour: str, backend: str) -> None:
    """What lives as long as the process, and what a background run has open."""
    code = f"""
    import time
    from flowlet import configure, get_step, register_step, run, start
    class Kettle:
        def __init__(self): self.name = "run"
        {colour} open(self): print("open", self.name, flush=True)
        {colour} __call__(self, seconds: float): time.sleep(seconds)
        {colour} close(self): print("close", self.name, flush=True)
    class Ever(Kettle):
        lifetime = "process"
        def __init__(self): self.name = "process"
    register_step("kettle", Kettle)
    register_step("ever", Ever)
    configure(backend="{backend}", grace=0.2)
    run(get_step("ever"), 0)
    if "{colour}" == "def":
        handle = start(get_step("kettle"), 30)
        time.sleep(0.3)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=20, check=True
    )
    lines = ran.stdout.split("\n")[:-1]
    expected = ["open process", "close process"]
    assert [line for line in lines if "process" in line] == expected, ran.stderr
    if colour == "def":
        assert sorted(lines) == sorted([*expected, "open run", "close run"])


# --- what goes wrong -----------------------------------------------------------------------------


class Odd(BaseException):
    """Of nobody's tree."""


WRONG = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, Odd]


def shown(exc: type[BaseException], colour: type[Kettle]) -> tuple[type[BaseException], str]:
    """What the run sees of it, and what is told: an async function can't raise StopIteration, says Python."""
    told = RuntimeError if exc is StopIteration and colour is AsyncKettle else exc
    return told if issubclass(told, ValueError | RuntimeError) else PluginError, told.__name__


def broken(place: str, exc: type[BaseException], colour: type[Kettle]) -> type[Kettle]:
    """A plugin that raises in one place."""

    def fails(self: object, leaf: str = "") -> None:
        raise exc("x")

    async def afails(self: object, leaf: str = "") -> None:
        raise exc("x")

    is_async = inspect.iscoroutinefunction(getattr(colour, place))
    return type("Broken", (colour,), {"told": [], place: afails if is_async else fails})


@pytest.mark.parametrize("mode", ["run", "arun"])
@pytest.mark.parametrize("place", ["open", "__call__"])
@pytest.mark.parametrize("exc", WRONG, ids=lambda exc: exc.__name__)
@pytest.mark.parametrize("colour", [Kettle, AsyncKettle])
def test_what_it_raises_fails_its_run_alone(
    place: str, exc: type[BaseException], colour: type[Kettle], mode: str, backend: str, heard: Heard
) -> None:
    """An error passes with a note, all else becomes a PluginError; it is told once, and others go on."""
    register_step("broken", broken(place, exc, colour))
    register_step("kettle", type("Kettle", (Kettle,), {"told": []}))
    other = start(get_step("kettle"), "mint")
    seen, error = shown(exc, colour)
    with pytest.raises(seen) as caught:
        running(mode, backend, "broken", "mint")
    assert "raised by the plugin step 'broken'" in caught.value.__notes__
    assert any("in step 'broken'" in note for note in caught.value.__notes__)
    told = heard.of(PluginFailed)
    assert [(e.plugin, e.error.partition(":")[0]) for e in told] == [("step broken", error)]
    assert told[0].run is not None
    assert other.result(PATIENCE) == "tea of mint"
    assert running(mode, backend, "kettle", "mint") == "tea of mint"


@pytest.mark.parametrize("mode", ["run", "arun"])
@pytest.mark.parametrize("exc", WRONG, ids=lambda exc: exc.__name__)
@pytest.mark.parametrize("colour", [Kettle, AsyncKettle])
def test_a_failure_in_close_leaves_the_result(
    exc: type[BaseException], colour: type[Kettle], mode: str, backend: str, heard: Heard
) -> None:
    """The work was done; that it was not closed is told."""
    register_step("broken", broken("close", exc, colour))
    assert running(mode, backend, "broken", "mint") == "tea of mint"
    (told,) = heard.of(PluginFailed)
    assert (told.plugin, told.error.partition(":")[0]) == ("step broken", shown(exc, colour)[1])


@pytest.mark.parametrize("colour", [Kettle, AsyncKettle])
def test_a_close_that_hangs_is_left_behind(
    colour: type[Kettle], mode: str, backend: str, heard: Heard, soon: None
) -> None:
    """The run has its result after the grace."""
    free = threading.Event()

    def close(self: object) -> None:
        free.wait(PATIENCE)

    async def aclose(self: object) -> None:
        await anyio.sleep(PATIENCE)

    is_async = colour is AsyncKettle
    register_step("stuck", type("Stuck", (colour,), {"told": [], "close": aclose if is_async else close}))
    started = time.monotonic()
    assert running(mode, backend, "stuck", "mint") == "tea of mint"
    free.set()
    assert time.monotonic() - started < PATIENCE / 2
    (told,) = heard.of(PluginFailed)
    assert told.plugin == "step stuck"


def test_an_own_limit_ends_a_hang(mode: str, backend: str) -> None:
    """That of the step."""
    entered, free = threading.Event(), threading.Event()
    register_step("kettle", hanging(Kettle, entered, free))
    configure(backend=backend)
    limited = with_options(get_step("kettle"), timeout=0.05)
    register_step("limited", limited)
    with pytest.raises(StepTimeout):
        running(mode, backend, "limited", "mint")
    free.set()


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_a_wrong_return_type_is_the_plugins_fault(colour: str, mode: str, backend: str, heard: Heard) -> None:
    """Held to its own hint."""
    names: dict[str, Callable[..., object]] = {}
    exec(f"{colour} weigh(leaf: str) -> int:\n    return 'much'", names)
    register_step("weigh", names["weigh"])
    with pytest.raises(
        PluginError, match=r"step 'weigh' returned what its hint does not allow: .*whole number"
    ):
        running(mode, backend, "weigh", "mint")
    assert len(heard.of(PluginFailed)) == 1


def test_wrong_arguments_are_the_callers_fault(heard: Heard) -> None:
    """They are told as such, and no plugin is blamed."""
    register_step("kettle", type("Kettle", (Kettle,), {"told": []}))
    with pytest.raises(InputError, match=r"kettle\(leaf\) can't take these arguments") as caught:
        run(get_step("kettle"), 3)
    assert "leaf: expected text, found 3" in str(caught.value)
    assert heard.of(PluginFailed) == []


def test_it_is_told_once_in_a_run(no_waits: None, heard: Heard) -> None:
    """Not with every attempt."""
    register_step("broken", broken("__call__", OSError, Kettle))
    again = with_options(get_step("broken"), attempts=3)
    with pytest.raises(OSError, match="x"):
        run(again, "mint")
    assert len(heard.of(PluginFailed)) == 1


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"close": None}, "Kettle has no close"),
        ({"open": None, "close": None}, "Kettle has no open and no close; register an object of it"),
        ({"lifetime": "ever"}, 'Kettle.lifetime is \'ever\', expected "run" or "process"'),
    ],
)
def test_half_a_plugin_is_refused(members: dict[str, object], reason: str) -> None:
    """When it is registered."""
    with pytest.raises(DefinitionError, match=reason):
        register_step("kettle", type("Kettle", (Kettle,), {"told": [], **members}))


def test_the_code_of_a_plugin_is_that_of_its_function() -> None:
    """So that a journal and a cache notice when it has changed."""
    one = type("Kettle", (Kettle,), {"told": []})
    other = type("Kettle", (AsyncKettle,), {"told": []})
    codes = set()
    for plugin in (one, other, lambda leaf: leaf, lambda leaf: leaf + "!"):
        register_step("kettle", plugin)
        codes.add(fingerprint(get_step("kettle").__flowlet__.fn))
    register_step("kettle", one)
    assert len(codes) == 4
    assert fingerprint(get_step("kettle").__flowlet__.fn) in codes


@pytest.mark.anyio
async def test_one_that_lives_as_long_as_the_process_serves_calls_outside_of_runs(anyio_backend: str) -> None:
    """On the background loop."""
    kettle = type("Kettle", (AsyncKettle,), {"told": [], "lifetime": "process"})
    register_step("kettle", kettle)
    assert [await get_step("kettle")("mint") for _ in range(2)] == ["tea of mint"] * 2
    assert kettle.told == ["open", "call", "call"]


def test_a_workflow_of_yaml_uses_it(kettle: type[Kettle], tmp_path: Path, backend: str) -> None:
    """By its name; its run opens and closes it, and a failure of its own is the run's."""
    register_step("kettle", kettle)
    register_step("broken", broken("__call__", SystemExit, Kettle))
    file = tmp_path / "tea.yaml"
    text = "steps:\n  tea:\n    use: kettle\n    with: {leaf: mint}\n  more:\n    use: NAME\n    with: {leaf: '{tea}'}\n"
    file.write_text(text.replace("NAME", "kettle") + "output: '{more}'\n", encoding="utf-8")
    configure(backend=backend)
    assert run(load_workflow(file)) == "tea of tea of mint"
    assert kettle.told == ["open", "call", "call", "close"]
    file.write_text(text.replace("NAME", "broken") + "output: '{more}'\n", encoding="utf-8")
    with pytest.raises(PluginError, match="step 'broken' raised SystemExit"):
        run(load_workflow(file))
    assert kettle.told == ["open", "call", "call", "close", "open", "call", "close"]
