"""Steps: what the decorator leaves as it was, what it refuses, and what a run records of a call."""

import copy
import functools
import gc
import inspect
import pickle
import threading
import time
import typing
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import attrs
import pytest
import stamina

from flowlet import (
    AsyncLLM,
    BridgeError,
    DefinitionError,
    InputError,
    StepTimeout,
    arun,
    configure,
    failure_of,
    is_step,
    is_workflow,
    last_run,
    pmap,
    run,
    runs,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.context import current
from flowlet.events import Event, StepFinished, StepRetried, StepStarted
from flowlet.protocols import StepCall
from flowlet.settings import process
from flowlet.specs import is_async, spec_of

pytestmark = pytest.mark.anyio


@step
def shout(text: str, *, mark: str = "!") -> str:
    """Say it loudly."""
    return text.upper() + mark


@step
async def whisper(text: str) -> str:
    """Say it softly."""
    await anyio.lowlevel.checkpoint()
    return text.lower()


class Greeter:
    """Has steps of every kind."""

    def __init__(self, name: str) -> None:
        self.name = name

    @step
    def greet(self, whom: str) -> str:
        return f"{self.name} greets {whom}"

    @step
    async def agreet(self, whom: str) -> str:
        return f"{self.name} greets {whom}"

    @staticmethod
    @step
    def static(whom: str) -> str:
        return f"hello {whom}"

    @classmethod
    @step
    def by_class(cls, whom: str) -> str:
        return f"{cls.__name__} greets {whom}"


class Broken(Exception):
    """A user's own error."""


# --- type transparency ---------------------------------------------------------------------------


def test_a_step_keeps_name_doc_module_and_qualified_name() -> None:
    """What names a function names the step made of it."""
    assert (shout.__name__, shout.__doc__, shout.__module__) == ("shout", "Say it loudly.", __name__)
    assert Greeter.greet.__qualname__ == "Greeter.greet"


def test_a_step_keeps_signature_and_hints() -> None:
    """``inspect.signature`` and ``get_type_hints`` see the undecorated function."""
    assert str(inspect.signature(shout)) == "(text: str, *, mark: str = '!') -> str"
    assert typing.get_type_hints(shout) == {"text": str, "mark": str, "return": str}


@pytest.mark.parametrize("made", [shout, step(name="other")(shout.__wrapped__)])
def test_a_sync_step_is_a_plain_function(made: Callable[..., Any]) -> None:
    """A sync step is a function, no instance of a class, with and without options."""
    assert inspect.isfunction(made)
    assert not inspect.iscoroutinefunction(made)


@pytest.mark.parametrize("made", [whisper, with_options(whisper, attempts=2)])
def test_an_async_step_is_a_coroutine_function(made: Callable[..., Any]) -> None:
    """``iscoroutinefunction`` says of a step what it says of the function."""
    assert inspect.isfunction(made)
    assert inspect.iscoroutinefunction(made)


def test_a_step_pickles_by_its_name() -> None:
    """Pickle and copy give the same function back, of module functions and of methods."""
    assert pickle.loads(pickle.dumps(shout)) is shout
    assert pickle.loads(pickle.dumps(Greeter.greet)) is Greeter.greet
    assert copy.deepcopy(whisper) is whisper


def test_the_only_state_on_a_step_is_a_frozen_recipe() -> None:
    """Nothing on the function can be changed by a call."""
    assert set(vars(shout)) == {"__wrapped__", "__flowlet__"}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        spec_of(shout).name = "other"  # type: ignore[union-attr, misc]


def test_a_call_leaves_nothing_on_the_step() -> None:
    """After calls in runs the function has the attributes and values that it had before."""
    before = dict(vars(shout))
    run(lambda: [shout("a"), shout("b")])
    assert vars(shout) == before


def test_methods_bind_as_always() -> None:
    """A step in a class is a method, a static method or a class method, as it was written."""
    greeter = Greeter("Ann")
    assert greeter.greet("Bob") == "Ann greets Bob"
    assert Greeter.static("Bob") == "hello Bob"
    assert greeter.by_class("Bob") == "Greeter greets Bob"


def test_methods_are_recorded_in_a_run() -> None:
    """A run sees method calls as steps, however they are bound."""
    greeter = Greeter("Ann")
    run(lambda: (greeter.greet("x"), Greeter.static("x"), greeter.by_class("x")))
    assert [s.name for s in last_run().metrics.steps] == ["greet", "static", "by_class"]


async def test_async_methods_are_recorded_in_a_run() -> None:
    """An async method that is a step is awaited and recorded."""
    assert await arun(Greeter("Ann").agreet, "Bob") == "Ann greets Bob"
    assert [s.name for s in last_run().metrics.steps] == ["agreet"]


def test_a_step_of_an_object_does_not_keep_it_alive() -> None:
    """Neither the step nor a finished run holds the object whose method was called."""
    greeter = Greeter("Ann")
    run(lambda: None)
    gone = weakref.ref(greeter)
    run(greeter.greet, "Bob")
    del greeter
    gc.collect()
    assert gone() is None


def test_predicates_tell_steps_from_the_rest() -> None:
    """``is_step`` and ``is_workflow`` know what a function was made into."""

    @workflow
    def flow() -> None:
        return None

    assert (is_step(shout), is_step(flow), is_step(len)) == (True, False, False)
    assert (is_workflow(flow), is_workflow(shout)) == (True, False)


# --- wrong use -----------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize("fn", [generator, async_generator])
@pytest.mark.parametrize("decorator", [step, workflow])
def test_generator_functions_are_refused(decorator: Any, fn: Any) -> None:
    """A generator function is refused when it is decorated, with what to do instead."""
    with pytest.raises(DefinitionError, match=f"{fn.__name__} is a generator function; return a list"):
        decorator(fn)


def test_options_of_a_partial_are_those_of_its_function() -> None:
    """The error says how they are written."""
    with pytest.raises(DefinitionError, match=r"give them to .* partial\(with_options\(shout, ...\), ...\)"):
        with_options(functools.partial(shout, "a"), timeout=3)


@pytest.mark.parametrize("found", ["name", 3, Greeter, len, functools.partial(shout, "a"), Greeter("x")])
def test_only_functions_can_be_steps(found: Any) -> None:
    """What is no function is refused with its type and the line that works."""
    with pytest.raises(DefinitionError, match=r"@step takes a function, not .* write @step\(timeout=30\)"):
        step(found)


@pytest.mark.parametrize("wrapper", [staticmethod, classmethod])
def test_the_order_with_staticmethod_is_told(wrapper: Any) -> None:
    """@step above @staticmethod is refused, and the right order shown."""
    with pytest.raises(DefinitionError, match=f"@step goes below @{wrapper.__name__}"):
        step(wrapper(lambda: None))


@pytest.mark.parametrize("second", [step, workflow])
def test_a_function_is_decorated_once(second: Any) -> None:
    """A step can't be decorated again, as a step or as a workflow."""
    with pytest.raises(DefinitionError, match="shout: it is a step or workflow already"):
        second(shout)


def forgetful(text: str, llm: AsyncLLM = AsyncLLM("offline")) -> Any:
    return llm.ask(text)


async def aforgetful(text: str, llm: AsyncLLM = AsyncLLM("offline")) -> Any:
    return llm.ask(text)


def _passed(call: StepCall, next: Callable[[StepCall], Any]) -> Any:
    return next(call)


@pytest.mark.parametrize("around", [{}, {"middleware": [_passed]}, {"observers": [lambda event: None]}])
@pytest.mark.parametrize("options", [{}, {"check": True}, {"attempts": 3}, {"timeout": 60.0}])
@pytest.mark.parametrize("fn", [forgetful, aforgetful])
def test_a_coroutine_is_no_result_of_a_step(background: str, fn: Any, options: Any, around: Any) -> None:
    """The step fails that gives it, not the one that gets it, and the lines that work are told."""
    configure(**around)
    asks = step(**options)(fn)

    def body() -> str:
        return shout(run(asks, "tea"))

    async def abody() -> str:
        return shout(asks("tea") if fn is forgetful else await asks("tea"))

    for each in (body, abody):
        with pytest.raises(
            BridgeError, match=f"'ask' is async and was not awaited: '{fn.__name__}'"
        ) as caught:
            run(each)
        assert "ask(...) of an LLM, not an AsyncLLM" in str(caught.value)
        assert failure_of(caught.value).step == fn.__name__
        (only,) = last_run().metrics.steps
        assert (only.state, only.attempts) == ("failed", 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": -1}, "timeout=-1 is not a positive number of seconds"),
        ({"timeout": float("nan")}, "timeout=nan is not"),
        ({"timeout": True}, "timeout=True is not"),
        ({"attempts": 0}, "attempts=0 is not a whole number of at least 1"),
        ({"attempts": 1.5}, "attempts=1.5 is not"),
        ({"max_concurrency": 0}, "max_concurrency=0 is not"),
        ({"name": ""}, "name='' is not a name"),
        ({"check": "yes"}, "check='yes' is not True or False"),
        ({"attempts": None}, "attempts=None is not"),
        ({"retry_on": "ValueError"}, "is not an exception type or several of them"),
        ({"retry_on": [ValueError, 3]}, "retry_on="),
        ({"attemps": 3}, "no option 'attemps'; did you mean 'attempts'"),
        ({"tags": ["a"]}, "no option 'tags'"),
    ],
)
def test_impossible_options_are_refused_at_definition(options: Any, said: str) -> None:
    """An option that does not exist, or can't have its value, is named when the step is defined."""
    with pytest.raises(DefinitionError) as caught:
        step(**options)(lambda: None)
    assert said in str(caught.value)


def test_all_faults_of_options_are_told_at_once() -> None:
    """Two wrong options are two sentences of one error."""
    with pytest.raises(DefinitionError, match=r"attempts=0 .*; timeout=-1"):
        step(attempts=0, timeout=-1)(shout.__wrapped__)


# --- outside a run -------------------------------------------------------------------------------


def test_outside_a_run_a_step_is_the_plain_function() -> None:
    """A call outside a run has no event, no record and no context."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    inside = step(lambda: current.get())
    assert shout("tea", mark="?") == "TEA?"
    assert (inside(), seen, runs()) == (None, [], [])


async def test_outside_a_run_an_async_step_is_the_plain_coroutine_function() -> None:
    """An awaited step outside a run has no event, no record and no context."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    assert await whisper("TEA") == "tea"
    assert (current.get(), seen, runs()) == (None, [], [])


def test_outside_a_run_options_do_nothing() -> None:
    """Retries, limits and checks belong to runs: outside there is one plain call."""
    calls = []

    @step(attempts=5, timeout=0.001, check=True)
    def fails(number: int) -> None:
        calls.append(threading.get_ident())
        raise Broken

    with pytest.raises(Broken) as caught:
        fails("no int")  # type: ignore[arg-type]
    assert calls == [threading.get_ident()]
    assert failure_of(caught.value) is None


@pytest.mark.parametrize("args", [(), ("a", "b"), ("a", 1, 2)])
def test_a_wrong_call_of_a_step_is_pythons_own_type_error(args: Any) -> None:
    """Arguments that the function can't take raise what Python raises, outside and inside a run."""
    with pytest.raises(TypeError, match="shout"):
        shout(*args)
    with pytest.raises(TypeError, match="shout"):
        run(lambda: shout(*args))


# --- inside a run --------------------------------------------------------------------------------


def test_a_call_in_a_run_returns_the_real_value(background: str) -> None:
    """The very object that the function returns reaches the caller, from either colour of step."""
    value = object()
    sync_step = step(lambda: value)

    @step
    async def async_step() -> object:
        return value

    assert run(lambda: (sync_step(), run(async_step))) == (value, value)


def test_every_call_is_recorded_in_the_order_of_its_start() -> None:
    """The metrics of a run list each call of a step with name, state and duration."""
    run(lambda: [shout(text) for text in "ab"])
    steps = last_run().metrics.steps
    assert [(s.index, s.name, s.state, s.attempts) for s in steps] == [
        (0, "shout", "completed", 1),
        (1, "shout", "completed", 1),
    ]
    assert all(0 <= s.duration < 5 and s.started >= 0 for s in steps)


def test_a_step_called_by_a_step_knows_its_parent() -> None:
    """Nested calls are recorded below the step that made them."""
    outer = step(name="outer")(lambda: shout("a"))
    run(lambda: (outer(), shout("b")))
    assert [(s.name, s.parent) for s in last_run().metrics.steps] == [
        ("outer", None),
        ("shout", 0),
        ("shout", None),
    ]


async def test_concurrent_async_steps_keep_their_own_parents() -> None:
    """Steps that run at once in tasks do not become each other's parents."""

    @step
    async def outer(text: str) -> str:
        await anyio.lowlevel.checkpoint()
        return await whisper(text)

    async def body() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(outer, "A")
            group.start_soon(outer, "B")

    await arun(body)
    steps = last_run().metrics.steps
    parents = [s.parent for s in steps if s.name == "whisper"]
    assert sorted(parents) == [s.index for s in steps if s.name == "outer"]


def test_the_name_option_names_records_and_errors() -> None:
    """``name`` replaces the function's name in metrics and failures, not on the function."""

    @step(name="the second")
    def fails() -> None:
        raise Broken

    with pytest.raises(Broken) as caught:
        run(fails)
    assert fails.__name__ == "fails"
    assert failure_of(caught.value).step == last_run().metrics.steps[0].name == "the second"


def test_events_tell_of_a_step_in_order() -> None:
    """An observer hears of a step's start and end, with its place in the run."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    run(shout, "a")
    told = [e for e in seen if isinstance(e, StepStarted | StepFinished)]
    assert [type(e) for e in told] == [StepStarted, StepFinished]
    assert [(e.step, e.index, e.run.id) for e in told] == [("shout", 0, last_run().id)] * 2


# --- options -------------------------------------------------------------------------------------


def flaky(failures: int, error: type[Exception] = Broken) -> tuple[list[int], Callable[[], str]]:
    """A function that fails *failures* times, and the list of its calls."""
    calls: list[int] = []

    def tried() -> str:
        calls.append(len(calls))
        if len(calls) <= failures:
            raise error(f"no {len(calls)}")
        return "done"

    return calls, tried


@pytest.mark.usefixtures("no_waits")
def test_a_sync_step_is_tried_again() -> None:
    """A step with ``attempts`` succeeds when one of them does, and its record counts them."""
    calls, tried = flaky(2)
    assert run(step(attempts=3)(tried)) == "done"
    assert len(calls) == 3
    assert last_run().metrics.steps[0].attempts == 3


@pytest.mark.usefixtures("no_waits")
async def test_an_async_step_is_tried_again() -> None:
    """An async step, and a sync one in an async body, are tried again in the same way."""
    for _ in range(2):
        calls, tried = flaky(2)

        @step(attempts=3)
        async def atried(tried: Any = tried) -> str:
            return tried()

        assert await arun(atried) == "done"
        assert len(calls) == last_run().metrics.steps[0].attempts == 3


@pytest.mark.usefixtures("no_waits")
async def test_a_sync_step_in_an_async_body_is_tried_again() -> None:
    """The bridge carries a step's retries: the body sees only the result."""
    calls, tried = flaky(2)
    retried = step(attempts=3)(tried)

    async def body() -> str:
        return retried()

    assert await arun(body) == "done"
    assert len(calls) == last_run().metrics.steps[0].attempts == 3


@pytest.mark.usefixtures("no_waits")
def test_the_last_failure_reaches_the_caller() -> None:
    """When the attempts are used up, the last error is raised, with the number of its attempt."""
    calls, tried = flaky(9)
    with pytest.raises(Broken, match="no 2") as caught:
        run(step(attempts=2)(tried))
    assert len(calls) == failure_of(caught.value).attempt == 2
    assert "attempt 2" in "".join(caught.value.__notes__)


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("retry_on", [Broken, (Broken, OSError), [Broken]])
def test_retry_on_chooses_the_errors_worth_another_attempt(retry_on: Any) -> None:
    """Only the named exception types are tried again; one type, a tuple or a list will do."""
    calls, tried = flaky(1)
    assert run(step(attempts=3, retry_on=retry_on)(tried)) == "done"
    calls, tried = flaky(1, KeyError)
    with pytest.raises(KeyError):
        run(step(attempts=3, retry_on=retry_on)(tried))
    assert len(calls) == 1


@pytest.mark.usefixtures("no_waits")
def test_each_retry_is_told() -> None:
    """An observer hears which attempt failed, why, and how long the wait is."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    run(step(attempts=3)(flaky(2)[1]))
    told = [(e.attempt, e.reason) for e in seen if isinstance(e, StepRetried)]
    assert told == [(1, "Broken: no 1"), (2, "Broken: no 2")]


def test_a_step_that_stops_the_program_is_not_tried_again() -> None:
    """SystemExit and KeyboardInterrupt are no failures to be mended by another attempt."""
    calls = []

    @step(attempts=3)
    def leaves() -> None:
        calls.append(1)
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(leaves)
    assert calls == [1]


def test_a_timeout_gives_a_sync_step_a_thread_of_its_own() -> None:
    """A sync step with its own limit runs on another thread than its body."""
    timed = step(timeout=5)(lambda: threading.get_ident())
    assert run(lambda: timed() != threading.get_ident())


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_step_that_outlives_its_limit_times_out(background: str, colour: str) -> None:
    """StepTimeout names the step and its limit, and is a TimeoutError."""
    late = threading.Event()

    @step(timeout=0.02)
    def slow() -> None:
        late.wait(5)

    @step(timeout=0.02)
    async def aslow() -> None:
        await anyio.sleep(5)

    with pytest.raises(StepTimeout, match="did not finish within its timeout of 0.02 s") as caught:
        run(slow if colour == "sync" else aslow)
    late.set()
    assert isinstance(caught.value, TimeoutError)
    assert last_run().metrics.steps[0].state == "timeout"


@pytest.mark.usefixtures("no_waits")
def test_a_timeout_bounds_each_attempt() -> None:
    """A step that timed out is tried again, with the whole limit."""
    late = threading.Event()
    calls = []

    @step(attempts=2, timeout=0.03)
    def slow_once() -> str:
        calls.append(1)
        if len(calls) == 1:
            late.wait(5)
        return "done"

    assert run(slow_once) == "done"
    late.set()
    assert len(calls) == 2


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_max_concurrency_bounds_the_calls_of_a_step(background: str, colour: str) -> None:
    """No more than the given number of calls run at once, however many are asked for."""
    lock, now, peak = threading.Lock(), 0, 0

    def enter(change: int) -> None:
        nonlocal now, peak
        with lock:
            now += change
            peak = max(peak, now)

    @step(max_concurrency=2)
    def limited(_: int) -> None:
        enter(1)
        threading.Event().wait(0.002)
        enter(-1)

    @step(max_concurrency=2)
    async def alimited(_: int) -> None:
        enter(1)
        await anyio.sleep(0.002)
        enter(-1)

    run(lambda: pmap(limited if colour == "sync" else alimited, range(12)))
    assert peak == 2


def test_max_concurrency_is_one_limit_for_the_process() -> None:
    """Two runs in two threads share the places of a step."""
    inside, go = threading.Semaphore(0), threading.Event()
    peak: list[int] = []

    @step(max_concurrency=1)
    def limited() -> None:
        peak.append(1)
        inside.release()
        go.wait(5)
        peak.append(-1)

    handles = [start(limited) for _ in range(3)]
    assert inside.acquire(timeout=5)
    go.set()
    for handle in handles:
        handle.result(timeout=5)
    assert peak == [1, -1] * 3


def test_check_refuses_misfits_between_steps() -> None:
    """With ``check`` arguments and result must fit the hints, and nothing is converted."""

    @step(check=True)
    def double(number: int) -> int:
        return "two" if number == 2 else 2 * number  # type: ignore[return-value]

    assert run(lambda: double(4)) == 8
    with pytest.raises(InputError, match="double"):
        run(lambda: double("4"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="result of double"):
        run(lambda: double(2))


async def test_check_works_on_async_steps() -> None:
    """An async step's arguments and result are checked as a sync one's."""

    @step(check=True)
    async def double(number: int) -> int:
        return "two"  # type: ignore[return-value]

    with pytest.raises(InputError, match="number"):
        await arun(lambda: None) or await arun(double, "4")
    with pytest.raises(InputError, match="result of double"):
        await arun(double, 2)


def test_without_check_hints_of_a_step_bind_nobody() -> None:
    """A step without ``check`` takes what its function takes."""
    assert run(lambda: step(lambda number: number * 2)("ab")) == "abab"


def test_with_options_makes_another_function() -> None:
    """The original keeps its options, and the new one is a step with the changed ones."""
    other = with_options(shout, name="other", attempts=2)
    assert (spec_of(shout).name, spec_of(other).name, spec_of(other).step.attempts) == ("shout", "other", 2)
    assert is_step(other)
    assert other("a") == "A!"


def test_with_options_of_a_bound_method_stays_bound() -> None:
    """A method with other options still knows its object."""
    assert run(with_options(Greeter("Ann").greet, name="hi"), "Bob") == "Ann greets Bob"
    assert last_run().metrics.steps[0].name == "hi"


# --- failures ------------------------------------------------------------------------------------


@step
def breaks(message: str = "no tea") -> None:
    raise Broken(message)


@step
async def abreaks(message: str = "no tea") -> None:
    raise Broken(message)


def test_a_failure_names_step_attempt_workflow_and_run() -> None:
    """The exception has a note for people, and ``failure_of`` gives the same as data."""

    @workflow
    def talk() -> None:
        breaks()

    with pytest.raises(Broken) as caught:
        run(talk)
    failure = failure_of(caught.value)
    assert (failure.step, failure.path, failure.attempt) == ("breaks", ("breaks",), 1)
    assert (failure.workflow, failure.run_id) == ("talk", last_run().id)
    assert (failure.error, failure.message) == ("Broken", "no tea")
    assert caught.value.__notes__ == [f"in step 'breaks' of workflow 'talk' (run {failure.run_id})"]


@pytest.mark.parametrize("inner", [breaks, abreaks])
def test_a_failure_in_a_step_in_a_step_has_the_path(background: str, inner: Any) -> None:
    """The innermost step is named, with the path to it, in one note."""
    outer = step(name="outer")(lambda: run(inner))
    with pytest.raises(Broken) as caught:
        run(outer)
    assert failure_of(caught.value).step == inner.__name__
    assert failure_of(caught.value).path == ("outer", inner.__name__)
    assert len(caught.value.__notes__) == 1
    assert [s.state for s in last_run().metrics.steps] == ["failed", "failed"]


async def test_a_failure_in_an_async_body_is_attributed() -> None:
    """Sync and async steps of an async body leave the same facts."""

    async def body(fn: Any) -> None:
        if fn is breaks:
            fn()
        await fn()

    for fn in (breaks, abreaks):
        with pytest.raises(Broken) as caught:
            await arun(body, fn)
        assert failure_of(caught.value).step == fn.__name__


def test_a_new_error_from_an_old_one_is_the_outer_steps() -> None:
    """``raise Other from exc`` in an outer step is a failure of that step; the cause keeps its own."""

    @step
    def translates() -> None:
        try:
            breaks()
        except Broken as exc:
            raise LookupError("translated") from exc

    with pytest.raises(LookupError) as caught:
        run(translates)
    assert failure_of(caught.value).path == ("translates",)
    assert failure_of(caught.value.__cause__).path == ("translates", "breaks")


def test_a_reraised_failure_keeps_its_first_place() -> None:
    """A body that catches and re-raises, or a step above, does not change what is known."""

    @step
    def again() -> None:
        try:
            breaks()
        except Broken as exc:
            exc.add_note("seen")
            raise

    with pytest.raises(Broken) as caught:
        run(again)
    assert failure_of(caught.value).step == "breaks"
    assert len(caught.value.__notes__) == 2


def test_one_exception_object_raised_in_two_steps_belongs_to_the_last() -> None:
    """An object that is raised again in a later step is attributed to that one, with one note."""
    error = Broken("shared")

    @step
    def first() -> None:
        raise error

    @step
    def second() -> None:
        raise error

    def body() -> None:
        try:
            first()
        except Broken:
            second()

    with pytest.raises(Broken) as caught:
        run(body)
    assert caught.value is error
    assert failure_of(error).step == "second"
    assert len(error.__notes__) == 1


def test_one_exception_object_raised_in_two_runs_belongs_to_the_last() -> None:
    """A module-level exception object tells of the newest run it came out of."""
    error = Broken("shared")

    @step
    def raises() -> None:
        raise error

    for _ in range(2):
        with pytest.raises(Broken):
            run(raises)
        assert failure_of(error).run_id == last_run().id
    assert len(error.__notes__) == 1


def test_a_failure_in_a_child_run_names_the_child() -> None:
    """The step, workflow and run of a failure are those where it happened."""

    @workflow
    def inner() -> None:
        breaks()

    @workflow
    def outer() -> None:
        inner()

    with pytest.raises(Broken) as caught:
        run(outer)
    failure = failure_of(caught.value)
    assert (failure.step, failure.workflow) == ("breaks", "inner")
    assert failure.run_id == last_run().metrics.children[0].run_id


def test_a_failure_survives_pickling() -> None:
    """An exception that crossed a process has its notes and its failure."""
    with pytest.raises(Broken) as caught:
        run(breaks)
    there = pickle.loads(pickle.dumps(caught.value))
    assert failure_of(there) == failure_of(caught.value)
    assert there.__notes__ == caught.value.__notes__


def test_an_error_of_flowlet_survives_pickling_with_its_failure() -> None:
    """A frozen error of ours keeps fields, notes and failure."""
    late = threading.Event()
    with pytest.raises(StepTimeout) as caught:
        run(step(timeout=0.01, name="slow")(lambda: late.wait(5)))
    late.set()
    there = pickle.loads(pickle.dumps(caught.value))
    assert (there.step, there.timeout) == ("slow", 0.01)
    assert failure_of(there) == failure_of(caught.value)
    assert there.__notes__ == caught.value.__notes__


def test_failure_of_a_foreign_exception_is_none() -> None:
    """An exception that never passed through a step in a run has no failure."""
    assert failure_of(ValueError("x")) is None

    def body() -> None:
        raise Broken

    with pytest.raises(Broken) as caught:
        run(body)
    assert failure_of(caught.value) is None


def test_an_error_whose_text_fails_is_still_raised() -> None:
    """A broken ``__str__`` of the user's own does not hide the failure."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @step
    def raises() -> None:
        raise Unprintable

    with pytest.raises(Unprintable):
        run(raises)
    assert last_run().metrics.steps[0].error == "Unprintable: <unprintable>"


@pytest.mark.parametrize("slots", [True, False])
def test_a_frozen_error_of_the_users_takes_the_failure(slots: bool) -> None:
    """An exception class that forbids setting attributes is attributed all the same."""

    class Locked(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    frozen = attrs.frozen(slots=slots)(type("Frozen", (Exception,), {"__annotations__": {"a": int}}))
    for error in (frozen(1), Locked()):

        @step
        def raises(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            run(raises)
        assert caught.value is error
        assert failure_of(error).step == "raises"


def test_nothing_but_the_error_keeps_the_variables_of_a_failed_step() -> None:
    """Once error, handle and the run's place in the list are gone, so is what the failing frames held."""

    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)

    @step
    def raises(held: Big) -> None:
        raise Broken

    handle = start(raises, big)
    with pytest.raises(Broken):
        handle.result()
    del big, handle
    process.reset()  # the list of recent runs keeps the error with its traceback
    gc.collect()
    assert gone() is None


# --- other decorators ----------------------------------------------------------------------------


def counted(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A user's own decorator."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs) + 1

    return wrapper


def test_a_decorator_above_a_step_keeps_the_step_inside() -> None:
    """A decorated step runs through the decorator, and the step within is recorded once."""
    decorated = counted(step(name="inner")(lambda number: number))
    assert not is_step(decorated)
    assert run(lambda: decorated(1)) == 2
    assert run(decorated, 1) == 2
    assert [s.name for s in last_run().metrics.steps] == ["inner"]


def test_a_decorator_below_a_step_is_part_of_the_step() -> None:
    """A step made of a decorated function calls the decorator's function."""

    @step
    @counted
    def inner(number: int) -> int:
        return number

    assert run(inner, 1) == 2
    assert inner.__name__ == last_run().metrics.steps[0].name == "inner"


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0, "attempts": 2}])
async def test_a_plain_wrapper_below_an_async_step_is_called_in_its_task(options: Any) -> None:
    """What it gives is awaited in the step, which is async as the function is that it wraps."""
    tried: list[int] = []

    def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            tried.append(threading.get_ident())
            return fn(*args)

        return wrapper

    @step(**options)
    @logged
    async def inner(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        if options and len(tried) == 2:
            raise ValueError
        return 2 * number

    async def body() -> int:
        return await inner(1) + await arun(inner, 2)

    with stamina.set_testing(True, attempts=2, cap=True):
        assert await inner(0) == 0
        assert await arun(body) == 6
    assert inspect.iscoroutinefunction(inner)
    assert tried == [threading.get_ident()] * (4 if options else 3)
    assert [(s.name, s.state) for s in last_run().metrics.steps] == [("inner", "completed")] * 2


def test_a_cache_above_a_step_hides_calls_from_the_run() -> None:
    """``functools.cache`` above a step works: the second call never reaches the step."""
    cached = functools.cache(step(name="inner")(lambda number: number))
    assert run(lambda: cached(1) + cached(1)) == 2
    assert len(last_run().metrics.steps) == 1


def test_a_partial_of_a_step_can_be_run() -> None:
    """``functools.partial`` of a step, sync or async, runs and is recorded."""
    assert run(functools.partial(shout, mark="?"), "a") == "A?"
    assert run(functools.partial(whisper, "A")) == "a"
    assert [s.name for s in last_run().metrics.steps] == ["whisper"]


STOPPING = pytest.mark.parametrize(
    "options", [{"attempts": 2}, {"timeout": 60.0}, {"max_concurrency": 1}, {"check": True}]
)


def _stops(**options: Any) -> Callable[[], int]:
    @step(retry_on=StopIteration, **options)
    def stops() -> int:
        raise StopIteration(5)

    return stops


@STOPPING
@pytest.mark.usefixtures("no_waits")
def test_a_step_with_options_that_raises_stop_iteration_raises_just_that(options: Any) -> None:
    """In bodies of both colours it is the step's own error, recorded as itself, with the step's name on it."""
    stops = _stops(**options)

    async def abody() -> None:
        with pytest.raises(StopIteration, match="5") as caught:
            stops()
        assert failure_of(caught.value).step == "stops"

    def body() -> None:
        with pytest.raises(StopIteration, match="5") as caught:
            stops()
        assert failure_of(caught.value).step == "stops"

    for each in (body, abody):
        run(each)
        record = last_run().metrics.steps[0]
        assert (record.state, record.error) == ("failed", "StopIteration: 5")
        assert record.attempts == options.get("attempts", 1)


@pytest.mark.parametrize("options", [{}, {"attempts": 2}])
@pytest.mark.usefixtures("no_waits")
async def test_a_moved_step_that_raises_stop_iteration_follows_pythons_rule(options: Any) -> None:
    """Where it is awaited it is a RuntimeError, and no class of ours."""
    stops = _stops(**options)

    async def body() -> None:
        await arun(stops)

    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        await arun(body)
    assert last_run().metrics.steps[0].error == "StopIteration: 5"


@pytest.mark.parametrize("colour", ["sync", "async", "moved", "child", "fan-out"])
def test_a_limited_step_that_calls_itself_keeps_its_one_place(colour: str) -> None:
    """Who is called by the holder of a place goes in with him, also through runs, threads and fan-outs."""

    @step(max_concurrency=1)
    def down(number: int) -> int:
        if not number:
            return 0
        if colour == "fan-out":
            return 1 + pmap(down, [number - 1])[0]
        if colour == "child":
            return 1 + start(down, number - 1).result()
        return 1 + down(number - 1)

    @step(max_concurrency=1)
    async def adown(number: int) -> int:
        return 1 + await adown(number - 1) if number else 0

    async def moved() -> int:
        return down(3)

    ask: Any = {"async": lambda: adown(3), "moved": moved}.get(colour, lambda: down(3))
    body = ask
    if colour == "async":

        async def body() -> int:
            return await adown(3)

    assert start(body).result(5.0) == 3


def test_a_place_that_was_given_back_counts_for_nobody() -> None:
    """What a call left running takes a place of its own once the call has ended."""
    inside, most, go_on = [0], [0], threading.Event()

    @step(max_concurrency=1)
    def limited(parent: bool) -> None:
        if parent:
            start(later)
            return
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        inside[0] -= 1

    def later() -> None:
        assert go_on.wait(5.0)
        pmap(limited, [False] * 3)

    def body() -> None:
        limited(True)
        go_on.set()

    run(body)
    assert most == [1]


@pytest.mark.parametrize("is_async_step", [False, True])
def test_step_middleware_that_forgets_await_is_told(is_async_step: bool) -> None:
    """A coroutine in the place of the result is refused, and the step has failed."""

    async def forgetful(call: StepCall, next: Any) -> Any:
        return next(call)

    async def body() -> str:
        return await whisper("x")

    flow = workflow(body) if is_async_step else workflow(lambda: shout("x"))
    with pytest.raises(BridgeError, match="'next' is async and was not awaited"):
        run(with_options(flow, middleware=[forgetful]))
    assert last_run().metrics.steps[0].state == "failed"


@pytest.mark.parametrize("colour", ["sync", "async", "moved"])
def test_check_looks_at_what_is_called_not_at_what_a_decorator_supplies(colour: str) -> None:
    """A decorator below the step may supply an argument: the call is checked without it."""

    def supplied(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn("db", *args)

        @functools.wraps(fn)
        async def awrapper(*args: Any) -> Any:
            return await fn("db", *args)

        return awrapper if inspect.iscoroutinefunction(fn) else wrapper

    @step(check=True, max_concurrency=1)
    @supplied
    def find(db: str, number: int) -> str:
        return f"{db}{number}"

    @step(check=True, max_concurrency=1)
    @supplied
    async def afind(db: str, number: int) -> str:
        return f"{db}{number}"

    async def moved() -> str:
        return find(1)

    async def abody() -> str:
        return await afind(1)

    bodies: dict[str, Any] = {"sync": lambda: find(1), "async": abody, "moved": moved}
    assert run(bodies[colour]) == "db1"


def test_a_partial_of_an_object_with_an_async_call_is_async() -> None:
    """``functools.partial`` does not hide the colour."""

    class Doubles:
        async def __call__(self, number: int) -> int:
            return 2 * number

    assert is_async(functools.partial(functools.partial(Doubles()), 2))
    assert not is_async(functools.partial(len))
    assert pmap(functools.partial(Doubles()), [1, 2]) == [2, 4]


@pytest.mark.usefixtures("no_waits")
def test_the_hooks_of_stamina_are_wrapped_once() -> None:
    """Later retries leave the hooks as they are; those the host sets meanwhile are wrapped, once."""
    hooks = stamina.instrumentation
    try:
        hooks.set_on_retry_hooks([lambda details: None])
        flaky = _stops(attempts=3)
        seen = []
        for _ in range(2):
            with pytest.raises(StopIteration):
                run(flaky)
            seen.append(hooks.get_on_retry_hooks())
        assert seen[0] is seen[1]
    finally:
        hooks.set_on_retry_hooks(None)


class Held:
    """What an argument holds."""


@step
async def lets_go(held: Held) -> bool:
    gone = weakref.ref(held)
    del held
    await anyio.sleep(0)
    return gone() is None


@workflow
async def lets_go_too(held: Held) -> bool:
    gone = weakref.ref(held)
    del held
    assert await lets_go(Held())
    return gone() is None


@workflow
async def lets_child_go() -> bool:
    return await lets_go_too(Held())


@pytest.mark.anyio
async def test_async_code_can_let_go_of_its_arguments() -> None:
    """What is large and needed at the beginning only need not stay for as long as the call waits."""
    assert await arun(lets_go_too, Held())
    assert await arun(lets_child_go)
