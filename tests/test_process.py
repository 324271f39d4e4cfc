"""The life of the process: Ctrl-C, exit, fork, and a system that has no more threads or files to give."""

import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import anyio
import pytest
from attrs import frozen

from flowlet import (
    FlowletError,
    RunCancelled,
    arun,
    configure,
    failure_of,
    pmap,
    run,
    runs,
    start,
    step,
    with_options,
    workflow,
)
from flowlet._engine import _bells as bells
from flowlet._engine._bells import bell
from flowlet._engine._loops import current_port
from flowlet._engine._threads import Threads
from flowlet.events import LoopRetired, PluginFailed, RunInfo, ThreadAbandoned
from flowlet.settings import process
from rig import PATIENCE, adouble, double, until

PRELUDE = """
import asyncio, os, sys, threading, time
import anyio
from flowlet import *

BACKEND = sys.argv[1]
configure(backend=BACKEND)

def ready():
    print("ready", flush=True)

@step
def double(x):
    return 2 * x

@step
async def adouble(x):
    await anyio.sleep(0)
    return 2 * x

@step
def asleep():
    ready()
    time.sleep(60)

@step
async def aasleep():
    ready()
    await anyio.sleep(60)

class Never:
    live = False
    name = "never"
    def complete(self, request):
        ready()
        time.sleep(60)

class ANever:
    live = False
    name = "anever"
    async def acomplete(self, request):
        ready()
        await anyio.sleep(60)

class Soon(ANever):
    name = "soon"
    async def acomplete(self, request):
        ready()
        await anyio.sleep(0.3)
        print("answered", flush=True)
        return Completion("late")

for provider in (Never(), ANever(), Soon()):
    register_provider(provider.name, provider)

def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()
"""


@frozen
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str
    seconds: float


def python(code: str, backend: str = "asyncio", interrupts: int = 0) -> Ended:
    """Run *code*, press Ctrl-C so often once it is ready, and tell how it ended and how long that took."""
    script = PRELUDE + textwrap.dedent(code)
    command = [sys.executable, "-X", "faulthandler", "-c", script, backend]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWLET_", "OPENAI_"))}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            first = child.stdout.readline() if interrupts else ""
            time.sleep(0.05 * interrupts)  # right before a call that blocks, Python sees no signal
            began = time.monotonic()
            for _ in range(interrupts):
                child.send_signal(signal.SIGINT)
                time.sleep(0.2)
            out, err = child.communicate(timeout=20)
        finally:
            child.kill()
    return Ended(child.returncode, first + out, err, time.monotonic() - began)


def interrupted(code: str, backend: str, times: int = 1) -> Ended:
    """Press Ctrl-C in *code*, which must end by it, promptly, with its run cancelled."""
    ended = python(
        f"try:\n{textwrap.indent(textwrap.dedent(code), '    ')}\n"
        "except KeyboardInterrupt:\n    print('interrupted', runs()[0].state, flush=True)\n    raise",
        backend,
        times,
    )
    assert ended.code in (-signal.SIGINT, 130), ended.err
    assert "interrupted cancelled" in ended.out, ended.err
    assert ended.seconds < 5
    assert "Fatal" not in ended.err
    return ended


# --- Ctrl-C ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "run(asleep)",
        "run(aasleep)",
        "run(lambda: run(aasleep))",
        "run(with_options(lambda: asleep(), timeout=60))",
        "pmap(lambda x: asleep(), [1])",
    ],
)
def test_ctrl_c_ends_a_sync_run(call, backend):
    """One Ctrl-C ends run() of either kind, with and without a timeout."""
    if call.startswith("pmap"):
        call = "run(lambda: pmap(lambda x: asleep(), [1]))"
    interrupted(call, backend)


def test_ctrl_c_ends_an_awaited_run(backend):
    """One Ctrl-C ends arun() under asyncio.run and trio.run, wherever the run waits."""
    for step_ in ("await aasleep()", "asleep()"):
        interrupted(
            f"""
            async def body():
                {step_}
            anyio.run(arun, body, backend=BACKEND)
            """,
            backend,
        )


def test_ctrl_c_ends_a_tight_loop_in_an_async_body():
    """On trio, Ctrl-C reaches Python code in a body, which runs in a greenlet of its own."""
    interrupted(
        """
        async def body():
            double(1)
            ready()
            while True:
                pass
        anyio.run(arun, body, backend="trio")
        """,
        "trio",
    )


@pytest.mark.parametrize(
    "call", ["{}()", "run({})", "run(with_options({}, timeout=9))", "anyio.run(arun, {}, backend=BACKEND)"]
)
@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(("error", "state"), [("KeyboardInterrupt", "cancelled"), ("SystemExit", "failed")])
def test_what_ends_the_process_is_raised_unchanged(error, state, kind, call, backend):
    """A KeyboardInterrupt or SystemExit of a step ends run() and arun() as itself, wherever the step ran."""
    call = call.format("body")
    if call == "body()" and kind == "async def":
        call = "anyio.run(body, backend=BACKEND)"
    ended = python(
        f"""
        @step
        def ends():
            raise {error}("enough")

        @workflow
        {kind} body():
            ends()

        try:
            {call}
        except BaseException as exc:
            print(repr(exc), runs()[0].state)
        """,
        backend,
    )
    assert ended.out == f"{error}('enough') {state}\n", ended.err


def test_ctrl_c_lets_a_model_call_finish(backend):
    """After one Ctrl-C the answer that was paid for still comes in."""
    for call in ("run(body)", "anyio.run(arun, body, backend=BACKEND)"):
        ended = interrupted(
            f"""
            async def body():
                await AsyncLLM("soon:m").ask("hello")
            {call}
            """,
            backend,
        )
        assert "answered" in ended.out


def test_a_second_ctrl_c_ends_the_grace(backend):
    """Who presses Ctrl-C twice waits for no answer."""
    for call in (
        "run(body)",
        "run(with_options(body, timeout=60))",
        "anyio.run(arun, body, backend=BACKEND)",
    ):
        interrupted(
            f"""
            async def body():
                await AsyncLLM("anever:m").ask("hello")
            {call}
            """,
            backend,
            times=2,
        )


def test_ctrl_c_in_a_plain_body_cuts_its_model_call(backend):
    """A plain body runs in the calling thread: Ctrl-C arrives there, and waits for no provider that may never answer."""
    interrupted("run(lambda: LLM('never:m').ask('hello'))", backend)


# --- exit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["asleep", "aasleep"])
def test_background_runs_are_cancelled_at_exit(name, backend):
    """The process ends although a run goes on, and says which."""
    ended = python(f"handle = start({name}); until(lambda: handle.metrics.steps)", backend)
    assert (ended.code, ended.seconds < 5) == (0, True)
    assert f"cancelled at the end of the process: {name} " in ended.err


def test_what_background_runs_opened_is_closed_at_exit(backend):
    """Cancelled at exit, a body still runs its finally."""
    ended = python(
        """
        async def body():
            try:
                await aasleep()
            finally:
                print("closed", flush=True)
        handle = start(body)
        until(lambda: handle.metrics.steps)
        """,
        backend,
    )
    assert (ended.code, "closed" in ended.out) == (0, True), ended.err


def test_model_calls_may_finish_at_exit(backend):
    """The process waits for an answer in flight, within the grace."""
    ended = python(
        """
        asked = threading.Event()
        ready = asked.set
        async def body():
            await AsyncLLM("soon:m").ask("hello")
        handle = start(body)
        asked.wait(10)
        """,
        backend,
    )
    assert (ended.code, "answered" in ended.out) == (0, True), ended.err


def test_the_grace_ends_at_exit(backend):
    """The process waits no longer than the grace for an answer, then for what has to be closed."""
    ended = python(
        """
        configure(grace=0.2)
        asked = threading.Event()
        ready = asked.set
        async def body():
            await AsyncLLM("anever:m").ask("hello")
        handle = start(body)
        asked.wait(10)
        """,
        backend,
    )
    assert (ended.code, ended.seconds < 5) == (0, True), ended.err


STUCK = """
class Late:
    def __del__(self, sleep=time.sleep):
        sleep(0.2)
sys.late = Late()  # lets threads wake up while the interpreter is being taken down
inside = threading.Event()
def naps():
    inside.set()
    while True:
        time.sleep(0.005)
def spins():
    inside.set()
    while True:
        pass
async def anaps():
    naps()
async def aspins():
    spins()
async def naps_in_a_step():
    step(naps)()
"""


@pytest.mark.parametrize("body", ["naps", "spins", "anaps", "aspins", "naps_in_a_step"])
def test_what_never_ends_does_not_hold_the_exit(body, backend):
    """Threads and loops that were left behind neither keep the process nor crash it."""
    ended = python(
        STUCK
        + f"""
try:
    run(with_options({body}, timeout=0.1))
except WorkflowTimeout:
    print("timed out")
start({body})
inside.wait()
""",
        backend,
    )
    assert (ended.code, ended.out.strip()) == (0, "timed out"), ended.err
    assert ended.seconds < 8
    assert "Fatal" not in ended.err
    assert "Traceback" not in ended.err


def test_a_failure_that_nobody_fetched_is_told_at_exit(backend):
    """Also where its handle is still held; one that was fetched, or is no failure, is not."""
    ended = python(
        """
def fails(x):
    if x == 2:
        raise OSError("order 2 is lost")
    return x
async def afails(x):
    raise OSError(f"order {x} is lost")
handles = [start(fails, x) for x in range(4)] + [start(afails, 5), start(afails, 6)]
for handle in handles[1:2] + handles[-1:]:
    try:
        handle.result()
    except OSError:
        pass
while any(handle.state in ("pending", "running") for handle in handles):
    time.sleep(0.01)
""",
        backend,
    )
    assert (ended.code, ended.out) == (0, "")
    assert [line.partition(" [")[0].rpartition(": ")[2] for line in ended.err.splitlines()] == [
        "order 2 is lost",
        "order 5 is lost",
    ]


def test_an_exit_without_background_runs_says_nothing(backend):
    """A script whose runs have ended leaves without a word."""
    ended = python("assert run(double, 21) == run(adouble, 21) == start(adouble, 21).result() == 42", backend)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize("call", ["run(with_options(asleep, timeout=60))", "start(asleep).result()"])
def test_a_signal_right_before_a_wait_is_seen(call, backend):
    """One that interrupts no call of the system, as when it comes in the moment before that."""
    ended = python(
        f"""
        import _thread
        threading.Timer(0.5, _thread.interrupt_main).start()
        began = time.monotonic()
        try:
            {call}
        except KeyboardInterrupt:
            assert time.monotonic() - began < 10
            os._exit(0)
        """,
        backend,
    )
    assert ended.code == 0, ended.err


def test_a_signal_handler_may_wait_while_its_thread_waits(backend):
    """As one for an orderly end does: it cancels, and saves what there is in a run of its own."""
    ended = python(
        """
        import signal
        handle = start(asleep)

        def term(*_):
            handle.cancel()
            print(run(with_options(lambda: double(21), timeout=20)), run(adouble, 1), flush=True)

        signal.signal(signal.SIGTERM, term)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            handle.result(timeout=30)
        except RunCancelled:
            os._exit(0)
        """,
        backend,
    )
    assert (ended.code, ended.out) == (0, "ready\n42 2\n"), ended.err


# --- many threads at the start -----------------------------------------------------------------------


def test_the_first_runs_may_come_from_many_threads_at_once(backend):
    """Those that find their backend half imported wait until it is whole."""
    ended = python(
        """
        together = threading.Barrier(8)
        told = []

        def first():
            together.wait()
            try:
                told.append(run(adouble, 21))
            except BaseException as exc:
                told.append(exc)

        threads = [threading.Thread(target=first) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == [42] * 8, told
        """,
        backend,
    )
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("call", ["apmap(anaps, [0, 1])", "agather(anaps(0), anaps(1))", "arun(within)"])
def test_ctrl_c_comes_out_of_a_fan_out_as_it_came(call, backend):
    """Also in a loop of the user's own under trio, which would make a group of it."""
    ended = python(
        f"""
@step
async def anaps(x):
    await anyio.sleep(30)
@workflow
async def within():
    await apmap(anaps, [0, 1])
async def main():
    await {call}
import signal
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    anyio.run(main, backend={backend!r})
except KeyboardInterrupt:
    print("interrupted")
""",
        backend,
    )
    assert (ended.code, ended.out.strip()) == (0, "interrupted"), ended.err


# --- fork --------------------------------------------------------------------------------------------


def test_a_handle_of_the_parents_run_says_so_in_a_child(backend):
    """What goes on in the parent does not go on in the child; what has ended can be fetched there, too."""
    ended = python(
        """
handle, ended = start(adouble, 21), start(double, 4)
ended.result()
gate = threading.Event()
going_on = start(gate.wait)
if (child := os.fork()) == 0:
    try:
        going_on.result()
    except ResultNotReady as exc:
        print(ended.result(), exc.reason)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
gate.set()
print(going_on.result())
""",
        backend,
    )
    told = "8 it goes on in the process that this one was forked from; fetch its result there"
    assert (ended.code, ended.out.splitlines()) == (0, [told, "True"]), ended.err


def test_a_forked_child_can_run_workflows(backend):
    """After os.fork() runs of every kind work in the child, on loops and threads of its own."""
    ended = python(
        """
        def all_kinds():
            assert run(adouble, 21) == 42
            assert run(with_options(lambda: double(21), timeout=10)) == 42
            assert start(adouble, 21).result(10) == 42
            assert pmap(double, [1, 2, 3]) == [2, 4, 6]
            async def body():
                return double(await adouble(10)) + 2
            assert run(body) == 42

        def forked():
            child = os.fork()
            if child == 0:
                try:
                    all_kinds()
                    os._exit(0)
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        all_kinds()
        assert forked() == 0
        assert run(step(forked)) == 0
        assert run(with_options(lambda: step(forked)(), timeout=20)) == 0
        all_kinds()
        """,
        backend,
    )
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("call", ["run(adouble, 21)", "run(double, 21)", "start(adouble, 21).result(10)"])
def test_a_child_forked_in_a_run_begins_anew(call, backend):
    """In a child forked inside a run, on whose loop the run has worked, no run is around it."""
    ended = python(
        f"""
        @step
        def forked():
            child = os.fork()
            if child == 0:
                os._exit(0 if {call} == 42 and len(runs()) == 1 else 1)
            end = time.monotonic() + 10
            while time.monotonic() < end:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.01)
            os.kill(child, 9)
            return "hangs"

        def body():
            assert run(adouble, 1) == 2
            return forked()

        assert run(body) == 0
        assert run(with_options(body, timeout=20)) == 0
        """,
        backend,
    )
    assert ended.code == 0, ended.err


def test_a_child_forked_in_an_async_body_can_run_workflows(backend):
    """No body is around it that could wait for a step, and no loop runs in it; in the parent both go on."""
    ended = python(
        """
        def both():
            return double(10) + double(11)

        async def abody():
            return double(await adouble(10)) + 2

        async def body():
            child = os.fork()
            if child == 0:
                try:
                    assert double(21) == 42
                    assert run(both) == run(with_options(both, timeout=10)) == start(both).result(10) == 42
                    assert run(abody) == pmap(double, [21])[0] == 42
                    os._exit(0)
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(1)
            await adouble(1)
            return double(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        assert run(body) == 0
        assert anyio.run(body, backend=BACKEND) == 0
        assert anyio.run(arun, body, backend=BACKEND) == 0
        """,
        backend,
    )
    assert ended.code == 0, ended.err


def test_a_forked_child_and_its_parent_do_not_wake_one_another(backend):
    """Though the thread that both go on in has waited before, for a counter of the kernel."""
    ended = python(
        """
        limited = with_options(lambda: double(21), timeout=1000)

        def many():
            return [run(limited) for _ in range(300)]

        assert run(limited) == 42
        child = os.fork()
        if child == 0:
            os._exit(many() != [42] * 300)
        assert many() == [42] * 300
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        backend,
    )
    assert ended.code == 0, ended.err


def test_a_child_that_leaves_a_forking_step_by_return_ends(backend):
    """Its thread wakes nobody of the parent's, and waits for no lock that another thread had."""
    ended = python(
        """
        parent = os.getpid()

        @step
        def forks():
            return os.fork()

        async def body():
            return forks()

        def left(child):
            for _ in range(1000):
                if os.waitpid(child, os.WNOHANG)[0]:
                    return
                time.sleep(0.01)
            os._exit(7)

        for _ in range(10):
            child = run(body)
            if os.getpid() != parent:
                os._exit(0)
            left(child)
            child = run(with_options(lambda: forks(), timeout=30))
            if os.getpid() != parent:
                os._exit(0)
            left(child)
        assert run(adouble, 21) == 42
        """,
        backend,
    )
    assert ended.code == 0, ended.err


# --- scarcity ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="the system has no counters")
def test_waiting_threads_leave_files_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """From some number on a lock wakes them."""
    gc.collect()
    monkeypatch.setattr(bells, "MOST", len(bells._open) + 2)
    held = [bell() for _ in range(4)]
    assert [type(one).__name__ for one in held] == ["_Counter", "_Counter", "_Lock", "_Lock"]
    held.clear()
    assert type(bell()).__name__ == "_Counter"


def no_more_files(_: int) -> int:
    raise OSError("too many open files")


@pytest.mark.parametrize("counters", [True, False])
def test_a_bell_wakes_its_owner_once(counters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rung before the wait, amidst it, or many times; with what the system has, and where no file may be opened."""
    if not counters:
        monkeypatch.setattr(os, "eventfd", no_more_files, raising=False)
    own = bell()
    assert counters == isinstance(own, bells._Counter) or not hasattr(os, "eventfd")
    assert not own.wait(0.0)
    own.ring()
    own.ring()
    assert own.wait(None)
    began = time.monotonic()
    assert not own.wait(0.05)
    assert time.monotonic() - began >= 0.04
    threading.Timer(0.02, own.ring).start()
    assert own.wait(1e9)


def test_no_more_files_do_not_stop_a_wait_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a counter of the kernel a lock wakes whoever waits."""
    monkeypatch.setattr(os, "eventfd", no_more_files, raising=False)
    found: list[object] = []

    def limited() -> None:
        found.append(run(with_options(double, timeout=10), 21))

    waiting = threading.Thread(target=limited)
    waiting.start()
    waiting.join(PATIENCE)
    assert found == [42]


async def moved() -> int:
    return double(21)


CALLS = {
    "run with a timeout": lambda: run(with_options(lambda: double(21), timeout=10)),
    "run of an async def": lambda: run(adouble, 21),
    "start": lambda: start(double, 21).result(PATIENCE),
    "pmap": lambda: pmap(double, [1, 2, 3]),
    "step with a timeout": lambda: run(lambda: with_options(double, timeout=10)(21)),
    "a fan-out in a run": lambda: run(lambda: pmap(double, [1, 2, 3])),
}


@pytest.fixture
def no_threads(monkeypatch):
    """A system that refuses every new thread, until it is told otherwise."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch


@pytest.mark.parametrize("name", CALLS)
def test_a_refused_thread_is_a_clear_error(name, no_threads, backend):
    """When the system refuses a thread, that is said; afterwards all works as before."""
    configure(backend=backend)
    with pytest.raises(FlowletError, match="refuses another thread .can't start new thread."):
        CALLS[name]()
    no_threads.undo()
    assert CALLS[name]() in (42, [2, 4, 6])
    until(lambda: process.of(Threads)._runnable == 0)


def test_a_refused_thread_in_an_async_body_is_a_clear_error(no_threads, backend):
    """The body gets the error, can go on, and ends."""
    no_threads.undo()
    configure(backend=backend)
    assert run(adouble, 21) == 42
    refused: list[str] = []

    async def body() -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading.Thread, "start", _refuse)
            try:
                double(1)
            except FlowletError as exc:
                refused.append(str(exc))
        return double(21)

    assert run(body) == 42
    assert len(refused) == 1


def _refuse(thread):
    raise RuntimeError("can't start new thread")


def test_a_fan_out_that_gets_too_few_threads_ends(monkeypatch):
    """A pmap that is refused its second thread stops the first, and leaves the pool as it was."""
    begin = threading.Thread.start
    given: list[int] = []

    def once(thread):
        given.append(1)
        if len(given) > 1:
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    with pytest.raises(FlowletError, match="refuses another thread"):
        pmap(lambda x: time.sleep(0.01), [1, 2, 3])
    monkeypatch.undo()
    until(lambda: (process.of(Threads)._runnable, process.of(Threads).abandoned) == (0, 0))


def test_a_queued_job_that_gets_no_thread_fails(monkeypatch):
    """A run that waits for a place fails clearly when no thread can be had for it then."""
    configure(max_threads=1)
    go = threading.Event()

    def lends() -> int:
        assert go.wait(PATIENCE)
        monkeypatch.setattr(threading.Thread, "start", _refuse)
        try:
            return run(with_options(workflow(name="inner")(lambda: 1), timeout=PATIENCE))
        except FlowletError:
            return 0

    def queued() -> int:
        return 1

    first, second = start(lends), start(queued)
    go.set()
    outcomes = []
    for handle in (first, second):
        try:
            outcomes.append(handle.result(PATIENCE))
        except FlowletError as exc:
            outcomes.append(str(exc)[:34])
    monkeypatch.undo()
    assert "the system refuses another thread "[:34] in outcomes or 0 in outcomes
    until(lambda: process.of(Threads)._runnable == 0)


def test_a_child_that_gets_no_thread_does_not_hold_its_parent(monkeypatch):
    """start() in a body raises, and the run does not wait for the child that never began."""

    def body() -> str:
        monkeypatch.setattr(threading.Thread, "start", _refuse)
        try:
            start(double, 1)
        except FlowletError as exc:
            return str(exc)
        finally:
            monkeypatch.undo()
        return "?"

    assert "refuses another thread" in run(body)


def test_no_more_files_is_a_clear_error(backend):
    """When no event loop can be opened, that is said; afterwards all works."""
    ended = python(
        """
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        run(lambda: None)
        if BACKEND == "trio":
            import trio
        import anyio._backends._asyncio, asyncio
        used = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        for _ in range(2):
            try:
                run(adouble, 21)
            except FlowletError as exc:
                print(exc)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert run(adouble, 21) == 42
        """,
        backend,
    )
    assert ended.code == 0, ended.err
    assert ended.out.count("refuses another event loop: ") == 2
    assert "Too many open files" in ended.out


# --- notices -----------------------------------------------------------------------------------------


def test_what_nobody_may_miss_is_logged(caplog):
    """Without any settings a failure that nobody fetched is a warning of the logger flowlet."""

    def fails() -> None:
        raise LookupError("lost")

    handle = start(fails)
    until(lambda handle=handle: handle.state == "failed")
    with caplog.at_level(logging.WARNING):
        del handle
        until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("flowlet", "WARNING")
    assert "nobody fetched its result: LookupError: lost" in record.getMessage()


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (ThreadAbandoned(None, 0.0, "parse", 3), "step parse does not stop"),
        (LoopRetired(RunInfo("1", "talk", "1"), 0.0, "trio", "ask"), "at step ask [talk 1]"),
        (LoopRetired(None, 0.0, "trio", None), "the background loop (trio) does not answer"),
        (PluginFailed(None, 0.0, "observer x", "LookupError: y"), "LookupError: y"),
    ],
)
def test_notices_are_one_readable_line(event, said, caplog):
    """Each event that nobody may miss is one line in words."""
    process.notice(event)
    (record,) = caplog.records
    assert said in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_failing_observer_is_told_once(caplog):
    """An observer that raises is reported once, and hurts no run."""

    def broken(event) -> None:
        raise LookupError("broken")

    configure(observers=[broken])
    assert run(double, 21) == 42
    assert len([r for r in caplog.records if "broken" in r.getMessage()]) == 1


def test_an_observer_that_exits_does_not_stop_the_clock(monkeypatch, backend):
    """SystemExit from an observer in the engine's own thread is shown, and later deadlines hold."""
    shown: list[type] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))

    def exits(event) -> None:
        if threading.current_thread().name == "flowlet watch":
            raise SystemExit(3)

    configure(observers=[exits], backend=backend)
    for _ in range(2):
        handle = start(with_options(_sleeps, timeout=0.03))
        until(lambda handle=handle: handle.state == "timeout")
    until(lambda: shown)  # the state is seen before the observers hear of it
    assert set(shown) == {SystemExit}


async def _sleeps() -> None:
    await anyio.sleep(60)


@pytest.mark.anyio
async def test_arun_needs_no_background_thread():
    """A run of async steps in the caller's loop starts no thread."""
    before = threading.active_count()
    assert await arun(adouble, 21) == 42
    assert threading.active_count() == before


def test_one_failing_callback_does_not_keep_the_others_from_their_call(monkeypatch):
    """Hooks of a stop, of an end and of a loop are all called; the first failure is told as a thread's."""
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(str(args.exc_value)))
    called = []

    def breaks(where):
        called.append(where)
        raise SystemExit(where)

    def both(add, where):
        add(lambda: breaks(where))
        add(lambda: called.append(where))

    def body():
        record = runs()[0]._run
        both(record.scope.on_stop, "stop")
        both(record.on_end, "end")
        runs()[0].cancel()

    async def in_loop():
        port = current_port()
        both(port.call, "loop")
        await anyio.sleep(0.05)

    with pytest.raises(RunCancelled):
        run(body)
    anyio.run(in_loop)
    assert called == ["stop"] * 2 + ["end"] * 2 + ["loop"] * 2
    assert told == ["stop", "end", "loop"]


WITHOUT_POSIX = """
import asyncio, importlib, os, pkgutil, select, signal, sys, types
import anyio, cyclopts, httpcore2, loguru, openai, rich, sqlite3

for module, names in {
    os: "fork forkpty register_at_fork eventfd killpg geteuid getuid getpgid setsid uname pread pwrite wait waitid fchmod "
    "chown nice sysconf openpty mkfifo pipe2 statvfs sched_getaffinity O_CLOEXEC O_DIRECTORY O_NOFOLLOW",
    select: "poll epoll kqueue",
    signal: "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGQUIT alarm setitimer pause pthread_kill pthread_sigmask sigwait",
}.items():
    for name in names.split():
        vars(module).pop(name, None)
os.process_cpu_count = os.cpu_count  # which from Python 3.13 on asks for the affinity where there is one
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=lambda file, mode, count: None)

system, sys.platform = sys.platform, "win32"
import flowlet.journals._locks
sys.platform = system

import flowlet
for found in pkgutil.walk_packages(flowlet.__path__, "flowlet."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)

@flowlet.step
def double(x):
    return 2 * x

@flowlet.workflow
async def doubles(xs):
    return [double(x) for x in xs]

print(flowlet.run(flowlet.with_options(doubles, timeout=20, journal="runs.db"), [1, 2]), flowlet.start(doubles, [3]).result())
"""


def test_nothing_needs_what_only_posix_has(tmp_path: Path) -> None:
    """Every module is imported, and workflows run and are recorded, without what Windows does not have."""
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ("[2, 4] [6]\n", "")


@pytest.mark.parametrize(
    "call", [lambda w: run(w), lambda w: start(w).result(), lambda w: run(with_options(w, timeout=9))]
)
def test_an_error_beside_exception_is_a_failure_of_its_step(call):
    """As a test's own ``fail``; a Ctrl-C is none."""

    class Odd(BaseException):
        pass

    @step
    def odd():
        raise Odd("tea")

    with pytest.raises(Odd, match="tea") as caught:
        call(workflow(lambda: odd()))
    assert failure_of(caught.value).step == "odd"
    assert caught.value.__notes__
    metrics = runs()[0].metrics
    assert (metrics.state, metrics.steps[0].state) == ("failed", "failed")
