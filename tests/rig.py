"""What tests share: steps, planted faults, places to get stuck in, ears, a provider that waits."""

import asyncio
import pkgutil
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager

import anyio
import trio
from attrs import frozen

import flowlet
from flowlet import LLM, AsyncLLM, step
from flowlet.events import Event
from flowlet.messages import Completion, Request
from flowlet.metrics import TokenUsage

ALL_MODULES = [
    m.name for m in pkgutil.walk_packages(flowlet.__path__, "flowlet.") if m.name != "flowlet.__main__"
]
"""Every module of the package, for tests with pytester, which forgets what is imported in its sessions."""

PATIENCE = 5.0
"""Seconds that a test waits for what must happen; it fails then, and passes long before."""

PROMPTLY = 0.25
"""Seconds after its deadline within which a sync run must have returned."""


@step
def double(x: int) -> int:
    return 2 * x


@step
async def adouble(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return 2 * x


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    return llm.ask(question)


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM()) -> str:
    return await llm.ask(question)


@frozen
class Planted:
    """A fault, and what its message must hold: its place, what was found, expected, and is to be done."""

    name: str
    text: str
    says: tuple[str, ...]


class Trap:
    """Steps get stuck here, in every way there is, until the test is over."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def sleep(self) -> None:
        self.entered.release()
        self.open.wait(60)

    def spin(self) -> None:
        self.entered.release()
        while not self.open.is_set():
            pass

    def swallow(self, step: Callable[[], object]) -> None:
        """Call *step* again and again, whatever it raises."""
        self.entered.release()
        while not self.open.wait(0.001):
            try:
                step()
            except BaseException:
                continue

    async def aswallow(self) -> None:
        """Ignore every cancellation."""
        self.entered.release()
        while not self.open.is_set():
            try:
                await anyio.sleep(0.005)
            except BaseException:
                time.sleep(0.001)

    def wait_entered(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.entered.acquire(timeout=PATIENCE), "nobody came"


class Heard:
    """An observer whose events a test can wait for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: type, /, **facts: object) -> list[Event]:
        return [
            event
            for event in list(self.events)
            if isinstance(event, kind) and all(getattr(event, name) == fact for name, fact in facts.items())
        ]

    def wait(self, kind: type, count: int = 1, patience: float = PATIENCE, **facts: object) -> list[Event]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(kind, **facts)) >= count, patience), (
                f"heard {len(self.of(kind, **facts))} of {count} {kind.__name__}"
            )
        return self.of(kind, **facts)


TOKENS = TokenUsage(prompt_tokens=7, completion_tokens=3, total_tokens=10)


class SlowSync:
    """A sync provider whose answers come when the test says so."""

    live = False
    name = "slow"

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.answer = threading.Event()

    def complete(self, request: Request) -> Completion:
        self.asked.release()
        assert self.answer.wait(PATIENCE), "never answered"
        return Completion("late", TOKENS, model=request.model)

    def wait_asked(self) -> None:
        assert self.asked.acquire(timeout=PATIENCE), "nobody asked"


class SlowAsync(SlowSync):
    """An async provider whose answers come when the test says so."""

    complete = None  # type: ignore[assignment]

    async def acomplete(self, request: Request) -> Completion:
        self.asked.release()
        with anyio.fail_after(PATIENCE):
            while not self.answer.is_set():
                await anyio.sleep(0.002)
        return Completion("late", TOKENS, model=request.model)


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for what no event tells."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


class CancelAt:
    """Counts the task steps of the running loop, and calls *act* before one of them."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.at = at
        self.act = act
        self.count = 0

    @property
    def acted(self) -> bool:
        return self.count > self.at

    def tick(self) -> None:
        self.count += 1
        if self.count == self.at + 1:
            self.act()

    @contextmanager
    def counting(self) -> Generator[None]:
        if sys.modules.get("trio") and trio.lowlevel.in_trio_run():
            instrument = _TrioSteps(self)
            trio.lowlevel.add_instrument(instrument)
            try:
                yield
            finally:
                trio.lowlevel.remove_instrument(instrument)
        else:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(_Counted(coro, self), **options))
            try:
                yield
            finally:
                loop.set_task_factory(None)


class _TrioSteps(trio.abc.Instrument):
    def __init__(self, cancel_at: CancelAt) -> None:
        self._cancel_at = cancel_at

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._cancel_at.tick()


class _Counted(Coroutine):
    """A coroutine whose steps are counted."""

    def __init__(self, coroutine: Coroutine, cancel_at: CancelAt) -> None:
        self._coroutine = coroutine
        self._cancel_at = cancel_at

    def send(self, value: object) -> object:
        self._cancel_at.tick()
        return self._coroutine.send(value)

    def throw(self, *error: object) -> object:
        self._cancel_at.tick()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self):
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> object:
        return getattr(self._coroutine, name)
