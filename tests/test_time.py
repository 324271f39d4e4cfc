"""Time: deadlines hold whatever steps do, and what is left behind is told and harms nobody."""

import threading
import time

import anyio
import pytest

from flowlet import (
    LLM,
    AsyncLLM,
    ProviderError,
    RunStopped,
    StepTimeout,
    WorkflowTimeout,
    arun,
    configure,
    failure_of,
    pmap,
    register_provider,
    run,
    start,
    step,
    usage,
    with_options,
    workflow,
)
from flowlet._engine import _crossing
from flowlet._engine._threads import Threads
from flowlet.events import LoopRetired, ModelCalled, ThreadAbandoned
from flowlet.settings import process
from flowlet.testing import MockProvider
from rig import PATIENCE, PROMPTLY, TOKENS, Heard, SlowAsync, SlowSync, Trap, adouble, double, until

SHORT = 0.05


@workflow
def healthy() -> int:
    return double(21)


@workflow
async def ahealthy() -> int:
    return double(await adouble(10)) + 2


def timed_out(fn, *args, timeout: float = SHORT) -> WorkflowTimeout:
    """Run *fn* into its deadline, promptly."""
    began = time.monotonic()
    with pytest.raises(WorkflowTimeout) as caught:
        run(with_options(fn, timeout=timeout), *args)
    assert time.monotonic() - began < timeout + PROMPTLY
    return caught.value


# --- the deadline of a run -----------------------------------------------------------------------


def sleeps(trap: Trap) -> None:
    step(trap.sleep.__func__)(trap)


def spins(trap: Trap) -> None:
    step(trap.spin.__func__)(trap)


def swallows(trap: Trap) -> None:
    trap.swallow(lambda: double(1))


@pytest.mark.parametrize("body", [sleeps, spins, swallows])
def test_a_plain_run_returns_at_its_deadline(body, trap):
    """A def workflow returns within 250 ms of its deadline, whatever its steps do."""
    timed_out(body, trap)


async def asleeps(trap: Trap) -> None:
    await anyio.sleep(3600)


async def aspins(trap: Trap) -> None:
    trap.spin()


async def aswallows(trap: Trap) -> None:
    await trap.aswallow()


async def ablocks(trap: Trap) -> None:
    trap.sleep()


async def asleeps_in_a_thread(trap: Trap) -> None:
    step(trap.sleep.__func__)(trap)


async def aspins_in_a_thread(trap: Trap) -> None:
    await arun(step(trap.spin.__func__), trap)


@pytest.mark.parametrize(
    "body", [asleeps, aspins, aswallows, ablocks, asleeps_in_a_thread, aspins_in_a_thread]
)
def test_an_async_run_returns_at_its_deadline(body, trap, backend):
    """An async workflow under run() returns within 250 ms of its deadline, whatever its steps do."""
    timed_out(with_options(body, backend=backend), trap)


def test_a_plain_run_that_waits_for_its_loop_returns_at_its_deadline(trap, backend):
    """A def workflow whose async step blocks the loop returns at its deadline."""

    def body() -> None:
        run(step(ablocks), trap)

    timed_out(with_options(body, backend=backend))


def test_a_fan_out_returns_at_its_deadline(trap, backend):
    """A fan-out of stuck steps returns at the deadline of its run."""
    stuck = step(trap.sleep.__func__)

    def body() -> None:
        pmap(stuck, [trap] * 20)

    async def abody() -> None:
        pmap(stuck, [trap] * 20)

    timed_out(with_options(body, backend=backend))
    timed_out(with_options(abody, backend=backend))


@pytest.mark.anyio
async def test_arun_returns_at_its_deadline(trap):
    """In the caller's own loop the deadline holds for plain and async bodies."""
    for body in (sleeps, spins, asleeps, asleeps_in_a_thread):
        began = time.monotonic()
        with pytest.raises(WorkflowTimeout):
            await arun(with_options(body, timeout=SHORT), trap)
        assert time.monotonic() - began < SHORT + PROMPTLY


def test_a_timeout_carries_the_figures_of_its_moment(trap, backend):
    """WorkflowTimeout has the finished steps and the one that was running."""
    stuck = step(name="stuck")(trap.sleep.__func__)

    async def body() -> None:
        double(await adouble(1))
        stuck(trap)

    metrics = timed_out(with_options(body, backend=backend)).metrics
    assert [(s.name, s.state) for s in metrics.steps] == [
        ("adouble", "completed"),
        ("double", "completed"),
        ("stuck", "running"),
    ]
    assert metrics.state == "running"
    assert SHORT <= metrics.duration < SHORT + PROMPTLY


def test_a_timeout_names_the_running_step(trap):
    """The message of a WorkflowTimeout says where the run was."""
    error = timed_out(sleeps, trap)
    assert "in step sleep, 0 finished" in str(error)


def test_the_clock_starts_when_the_run_is_asked_for(trap):
    """A run that waits for a free thread uses up its time."""
    configure(max_threads=1)
    start(sleeps, trap)
    trap.wait_entered()
    assert timed_out(healthy).metrics.steps == ()


def test_a_parent_ends_its_child_at_its_own_deadline(trap, backend):
    """A deadline holds for child runs whose own is later."""

    @workflow(timeout=60)
    async def child() -> None:
        await anyio.sleep(3600)

    async def parent() -> None:
        await child()

    error = timed_out(with_options(parent, backend=backend))
    assert [c.workflow for c in error.metrics.children] == ["child"]


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_plain_parent_ends_its_plain_child(timeout, trap):
    """A deadline holds for plain child runs, with and without one of their own."""
    child = workflow(timeout=timeout, name="child")(sleeps)

    def parent() -> None:
        child(trap)

    error = timed_out(parent)
    assert [c.workflow for c in error.metrics.children] == ["child"]


def test_a_child_that_times_out_does_not_end_its_parent(trap, backend):
    """A body may catch the timeout of a child run and go on."""
    child = workflow(timeout=SHORT)(sleeps)
    achild = workflow(timeout=SHORT)(asleeps)

    def parent() -> int:
        with pytest.raises(WorkflowTimeout):
            child(trap)
        return double(1)

    async def aparent() -> int:
        with pytest.raises(WorkflowTimeout):
            await achild(trap)
        return double(1)

    assert run(parent) == 2
    assert run(with_options(aparent, timeout=60, backend=backend)) == 2


@pytest.mark.anyio
async def test_a_run_that_finishes_late_has_timed_out():
    """A body that returns a value after its deadline is a timeout, in every mode."""

    async def late() -> int:
        time.sleep(2 * SHORT)
        return 1

    with pytest.raises(WorkflowTimeout):
        await arun(with_options(late, timeout=SHORT))


def test_a_late_result_changes_nothing(trap):
    """What a body returns after its deadline is fenced off."""

    def body() -> int:
        trap.sleep()
        return 1

    handle = start(with_options(body, timeout=SHORT))
    with pytest.raises(WorkflowTimeout):
        handle.result(PATIENCE)
    trap.open.set()
    until(lambda: process.of(Threads).abandoned == 0)
    assert handle.state == "timeout"
    with pytest.raises(WorkflowTimeout):
        handle.result()


@pytest.mark.parametrize("call", [lambda: double(1), lambda: healthy(), lambda: run(adouble, 1)])
def test_a_timed_out_body_starts_no_further_step(call, trap):
    """The next call of ours in a body whose run is over raises RunStopped, and nothing is recorded."""
    raised: list[BaseException] = []
    over = threading.Event()

    def body() -> None:
        trap.sleep()
        try:
            call()
        except BaseException as exc:
            raised.append(exc)
        over.set()

    handle = start(with_options(body, timeout=SHORT))
    with pytest.raises(WorkflowTimeout):
        handle.result(PATIENCE)
    trap.open.set()
    assert over.wait(PATIENCE)
    assert [type(exc) for exc in raised] == [RunStopped]
    assert handle.metrics.steps == ()
    assert handle.metrics.children == ()


def test_a_run_is_fenced_off_before_its_end_is_told(trap):
    """Its body and what goes on below it start nothing that who hears of the end would not expect."""
    raised: list[BaseException] = []
    over = threading.Event()

    def call(x: int) -> None:
        trap.sleep()
        try:
            double(x)
        except BaseException as exc:
            raised.append(exc)
        over.set()

    handle = start(with_options(lambda: pmap(call, [1]), timeout=SHORT))
    handle._run.on_end(lambda: (trap.open.set(), over.wait(PATIENCE)), first=True)
    with pytest.raises(WorkflowTimeout):
        handle.result(PATIENCE)
    assert [type(exc) for exc in raised] == [RunStopped]


# --- the limit of a step -------------------------------------------------------------------------


def stuck_in(trap: Trap):
    return step(timeout=SHORT, name="slow")(trap.sleep.__func__)


@step(timeout=SHORT, name="slow")
async def aslow() -> None:
    await anyio.sleep(3600)


def test_a_plain_step_in_a_plain_body_has_its_limit(trap):
    """Sync body, sync step: StepTimeout, and the run goes on."""

    def body() -> int:
        with pytest.raises(StepTimeout):
            stuck_in(trap)(trap)
        return double(1)

    assert run(body) == 2


def test_an_async_step_in_a_plain_body_has_its_limit(backend):
    """Sync body, async step: StepTimeout, and the run goes on."""

    def body() -> int:
        with pytest.raises(StepTimeout):
            run(aslow)
        return double(1)

    assert run(with_options(body, backend=backend)) == 2


def test_a_plain_step_in_an_async_body_has_its_limit(trap, backend):
    """Async body, sync step: StepTimeout in both spellings, and the run goes on."""

    async def body() -> int:
        with pytest.raises(StepTimeout):
            stuck_in(trap)(trap)
        with pytest.raises(StepTimeout):
            await arun(stuck_in(trap), trap)
        return double(1)

    assert run(with_options(body, backend=backend)) == 2


def test_an_async_step_in_an_async_body_has_its_limit(backend):
    """Async body, async step: StepTimeout, and the run goes on."""

    async def body() -> int:
        with pytest.raises(StepTimeout):
            await aslow()
        return double(1)

    assert run(with_options(body, backend=backend)) == 2


def test_an_async_step_that_finishes_late_has_timed_out(backend):
    """A step that blocks its loop beyond its limit and then returns is a StepTimeout."""

    @step(timeout=SHORT)
    async def late() -> int:
        time.sleep(2 * SHORT)
        return 1

    with pytest.raises(StepTimeout):
        run(with_options(late, backend=backend))


def test_a_step_timeout_is_recorded(trap):
    """The metrics and failure_of() tell which step timed out."""
    slow = stuck_in(trap)

    def body() -> None:
        slow(trap)

    handle = start(body)
    with pytest.raises(StepTimeout) as caught:
        handle.result(PATIENCE)
    assert [(s.name, s.state) for s in handle.metrics.steps] == [("slow", "timeout")]
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.step == "slow"


def test_a_step_that_times_out_is_tried_again(trap):
    """Each attempt has the whole limit, and a StepTimeout is worth another attempt."""
    tries: list[int] = []

    @step(timeout=SHORT, attempts=2)
    def second_time() -> int:
        tries.append(1)
        if len(tries) == 1:
            trap.sleep()
        return len(tries)

    assert run(second_time) == 2


# --- late answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", [SlowSync, SlowAsync])
@pytest.mark.parametrize("colour", ["def", "async def"])
def test_late_answers_are_booked(provider, colour, backend, heard: Heard):
    """Tokens that arrive after the deadline are counted, in the run and in the process."""
    slow = provider()
    register_provider("slow", slow)

    @step
    def ask() -> str:
        return LLM("slow:m").ask("hello")

    @step
    async def aask() -> str:
        return await AsyncLLM("slow:m").ask("hello")

    def body() -> str:
        return ask()

    async def abody() -> str:
        return await aask()

    handle = start(with_options(body if colour == "def" else abody, timeout=SHORT, backend=backend))
    with pytest.raises(WorkflowTimeout):
        handle.result(PATIENCE)
    assert handle.metrics.usage.total_tokens == 0
    slow.answer.set()
    heard.wait(ModelCalled)
    assert handle.metrics.usage.total_tokens == TOKENS.total_tokens == usage().total_tokens


# --- what is left behind -------------------------------------------------------------------------


def test_an_abandoned_thread_is_counted_and_told(trap, heard):
    """ThreadAbandoned names the step and how many such threads there are; they are counted until they end."""
    timed_out(sleeps, trap)
    timed_out(sleeps, trap)
    told = heard.wait(ThreadAbandoned, 2)
    assert [(event.step, event.count) for event in told] == [("sleep", 1), ("sleep", 2)]
    trap.open.set()
    until(lambda: process.of(Threads).abandoned == 0)


@step
async def naps(seconds: float) -> None:
    await anyio.sleep(seconds)


def streams() -> str:
    with LLM().stream("?") as pieces:
        return "".join(pieces)


WAITS = [
    lambda: run(naps, 9),
    lambda: start(naps, 9).result(),
    lambda: pmap(naps, [9, 9]),
    lambda: LLM().ask("?"),
    streams,
]


def step_timed_out(fn) -> None:
    """Run *fn* as a step into the time limit of that, promptly."""
    began = time.monotonic()
    with pytest.raises(StepTimeout):
        run(with_options(step(fn), timeout=SHORT))
    assert time.monotonic() - began < SHORT + PROMPTLY


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("limited", [timed_out, step_timed_out])
def test_a_body_that_ends_at_its_deadline_is_not_called_stuck(heard, limited, wait):
    """It waits through flowlet, which wakes it; only a thread that goes on after that is told."""
    ended = threading.Event()
    busy = ProviderError("rate_limit", "later", retryable=True, retry_after=9.0, provider="mock")
    configure(model="mock:m")
    register_provider("mock", MockProvider([busy, "tea"]))

    def body() -> None:
        try:
            wait()
        finally:
            ended.set()

    limited(body)
    assert ended.wait(PATIENCE)
    time.sleep(4 * _crossing.COURTESY)
    assert not heard.of(ThreadAbandoned)


def test_an_abandoned_thread_gives_its_place_back(trap):
    """With one place in the pool, a run works after another's thread was abandoned."""
    configure(max_threads=1)
    timed_out(sleeps, trap)
    assert run(with_options(healthy, timeout=PATIENCE)) == 42
    until(lambda: process.of(Threads)._runnable == 0)


def test_a_thread_abandoned_while_it_waits_gives_its_place_back_once(trap, backend):
    """A body that waits through flowlet has lent its place already; leaving it behind frees no second one."""

    def body() -> None:
        run(step(aswallows), trap)

    timed_out(with_options(body, backend=backend))
    trap.open.set()
    threads = process.of(Threads)
    until(lambda: threads.abandoned == 0)
    assert threads._runnable == 0


def test_a_healthy_run_works_beside_200_stuck_steps(trap):
    """200 steps that never end do not keep a later run from its threads once their run is cancelled."""

    def body() -> None:
        pmap(step(trap.sleep.__func__), [trap] * 200, max_concurrency=200)

    configure(max_threads=200)
    handle = start(body)
    trap.wait_entered(200)
    handle.cancel()
    until(lambda: process.of(Threads).abandoned == 200)
    assert run(with_options(healthy, timeout=PATIENCE)) == 42


def test_a_blocked_loop_is_told_and_replaced(trap, backend, heard):
    """LoopRetired names the step that blocks a background loop, and later runs get a fresh loop."""

    @step
    async def blocks() -> None:
        trap.sleep()

    async def body() -> None:
        await blocks()

    run(with_options(ahealthy, backend=backend))  # the loop is there: its start would take from the time
    timed_out(with_options(body, backend=backend))
    assert run(with_options(ahealthy, backend=backend, timeout=PATIENCE)) == 42
    (told,) = heard.wait(LoopRetired)
    assert (told.backend, told.step) == (backend, "blocks")


def test_runs_queued_on_a_blocked_loop_get_a_fresh_one(trap, backend):
    """A run that waits on a loop which another run blocks, without any deadline, is moved."""
    start(with_options(ablocks, backend=backend), trap)
    trap.wait_entered()
    queued = [start(with_options(ahealthy, backend=backend)) for _ in range(3)]
    assert [handle.result(PATIENCE) for handle in queued] == [42] * 3
    assert not trap.open.is_set()


def test_a_plain_body_gets_a_fresh_loop_too(trap, backend):
    """An async step that a plain body calls is moved from a blocked loop as well."""
    start(with_options(ablocks, backend=backend), trap)
    trap.wait_entered()
    assert run(with_options(healthy_through_the_loop, backend=backend)) == 42


@workflow
def healthy_through_the_loop() -> int:
    return run(adouble, 21)


def test_the_other_runs_of_a_retired_loop_go_on(trap, backend, heard):
    """A run that shares a loop with one that blocks it goes on when the loop listens again."""
    begun = threading.Event()
    release = threading.Event()

    async def neighbour() -> int:
        begun.set()
        while not release.is_set():
            await anyio.sleep(0.001)
        return await adouble(21)

    handle = start(with_options(neighbour, backend=backend))
    assert begun.wait(PATIENCE)
    timed_out(with_options(ablocks, backend=backend), trap)
    heard.wait(LoopRetired)
    trap.open.set()
    release.set()
    assert handle.result(PATIENCE) == 42


def test_a_retired_loop_ends_when_its_runs_have(trap, backend, heard):
    """The thread of a retired loop ends once it listens again and nothing is left to do there."""
    before = set(threading.enumerate())
    timed_out(with_options(ablocks, backend=backend), trap)
    heard.wait(LoopRetired)
    trap.open.set()
    name = f"flowlet {backend} loop"
    until(lambda: not any(t.name == name for t in set(threading.enumerate()) - before))


# --- many threads --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [39, 40, 41, 200])
def test_nested_plain_workflows_do_not_deadlock(width):
    """Sync workflows that fan out to sync workflows that wait for threads are never starved, at any width."""
    configure(max_threads=40)
    limited = step(timeout=60)(double.__wrapped__)

    @workflow(timeout=60)
    def child(x: int) -> int:
        return sum(pmap(limited, [x, x + 1]))

    def parent() -> int:
        return sum(pmap(child, range(width), max_concurrency=width))

    assert run(with_options(parent, timeout=30)) == sum(4 * x + 2 for x in range(width))


@pytest.mark.parametrize("width", [41, 200])
def test_nested_plain_workflows_of_an_async_body_do_not_deadlock(width, backend):
    """The same from an async body, whose sync steps are moved to threads."""
    configure(max_threads=40)

    @workflow
    def child(x: int) -> int:
        return run(adouble, double(x))

    async def parent() -> int:
        return sum(pmap(child, range(width), max_concurrency=width))

    assert run(with_options(parent, timeout=30, backend=backend)) == sum(4 * x for x in range(width))


def test_a_step_that_ends_as_it_is_told_to_has_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next step ended it, in the moment between the limit and the look at it."""
    monkeypatch.setattr(_crossing, "abandon", lambda job, frame: until(lambda: job.finished))

    @step
    def again() -> None: ...

    @step(timeout=0.02)
    def busy() -> None:
        while True:
            again()

    with pytest.raises(StepTimeout):
        run(workflow(lambda: busy()))
