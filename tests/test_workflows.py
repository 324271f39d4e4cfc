"""Workflows: the four cells of composition, child runs, and plain Python around and below them."""

import asyncio
import contextlib
import functools
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

import anyio
import pytest
import sniffio

from flowlet import (
    LLM,
    BridgeError,
    DefinitionError,
    InputError,
    RunCancelled,
    WorkflowTimeout,
    apmap,
    arun,
    configure,
    failure_of,
    last_run,
    pmap,
    register_provider,
    run,
    runs,
    start,
    step,
    with_options,
    workflow,
)
from flowlet.protocols import RunCall
from flowlet.testing import MockProvider
from rig import adouble, double

pytestmark = pytest.mark.anyio

LATE = 5.0


@step
def thread_of() -> int:
    return threading.get_ident()


def names() -> list[str]:
    """The names of the steps of the newest run."""
    return [s.name for s in last_run().metrics.steps]


# --- the four cells ------------------------------------------------------------------------------


def test_a_sync_step_in_a_sync_body_runs_in_the_bodys_thread() -> None:
    """Sync in sync is a plain call in the same thread, thread-locals included."""
    local = threading.local()
    local.value = "mine"
    assert run(lambda: (thread_of(), step(lambda: local.value)())) == (threading.get_ident(), "mine")


def test_an_async_step_in_a_sync_body_runs_on_the_runs_loop(background: str) -> None:
    """``run(a, x)`` in a ``def`` body calls the async step on the run's own loop and waits for it."""

    @step
    async def where() -> tuple[int, str]:
        return threading.get_ident(), sniffio.current_async_library()

    def body() -> tuple[int, tuple[int, str], int]:
        return threading.get_ident(), run(where), run(adouble, 2)

    here, (there, library), result = run(body)
    assert here == threading.get_ident() != there
    assert (library, result, names()) == (background, 4, ["where", "adouble"])


async def test_a_sync_step_in_an_async_body_runs_on_a_worker_while_the_loop_goes_on() -> None:
    """``s(x)`` in an ``async def`` body suspends the body only: another task of the loop lets it end."""
    go = threading.Event()
    begun = anyio.Event()
    port = None

    @step
    def waits(number: int) -> tuple[int, int]:
        anyio.from_thread.run_sync(begun.set, token=port)
        assert go.wait(LATE)
        return number, threading.get_ident()

    async def body() -> tuple[int, int]:
        return waits(3)

    async def opens() -> None:
        await begun.wait()
        go.set()

    port = anyio.lowlevel.current_token()
    async with anyio.create_task_group() as group:
        group.start_soon(opens)
        number, thread = await arun(body)
    assert number == 3
    assert thread != threading.get_ident()


async def test_arun_of_a_sync_step_in_an_async_body_is_the_explicit_spelling() -> None:
    """``await arun(s, x)`` does what ``s(x)`` does: a worker thread, and one record."""

    async def body() -> tuple[int, int]:
        return await arun(thread_of), await arun(double, 4)

    thread, result = await arun(body)
    assert thread != threading.get_ident()
    assert (result, names()) == (8, ["thread_of", "double"])


async def test_an_async_step_in_an_async_body_is_awaited_in_the_same_task() -> None:
    """``await a(x)`` is a native await: same task, same thread."""

    @step
    async def where() -> tuple[int, int]:
        return threading.get_ident(), anyio.get_current_task().id

    here = threading.get_ident(), anyio.get_current_task().id
    assert await arun(lambda: None) is None
    assert await arun(where) == here


@pytest.mark.parametrize("number", [0, 7])
def test_the_cells_nest_in_each_other(background: str, number: int) -> None:
    """Sync and async steps call each other, level by level, from either colour of body."""

    @step
    def sync_outer(n: int) -> int:
        return run(async_middle, n) + 1

    @step
    async def async_middle(n: int) -> int:
        return double(n) + await adouble(n)

    async def async_body(n: int) -> int:
        return sync_outer(n)

    assert run(sync_outer, number) == run(async_body, number) == 4 * number + 1
    assert names() == ["sync_outer", "async_middle", "double", "adouble"]


async def test_control_flow_in_an_async_body_is_just_python() -> None:
    """Values are real: ``if``, ``for``, ``while``, comprehensions and ``try`` work on the results of steps."""

    async def body() -> list[int]:
        found = [double(n) for n in range(3) if double(n) != 2]
        while len(found) < 4:
            found.append(await adouble(found[-1]))
        try:
            found.append(double(None))  # type: ignore[arg-type]
        except TypeError:
            found.append(-1)
        return sorted({double(n) for n in found}, key=lambda n: -double(n))

    assert await arun(body) == [32, 16, 8, 0, -2]


async def test_many_bodies_are_suspended_in_sync_steps_at_once() -> None:
    """Each body has its own suspension: a barrier of five steps opens, whatever thread they are on."""
    barrier = threading.Barrier(5)

    @step
    def meets(n: int) -> int:
        barrier.wait(LATE)
        return n

    async def body(n: int) -> int:
        return meets(n) + meets(n)

    assert await arun(lambda: pmap(body, range(5))) == [0, 2, 4, 6, 8]


# --- run, arun, start ----------------------------------------------------------------------------


class Shop:
    @step
    def price(self, number: int) -> int:
        return number * 10

    @workflow
    def total(self, numbers: list[int]) -> int:
        return sum(self.price(n) for n in numbers)

    @workflow
    async def atotal(self, numbers: list[int]) -> int:
        return sum(self.price(n) for n in numbers)

    def plain(self, number: int) -> int:
        return self.price(number)

    def __call__(self, number: int) -> int:
        return self.price(number)


@workflow
def flow(number: int) -> int:
    return double(number)


@workflow
async def aflow(number: int) -> int:
    return double(number)


def plain(number: int) -> int:
    return double(number)


async def aplain(number: int) -> int:
    return double(number)


RUNNABLE = [
    flow,
    aflow,
    double,
    adouble,
    plain,
    aplain,
    lambda n: double(n),
    functools.partial(plain),
    functools.partial(aplain),
    with_options(plain, tags=["x"]),
]


@pytest.mark.parametrize("fn", RUNNABLE)
def test_run_and_start_take_every_kind_of_function(background: str, fn: Any) -> None:
    """Workflows, steps, plain functions, lambdas and partials of either colour run, in both modes."""
    assert run(fn, 4) == start(fn, 4).result(timeout=LATE) == 8
    assert [len(r.metrics.steps) for r in runs()] == [1, 1]


@pytest.mark.parametrize("fn", RUNNABLE)
async def test_arun_takes_every_kind_of_function(fn: Any) -> None:
    """In an event loop the same functions are awaited with ``arun`` or started and awaited."""
    assert await arun(fn, 4) == await start(fn, 4) == 8
    assert [len(r.metrics.steps) for r in runs()] == [1, 1]


def test_bound_methods_and_callable_objects_run(background: str) -> None:
    """A method, a workflow that is a method, and an object with ``__call__`` run as functions do."""
    shop = Shop()
    assert run(shop.total, [1, 2]) == run(shop.atotal, [1, 2]) == start(shop.total, [1, 2]).result() == 30
    assert run(shop.plain, 3) == run(shop, 3) == shop.total([3]) == 30
    assert [r.workflow for r in runs()] == ["total", "Shop", "Shop.plain", "total", "atotal", "total"]


def test_keyword_arguments_of_any_name_reach_the_function(background: str) -> None:
    """No keyword is taken by the machinery, whatever it is called."""
    words = dict.fromkeys(["fn", "args", "kwargs", "spec", "frame", "run", "timeout", "self", "items"], 1)

    @step
    def takes(**kwargs: int) -> dict[str, int]:
        return kwargs

    @workflow
    def both(**kwargs: int) -> dict[str, int]:
        return takes(**kwargs)

    assert run(takes, **words) == run(both, **words) == both(**words) == words
    assert start(both, **words).result() == words


def test_positional_and_variadic_arguments_pass_unchanged(background: str) -> None:
    """*args, keyword-only and positional-only parameters work in every cell."""

    @step
    def takes(a: int, /, *rest: int, key: str = "k", **more: int) -> tuple[Any, ...]:
        return a, rest, key, more

    @step
    async def atakes(a: int, /, *rest: int, key: str = "k", **more: int) -> tuple[Any, ...]:
        return a, rest, key, more

    async def body() -> tuple[Any, ...]:
        return takes(1, 2, 3, key="x", a=4), await atakes(1, 2, 3, key="x", a=4)

    expected = (1, (2, 3), "x", {"a": 4})
    assert run(body) == (expected, expected)
    assert run(lambda: (takes(1, 2, 3, key="x", a=4), run(atakes, 1, 2, 3, key="x", a=4))) == run(body)


async def test_pathological_arguments_are_only_passed_on() -> None:
    """The machinery never compares, hashes, copies, prints or tests the user's values."""

    class Touchy:
        __hash__ = None  # type: ignore[assignment]

        def _refuse(self, *_: object) -> Any:
            raise AssertionError("touched")

        __eq__ = __bool__ = __repr__ = __str__ = __len__ = __iter__ = _refuse  # type: ignore[assignment]
        __copy__ = __deepcopy__ = __await__ = __reduce_ex__ = _refuse  # type: ignore[assignment]

    value = Touchy()

    @step
    def gives(x: Any) -> Any:
        return x

    @workflow
    async def body(x: Any) -> Any:
        return gives(x)

    for result in (
        await arun(body, value),
        await start(body, value),
        await arun(gives, value),
        (await apmap(gives, [value]))[0],
    ):
        assert result is value


@pytest.mark.parametrize("value", [None, NotImplemented, ..., ValueError("a value"), (), type])
def test_odd_results_are_results(background: str, value: object) -> None:
    """An exception object, None or NotImplemented that is returned is a value."""

    @step
    def gives() -> object:
        return value

    async def body() -> object:
        return gives()

    assert run(gives) is run(body) is start(body).result() is value


@pytest.mark.parametrize("ask", [run, start, lambda x: run(lambda: run(x)), lambda x: pmap(x, [1])])
def test_a_call_in_the_place_of_a_function_shows_what_works(ask: Any) -> None:
    """``run(a(1))`` is refused with ``run(a, ...)``, and nothing is left un-awaited or listed."""
    with pytest.raises(
        DefinitionError, match=r"takes a function .* not coroutine[\s\S]*write: .*\(adouble, \.\.\.\)"
    ):
        ask(adouble(1))
    with pytest.raises(DefinitionError, match="takes a function .* not int 3"):
        ask(3)


async def test_a_coroutine_in_the_place_of_a_function_is_refused_by_arun() -> None:
    """``arun(a(1))`` shows ``arun(a, ...)``, in a body too."""
    with pytest.raises(DefinitionError, match=r"write: .*arun\(adouble, \.\.\.\)"):
        await arun(adouble(1))  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match=r"write: .*apmap\(adouble, \.\.\.\)"):
        await apmap(adouble(1), [1])  # type: ignore[call-overload]


# --- plain calls of workflows --------------------------------------------------------------------


def test_a_plain_call_of_a_sync_workflow_is_a_run() -> None:
    """``flow(3)`` outside a run blocks, gives the value and leaves a run behind."""
    assert flow(3) == 6
    assert (last_run().workflow, last_run().state, names()) == ("flow", "completed", ["double"])


async def test_a_plain_await_of_an_async_workflow_is_a_run() -> None:
    """``await aflow(3)`` outside a run gives the value and leaves a run behind."""
    assert await aflow(3) == 6
    assert (last_run().workflow, last_run().state, names()) == ("aflow", "completed", ["double"])


async def test_a_plain_call_of_a_sync_workflow_on_a_loop_thread_raises() -> None:
    """A ``def`` workflow would block the loop, so the call raises and shows the line that works."""
    with pytest.raises(BridgeError, match=r"await arun\(flow, \.\.\.\)"):
        flow(3)


@pytest.mark.parametrize("fn", [flow, aflow, double, adouble, plain, aplain])
async def test_run_on_a_loop_thread_raises(fn: Any) -> None:
    """``run`` where an event loop runs raises and shows ``await arun`` with the function's name."""
    with pytest.raises(BridgeError, match=rf"await arun\({fn.__name__}, \.\.\.\)"):
        run(fn, 1)
    assert runs() == []


async def test_run_in_an_async_body_raises() -> None:
    """Also in a body that flowlet drives ``run`` is refused, in favour of ``await arun``."""

    async def body() -> None:
        run(double, 1)

    with pytest.raises(BridgeError, match=r"await arun\(double, \.\.\.\)"):
        await arun(body)


# --- child runs ----------------------------------------------------------------------------------


@workflow
def child(number: int) -> int:
    return double(number)


@workflow
async def achild(number: int) -> int:
    return await adouble(number)


@pytest.mark.parametrize("mode", ["run", "start"])
def test_a_workflow_called_in_a_sync_body_is_a_child_run(background: str, mode: str) -> None:
    """Plain calls and ``run`` of workflows in a body make child runs with the run's correlation id."""

    @workflow
    def parent() -> int:
        return child(1) + run(child, 2) + run(achild, 3)

    handle = start(parent)
    assert (handle.result() if mode == "start" else run(parent)) == 12
    metrics = last_run().metrics
    assert [c.workflow for c in metrics.children] == ["child", "child", "achild"]
    assert {c.correlation_id for c in metrics.children} == {metrics.run_id}
    assert {c.parent_id for c in metrics.children} == {metrics.run_id}
    assert metrics.steps == ()


async def test_a_workflow_called_in_an_async_body_is_a_child_run() -> None:
    """A plain call, ``await`` and ``arun`` of workflows in an async body make child runs."""

    @workflow
    async def parent() -> int:
        return child(1) + await achild(2) + await arun(child, 3) + await arun(achild, 4)

    assert await arun(parent) == 20
    children = last_run().metrics.children
    assert [(c.workflow, c.state, len(c.steps)) for c in children] == [
        ("child", "completed", 1),
        ("achild", "completed", 1),
    ] * 2


def test_child_runs_are_not_listed_with_the_runs() -> None:
    """``runs()`` lists what the program asked for; children hang on their parents."""

    @workflow
    def parent() -> int:
        return child(1)

    run(parent)
    assert [r.workflow for r in runs()] == ["parent"]


def test_a_plain_function_in_a_run_is_just_the_function(background: str) -> None:
    """``run(plain)`` in a run calls it, without a child run."""
    assert run(lambda: run(plain, 1) + run(aplain, 2)) == 6
    assert last_run().metrics.children == ()
    assert names() == ["double", "double"]


def test_tags_are_inherited_and_added_to() -> None:
    """A child run has the tags of its parent and its own."""
    tagged = with_options(child, tags=["b"])
    run(with_options(lambda: tagged(1), tags=["a"]))
    assert last_run().metrics.tags == ("a",)
    assert last_run().metrics.children[0].tags == ("a", "b")


def test_the_model_is_inherited_by_child_runs_and_steps(background: str) -> None:
    """What the run says of the model holds below, unless a child run or step says otherwise."""
    provider = MockProvider(lambda request: request.model)
    register_provider("mock", provider)

    @step
    def ask(llm: LLM = LLM()) -> str:
        return llm.ask("?")

    @workflow
    def below() -> str:
        return ask()

    def body() -> list[str]:
        other = with_options(below, model="mock:child")
        return [ask(), below(), other(), with_options(ask, model="mock:step")(), ask()]

    asked = run(with_options(body, model="mock:run"))
    assert asked == ["run", "run", "child", "step", "run"]


async def test_the_backend_is_inherited_by_sync_child_runs(anyio_backend_name: str) -> None:
    """Async steps below sync child runs of an async run come back to the run's own loop."""

    @step
    async def where() -> tuple[str, int]:
        return sniffio.current_async_library(), threading.get_ident()

    @workflow
    def sync_child() -> tuple[str, int]:
        return run(where)

    async def body() -> tuple[str, int]:
        return sync_child()

    other = "trio" if anyio_backend_name == "asyncio" else "asyncio"
    configure(backend=other)
    assert await arun(body) == (anyio_backend_name, threading.get_ident())


@pytest.mark.parametrize("option", ["asyncio", "trio"])
def test_the_backend_option_chooses_the_loop_of_a_run(background: str, option: Any) -> None:
    """``with_options(backend=...)`` goes before the setting, for sync runs, async runs and steps below."""

    async def where() -> str:
        return sniffio.current_async_library()

    chosen = with_options(where, backend=option)
    assert run(chosen) == start(chosen).result() == option
    assert run(with_options(lambda: run(where), backend=option)) == option


def test_a_correlation_id_can_be_given() -> None:
    """A request's id ties a run and its child runs together; run ids stay their own."""
    run(with_options(lambda: child(1), correlation_id="request 7", run_id="my run"))
    metrics = last_run().metrics
    assert (metrics.run_id, metrics.correlation_id) == ("my run", "request 7")
    assert metrics.children[0].correlation_id == "request 7"
    assert metrics.children[0].run_id != "my run"


# --- inputs --------------------------------------------------------------------------------------


@workflow
def typed(number: int, kind: Literal["a", "b"] = "a", *, words: list[str] | None = None) -> int:
    return number


@workflow
async def atyped(number: int, kind: Literal["a", "b"] = "a", *, words: list[str] | None = None) -> int:
    return number


@pytest.mark.parametrize("fn", [typed, atyped])
def test_inputs_are_checked_against_hints_all_at_once(fn: Any) -> None:
    """A run with misfits raises one InputError with every fault, before the body begins, in both modes."""
    for ask in (run, start):
        with pytest.raises(InputError) as caught:
            ask(fn, "3", kind="c", words=["x", 1])
        assert len(caught.value.faults) == 3
        assert isinstance(caught.value, ValueError)
    assert runs() == []


async def test_inputs_are_checked_under_arun_and_in_plain_calls() -> None:
    """Awaiting a workflow, by ``arun`` or by itself, checks its inputs as ``run`` does."""
    with pytest.raises(InputError, match="number"):
        await arun(typed, "3")
    with pytest.raises(InputError, match="number"):
        await atyped("3")  # type: ignore[arg-type]


def test_inputs_of_a_child_run_are_checked() -> None:
    """A workflow called in a body refuses misfits too, and the parent can catch that."""

    def body() -> str:
        try:
            typed("3")  # type: ignore[arg-type]
        except InputError as exc:
            return exc.faults[0]
        return "none"

    assert "number" in run(body)


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, "a", 3), {}), ((1,), {"numbr": 2})])
def test_missing_surplus_and_unknown_inputs_are_input_errors(args: Any, kwargs: Any) -> None:
    """Arguments that the workflow can't take are told before anything runs."""
    with pytest.raises(InputError, match="typed"):
        run(typed, *args, **kwargs)


def test_nothing_is_converted() -> None:
    """A value that fits reaches the body as the object it was; ``5`` for a ``str`` does not fit."""
    words = ["a"]
    assert run(with_options(workflow(lambda w: w), name="same"), words) is words
    flags = workflow(_takes_float)
    assert type(run(flags, 3)) is int
    with pytest.raises(InputError):
        run(flags, "3")


def _takes_float(x: float) -> float:
    return x


def test_hints_that_can_not_be_resolved_allow_anything() -> None:
    """A forward reference to nothing is no reason to refuse a run."""

    def odd(x: Any) -> Any:
        return x

    odd.__annotations__ = {"x": "Nowhere", "return": "list[Nowhere]"}
    odd = workflow(odd)
    assert run(odd, 5) == 5


# --- options -------------------------------------------------------------------------------------


def test_with_options_names_what_does_not_exist() -> None:
    """An unknown option of a workflow is named, with the one that was probably meant."""
    with pytest.raises(DefinitionError, match="no option 'timout'; did you mean 'timeout'"):
        with_options(flow, timout=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "curio"},
        {"timeout": 0},
        {"tags": [3]},
        {"middleware": [3]},
        {"model": " "},
        {"run_id": ""},
    ],
)
def test_with_options_refuses_impossible_values(options: Any) -> None:
    """Each option of an execution is checked when it is given."""
    with pytest.raises(DefinitionError, match=next(iter(options))):
        with_options(flow, **options)


@pytest.mark.parametrize("option", ["run_id", "correlation_id"])
def test_what_is_of_one_execution_is_no_option_of_the_definition(option: str) -> None:
    """A run id on the decorator would make every run the same, so it is refused there."""
    with pytest.raises(DefinitionError, match=f"no option '{option}'"):
        workflow(**{option: "x"})(plain)


def test_with_options_adds_up_and_leaves_the_original() -> None:
    """Options given in turn are all there; the function they were given to has none of them."""
    once = with_options(flow, name="other")
    twice = with_options(once, tags=["x"])
    run(twice, 1)
    assert (last_run().workflow, last_run().metrics.tags) == ("other", ("x",))
    run(flow, 1)
    assert (last_run().workflow, last_run().metrics.tags) == ("flow", ())


# --- recursion -----------------------------------------------------------------------------------


def test_a_body_may_recurse_plainly() -> None:
    """Steps that call themselves are recorded level by level."""

    @step
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    assert run(factorial, 50) == functools.reduce(lambda a, b: a * b, range(1, 51))
    assert [s.parent for s in last_run().metrics.steps] == [None, *range(49)]


async def test_an_async_step_may_recurse() -> None:
    """An async step that awaits itself, and one that goes through sync steps, come back."""

    @step
    async def afactorial(n: int) -> int:
        return 1 if n < 2 else double(n) // 2 * await afactorial(n - 1)

    assert await arun(afactorial, 12) == 479001600


def test_child_runs_nest_up_to_the_limit() -> None:
    """A sync workflow that calls itself meets the depth limit as a clear error, not a RecursionError."""
    depths: list[int] = []

    @workflow
    def endless(n: int) -> int:
        depths.append(n)
        return endless(n + 1)

    with pytest.raises(
        DefinitionError, match="child runs nest 100 deep at most; this circle .*: endless → endless"
    ):
        run(endless, 0)
    assert depths == list(range(101))


def test_async_child_runs_nest_up_to_the_limit(background: str) -> None:
    """An async workflow that awaits itself meets the same limit."""

    @workflow
    async def endless(n: int) -> int:
        return await endless(n + 1)

    with pytest.raises(DefinitionError, match="child runs nest 100 deep"):
        run(endless, 0)


def test_alternating_colours_nest_up_to_the_limit(background: str) -> None:
    """Sync and async workflows that call each other hold a thread each, and still meet the limit."""

    @workflow
    async def even(n: int) -> int:
        return odd(n + 1)

    @workflow
    def odd(n: int) -> int:
        return run(even, n + 1)

    with pytest.raises(DefinitionError, match="child runs nest 100 deep.*: odd → even → odd"):
        run(even, 0)


def test_what_nests_too_deep_without_a_circle_is_named() -> None:
    """The last few names, and what to do."""

    def calls(inner: Any, name: str) -> Any:
        return workflow(name=name)(lambda n: inner(n))

    below: Any = double
    for number in range(102):
        below = calls(below, f"w{number}")
    with pytest.raises(
        DefinitionError, match=r"found … → w3 → w2 → w1 → w0\. Call some of them from one body"
    ):
        run(below, 1)


# --- tasks that the user spawned -----------------------------------------------------------------


async def _spawned(fn: Callable[[], Awaitable[Any]], how: str) -> Any:
    """Await *fn* in a task that flowlet knows nothing of."""
    if how == "own" and sniffio.current_async_library() == "asyncio":
        return await asyncio.create_task(fn())  # type: ignore[arg-type]
    results: list[Any] = []

    async def keeps() -> None:
        try:
            results.append((await fn(), None))
        except BaseException as exc:
            results.append((None, exc))

    if how == "own":
        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeps)
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(keeps)
    result, error = results[0]
    if error is not None:
        raise error
    return result


HOW = pytest.mark.parametrize("how", ["own", "group"])


@HOW
async def test_a_plain_call_in_a_hand_made_task_shows_what_works(how: str) -> None:
    """``s(x)`` in a task that flowlet did not start raises, and the message holds the line that works."""

    async def task() -> int:
        return double(2)

    async def body() -> int:
        return await _spawned(task, how)

    with pytest.raises(BridgeError, match=r"await arun\(double, \.\.\.\)"):
        await arun(body)


@HOW
async def test_a_workflow_called_in_a_hand_made_task_shows_what_works(how: str) -> None:
    """A plain call of a ``def`` workflow there raises the same."""

    async def task() -> int:
        return child(2)

    async def body() -> int:
        return await _spawned(task, how)

    with pytest.raises(BridgeError, match=r"await arun\(child, \.\.\.\)"):
        await arun(body)


@HOW
async def test_async_steps_work_in_hand_made_tasks(how: str) -> None:
    """An async step brings its bridge along: sync steps called in it work, and all is recorded."""

    @step
    async def outer(n: int) -> int:
        return double(n)

    async def task() -> int:
        return await outer(2) + await arun(double, 3) + await achild(4)

    async def body() -> int:
        return await _spawned(task, how)

    assert await arun(body) == 18
    assert names() == ["outer", "double", "double"]
    assert last_run().metrics.children[0].workflow == "achild"


@HOW
async def test_arun_of_a_plain_function_brings_the_bridge_to_a_hand_made_task(how: str) -> None:
    """What flowlet itself calls there may call steps plainly, undecorated functions too."""

    async def task() -> int:
        return await arun(aplain, 2)

    async def body() -> int:
        return await _spawned(task, how)

    assert await arun(body) == 4
    assert names() == ["double"]


# --- context variables and thread-locals ---------------------------------------------------------

word: ContextVar[str] = ContextVar("word", default="unset")


@step
def sets(value: str) -> str:
    before = word.get()
    word.set(value)
    return before


@step
async def asets(value: str) -> str:
    before = word.get()
    word.set(value)
    return before


async def test_context_variables_that_a_step_sets_come_back() -> None:
    """In an async body, a moved sync step reads and sets context variables as a plain call would."""

    async def body() -> tuple[str, ...]:
        word.set("body")
        return sets("one"), word.get(), await asets("two"), word.get(), await arun(sets, "three"), word.get()

    assert await arun(body) == ("body", "one", "one", "two", "two", "three")


def test_context_variables_cross_in_a_sync_body(background: str) -> None:
    """In a sync body, steps in the same thread, on the loop and on a thread of their own share them."""
    timed = with_options(sets, timeout=5)

    def body() -> tuple[str, ...]:
        word.set("body")
        return sets("one"), run(asets, "two"), timed("three"), word.get()

    token = word.set("outer")
    assert run(body) == ("body", "one", "two", "three")
    word.reset(token)


async def test_what_a_failing_moved_step_set_does_not_come_back() -> None:
    """Only a step that succeeded hands its context variables back."""

    @step
    def fails() -> None:
        word.set("lost")
        raise KeyError

    async def body() -> str:
        word.set("kept")
        with contextlib.suppress(KeyError):
            fails()
        return word.get()

    assert await arun(body) == "kept"


async def test_thread_locals_do_not_come_back() -> None:
    """A moved step sees the thread-locals of its worker, and the body keeps its own."""
    local = threading.local()

    @step
    def sets_local() -> Any:
        before = getattr(local, "value", None)
        local.value = "worker"
        return before

    async def body() -> tuple[Any, Any]:
        local.value = "loop"
        return sets_local(), local.value

    assert await arun(body) == (None, "loop")


async def test_a_run_sees_the_context_of_its_caller() -> None:
    """Context variables of the caller are readable in run, arun and start, whatever the thread."""
    token = word.set("caller")

    async def reads() -> str:
        return word.get()

    def sync_reads() -> str:
        return word.get()

    for fn in (reads, sync_reads):
        assert await arun(fn) == await start(fn) == "caller"
    word.reset(token)


# --- exceptions ----------------------------------------------------------------------------------


class OwnError(Exception):
    """A user's own."""


class OwnBase(BaseException):
    """A user's own that is no Exception."""


ERRORS: list[type[BaseException]] = [
    OwnError,
    OwnBase,
    StopIteration,
    StopAsyncIteration,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    TimeoutError,
    RuntimeError,
]
EACH = pytest.mark.parametrize("kind", ERRORS)


def raising(error: BaseException) -> tuple[Callable[[], None], Callable[[], Awaitable[None]]]:
    """A sync and an async step that raise *error*."""

    @step
    def raises() -> None:
        raise error

    @step
    async def araises() -> None:
        raise error

    return raises, araises


@EACH
def test_a_step_in_a_sync_body_raises_the_very_exception(background: str, kind: type[BaseException]) -> None:
    """The body can catch the object that the step raised, from a step of either colour."""
    error = kind("x")
    raises, araises = raising(error)

    def body() -> list[BaseException]:
        caught: list[BaseException] = []
        for call in (raises, lambda: run(araises)):
            try:
                call()
            except BaseException as exc:
                caught.append(exc)
        return caught

    first, second = run(body)
    assert first is error
    if kind is StopIteration:  # Python's own rule for coroutines
        assert isinstance(second, RuntimeError)
    else:
        assert second is error


@EACH
async def test_a_step_in_an_async_body_raises_the_very_exception(kind: type[BaseException]) -> None:
    """The bridge hands the object over: a body catches StopIteration and SystemExit as themselves."""
    error = kind("x")
    raises, araises = raising(error)

    async def body() -> list[BaseException]:
        caught: list[BaseException] = []
        try:
            raises()
        except BaseException as exc:
            caught.append(exc)
        try:
            await araises()
        except BaseException as exc:
            caught.append(exc)
        return caught

    first, second = await arun(body)
    assert first is error
    assert isinstance(second, RuntimeError) if kind is StopIteration else second is error


@EACH
async def test_a_step_with_options_raises_the_very_exception_across_the_bridge(kind: Any) -> None:
    """The longer way of a step with options loses nothing either."""
    error = kind("x")
    raises = with_options(
        raising(error)[0], attempts=2, retry_on=OSError if kind is not TimeoutError else KeyError
    )
    caught: list[BaseException] = []

    async def body() -> None:
        try:
            raises()
        except BaseException as exc:
            caught.append(exc)

    await arun(body)
    assert caught == [error]


@pytest.mark.parametrize("kind", [OwnError, OwnBase, StopIteration, SystemExit, TimeoutError])
def test_a_sync_run_raises_the_very_exception(background: str, kind: type[BaseException]) -> None:
    """What a step of a sync body raises is what the caller of ``run``, and of the handle, gets."""
    error = kind("x")
    raises, _ = raising(error)
    for ask in (lambda: run(lambda: raises()), lambda: start(lambda: raises()).result(), lambda: run(raises)):
        with pytest.raises(kind) as caught:
            ask()
        assert caught.value is error


@pytest.mark.parametrize("kind", [OwnError, OwnBase, SystemExit, TimeoutError])
def test_an_async_run_raises_the_very_exception(background: str, kind: type[BaseException]) -> None:
    """What a step of an async body raises is what the caller of ``run``, and of the handle, gets."""
    error = kind("x")
    raises, araises = raising(error)

    async def body() -> None:
        raises()

    for fn in (body, araises):
        for ask in (lambda fn=fn: run(fn), lambda fn=fn: start(fn).result()):
            with pytest.raises(kind) as caught:
                ask()
            assert caught.value is error


def test_a_background_loop_survives_what_a_body_raises(background: str) -> None:
    """SystemExit, KeyboardInterrupt and the like end their own run, and the loop serves the next one."""
    for kind in ERRORS:

        async def body(kind: type[BaseException] = kind) -> None:
            raise kind

        handle = start(body)
        with contextlib.suppress(BaseException):
            handle.result(timeout=LATE)
        assert handle.state in ("failed", "cancelled")
    assert run(aplain, 4) == 8


@pytest.mark.parametrize("kind", [OwnError, OwnBase, SystemExit])
async def test_arun_raises_the_very_exception(kind: type[BaseException]) -> None:
    """``await arun`` of either colour raises what the body raised, in the caller's task."""
    error = kind("x")
    raises, araises = raising(error)

    async def body() -> None:
        raises()

    def sync_body() -> None:
        raises()

    for fn in (body, sync_body, araises, raises):
        with pytest.raises(kind) as caught:
            await arun(fn)
        assert caught.value is error


def test_ctrl_c_in_a_sync_body_reaches_the_caller() -> None:
    """A KeyboardInterrupt goes on unchanged, and the run counts as cancelled."""

    def body() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(body)
    assert last_run().state == "cancelled"


async def test_a_body_that_raises_stop_iteration_is_a_runtime_error() -> None:
    """Python's rule for coroutines holds, with the StopIteration of the step as the cause."""
    raises, _ = raising(StopIteration("x"))

    async def body() -> None:
        raises()

    with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as caught:
        await arun(body)
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_a_sync_child_run_raises_stop_iteration_as_itself() -> None:
    """A ``def`` workflow called in an async body hands even a StopIteration over."""
    error = StopIteration("x")

    @workflow
    def raises() -> None:
        raise error

    async def body() -> bool:
        try:
            raises()
        except StopIteration as exc:
            return exc is error
        return False

    assert await arun(body)


async def test_exception_groups_pass_unchanged() -> None:
    """A group that a step raises, or a task group in a body, is the same group to the caller."""
    group = ExceptionGroup("several", [OwnError("a"), KeyError("b")])
    raises, araises = raising(group)
    for fn in (raises, araises):
        with pytest.raises(ExceptionGroup) as caught:
            await arun(fn)
        assert caught.value is group


async def test_a_task_group_in_a_body_fails_with_its_group() -> None:
    """Steps that fail in a task group are members of its group, each with its own failure."""
    _, araises = raising(OwnError("a"))

    async def body() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(araises)

    with pytest.raises(ExceptionGroup) as caught:
        await arun(body)
    assert failure_of(caught.value.exceptions[0]).step == "araises"


async def test_except_star_in_a_body_works_around_a_bridged_call() -> None:
    """``except*`` catches the group of a moved step."""
    raises, _ = raising(ExceptionGroup("several", [OwnError("a")]))

    async def body() -> int:
        try:
            raises()
        except* OwnError as group:
            return_value = len(group.exceptions)
        return return_value

    assert await arun(body) == 1


async def test_the_traceback_leads_to_the_users_line() -> None:
    """Across threads and the bridge, the traceback ends where the step raised."""
    raises, _ = raising(OwnError("x"))

    async def body() -> None:
        raises()

    with pytest.raises(OwnError) as caught:
        await arun(body)
    assert caught.traceback[-1].frame.code.name == "raises"
    assert any(entry.frame.code.name == "body" for entry in caught.traceback)


async def test_sys_exc_info_is_right_after_a_handled_bridged_failure() -> None:
    """After an ``except`` block around a moved step no exception is being handled any more."""
    raises, _ = raising(OwnError("x"))

    async def body() -> tuple[Any, Any]:
        try:
            raises()
        except OwnError:
            double(1)
            inside = sys.exc_info()[0]
        return inside, sys.exc_info()[0]

    assert await arun(body) == (OwnError, None)


async def test_finally_and_context_managers_run_around_bridged_calls() -> None:
    """``finally``, ``with`` and ``async with`` around a moved step run in order, on failure too."""
    told: list[str] = []
    raises, _ = raising(OwnError("x"))

    @contextlib.contextmanager
    def outer() -> Iterator[None]:
        told.append(f"enter {double(1)}")
        try:
            yield
        finally:
            told.append(f"leave {double(2)}")

    @contextlib.asynccontextmanager
    async def inner() -> AsyncIterator[None]:
        told.append(f"aenter {double(3)}")
        try:
            yield
        finally:
            told.append(f"aleave {await adouble(4)}")

    async def body() -> None:
        with outer():
            async with inner():
                raises()

    with pytest.raises(OwnError):
        await arun(body)
    assert told == ["enter 2", "aenter 6", "aleave 8", "leave 4"]


async def test_generators_around_bridged_calls_work() -> None:
    """Sync and async generators in a body may call steps of both colours."""

    def numbers() -> Iterator[int]:
        for n in range(3):
            yield double(n)

    async def anumbers() -> AsyncIterator[int]:
        for n in numbers():
            yield double(n) + await adouble(0)

    async def body() -> list[int]:
        async with contextlib.aclosing(anumbers()) as found:
            return [double(n) async for n in found]

    assert await arun(body) == [0, 8, 16]


# --- coroutines that nobody awaits ---------------------------------------------------------------


@pytest.mark.parametrize("place", ["argument", "keyword"])
def test_an_unawaited_step_is_an_error_in_a_sync_body(place: str) -> None:
    """A coroutine where its result was meant is refused, with the step's name and the lines that work."""

    def body() -> Any:
        return double(adouble(1)) if place == "argument" else double(x=adouble(1))  # type: ignore[arg-type]

    with pytest.raises(
        BridgeError, match=r"'adouble' is async and was not awaited[\s\S]*run\(adouble, \.\.\.\)"
    ):
        run(body)


@pytest.mark.parametrize("place", ["argument", "result", "async argument"])
async def test_an_unawaited_step_is_an_error_in_an_async_body(place: str) -> None:
    """The same in an async body, where ``await`` was forgotten."""

    async def body() -> Any:
        if place == "result":
            return adouble(1)
        return double(adouble(1)) if place == "argument" else await adouble(adouble(1))  # type: ignore[arg-type]

    with pytest.raises(
        BridgeError, match=r"'adouble' is async and was not awaited[\s\S]*await adouble\(\.\.\.\)"
    ):
        await arun(body)


@pytest.mark.parametrize("call", [achild, aplain])
async def test_a_coroutine_is_no_result_of_an_async_body(call: Any) -> None:
    """A forgotten ``await`` is refused by the name of what was called, whoever wrote it."""

    async def body() -> Any:
        return call(1)

    with pytest.raises(BridgeError, match=f"'{call.__name__}' is async and was not awaited: '.*body' gave a"):
        await arun(body)


# --- plain functions that give a coroutine -------------------------------------------------------


def passing(fn: Any) -> Any:
    """A user's own decorator, for functions of either colour."""

    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


GIVING = pytest.mark.parametrize(
    "fn",
    [lambda n: adouble(n), lambda n: aplain(n), lambda n: achild(n), passing(adouble), passing(aflow)],
    ids=["step", "function", "workflow", "step, wrapped", "workflow, wrapped"],
)


@GIVING
def test_what_a_plain_function_gives_is_awaited(background: str, fn: Any) -> None:
    """By run and start, with options and without, outside of runs and in a sync body."""

    def body() -> list[int]:
        return [run(fn, 1), start(fn, 2).result(), run(with_options(fn, timeout=LATE), 3)]

    assert body() == run(body) == run(with_options(body, timeout=LATE)) == [2, 4, 6]
    assert run(passing(body)) == [2, 4, 6]


@GIVING
async def test_what_a_plain_function_gives_is_awaited_in_the_callers_loop(fn: Any) -> None:
    """By arun and start, in a task and in an async body."""

    async def body() -> list[int]:
        return [await arun(fn, 1), await start(fn, 2), await arun(with_options(fn, timeout=LATE), 3)]

    assert await body() == await arun(body) == [2, 4, 6]


def test_middleware_of_runs_gets_what_the_coroutine_gives(background: str) -> None:
    """The result, not the coroutine."""

    def plus_one(call: RunCall, next: Callable[[RunCall], Any]) -> Any:
        return next(call) + 1

    assert run(with_options(lambda: adouble(2), middleware=[plus_one])) == 5


@pytest.mark.parametrize("cause", ["timeout", "cancel"])
def test_what_a_plain_function_gives_ends_with_its_run(background: str, cause: str) -> None:
    """A deadline and a cancellation reach the coroutine."""
    ended = threading.Event()
    begun = threading.Event()

    async def stays() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    handle = start(with_options(lambda: stays(), timeout=0.2 if cause == "timeout" else None))
    assert begun.wait(LATE)
    if cause == "cancel":
        handle.cancel()
    with pytest.raises(WorkflowTimeout if cause == "timeout" else RunCancelled):
        handle.result(LATE)
    assert ended.wait(LATE)


async def test_a_cancelled_arun_ends_what_a_plain_function_gives() -> None:
    """Native cancellation does, too."""
    ended = threading.Event()

    async def stays() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    with anyio.move_on_after(0.05) as scope:
        await arun(lambda: stays())
    assert scope.cancelled_caught
    assert ended.wait(LATE)


def test_a_coroutine_that_a_coroutine_gives_is_no_result() -> None:
    """One is awaited; what that gives is to be the result."""

    async def twice() -> Any:
        return aplain(1)

    with pytest.raises(BridgeError, match="'aplain' is async and was not awaited"):
        run(lambda: twice())


@workflow
@passing
async def wrapped_below(number: int) -> int:
    return await adouble(number)


async def test_a_wrapper_of_an_async_function_makes_an_async_workflow() -> None:
    """As the wrapper, the workflow gives a coroutine, also where ``with_options`` makes it."""
    assert asyncio.iscoroutinefunction(wrapped_below)

    async def body() -> int:
        return await wrapped_below(2) + await arun(wrapped_below, 3)

    assert await wrapped_below(1) == 2
    assert await with_options(passing(achild), tags=["x"])(1) == 2
    assert await arun(body) == 10
    assert [run.workflow for run in last_run().metrics.children] == ["wrapped_below"] * 2


async def test_a_workflow_may_be_a_wrapper_that_gives_another_awaitable() -> None:
    """What can be awaited is."""

    class Given:
        def __await__(self) -> Any:
            return aplain(2).__await__()

    @workflow
    @functools.wraps(aplain)
    def gives(_: int) -> Any:
        return Given()

    assert await gives(1) == 4


def test_options_go_on_a_decorated_workflow_too(background: str) -> None:
    """A decorator above a workflow makes a plain function, which is run with options as any other."""
    decorated = passing(child)
    assert run(with_options(decorated, timeout=LATE, tags=["x"]), 1) == run(decorated, 1)
    assert [run.workflow for run in last_run().metrics.children] == ["child"]


# --- loops in loops ------------------------------------------------------------------------------


@step
def own_loop(backend: str) -> tuple[str, int]:
    """Runs an event loop of its own."""

    async def main() -> tuple[str, int]:
        return sniffio.current_async_library(), await adouble(3) + await arun(double, 2)

    return anyio.run(main, backend=backend)


@pytest.mark.parametrize("inner", ["asyncio", "trio"])
async def test_a_sync_step_may_run_an_event_loop_of_its_own(inner: str) -> None:
    """``asyncio.run`` in a step, on a worker or inline, works, and steps awaited there are recorded."""

    async def body() -> tuple[str, int]:
        return own_loop(inner)

    assert await arun(body) == (inner, 10)
    assert await arun(own_loop, inner) == (inner, 10)
    assert names() == ["own_loop", "adouble", "double"]


@pytest.mark.parametrize("inner", ["asyncio", "trio"])
def test_a_step_inline_may_run_an_event_loop_of_its_own(inner: str) -> None:
    """The same in a sync run, in the calling thread."""
    assert run(own_loop, inner) == (inner, 10)


async def test_a_whole_run_may_happen_in_a_loop_of_a_steps_own() -> None:
    """``asyncio.run(arun(...))`` in a step is a child run."""

    @step
    def nested() -> int:
        return asyncio.run(arun(aflow, 2))

    assert await arun(nested) == 4
    assert last_run().metrics.children[0].workflow == "aflow"


def test_a_plain_call_in_a_loop_of_a_steps_own_raises() -> None:
    """In a loop that the user runs in a step there is no bridge for plain calls."""

    async def main() -> int:
        return double(1)

    with pytest.raises(BridgeError, match="await arun"):
        run(step(lambda: asyncio.run(main())))


async def test_a_coroutine_function_object_can_be_run() -> None:
    """An object whose ``__call__`` is async is an async function."""

    class Asks:
        async def __call__(self, n: int) -> int:
            return await adouble(n)

    assert await arun(Asks(), 2) == 4


def test_an_async_callable_object_is_run_in_sync_mode(background: str) -> None:
    """``run`` and ``start`` of an object whose ``__call__`` is async await it; so does ``pmap``."""

    class Asks:
        async def __call__(self, n: int) -> int:
            return await adouble(n)

    assert run(Asks(), 2) == start(Asks(), 2).result() == 4
    assert pmap(Asks(), [1, 2]) == [2, 4]
    assert run(lambda: run(Asks(), 2)) == 4


def test_no_warning_is_left_behind_by_a_refused_call() -> None:
    """A call that raises before its coroutine is made leaves nothing un-awaited."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError):
            start(aflow, "x")
        with pytest.raises(InputError):
            run(aflow, "x")
