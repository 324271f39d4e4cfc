"""Answers piece by piece. A provider of the other colour, or middleware, makes it one piece.

Until its first text it is tried again as any call is, after that never. Then it is the caller's: it is closed
when the caller leaves, and what it used is booked as far as the provider told by then.
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from itertools import chain, islice
from typing import Any

from attrs import evolve

from .._tracebacks import conceal
from ..context import innermost
from ..errors import BridgeError, Refused, Truncated
from ..messages import Completion, Delta, Request
from ..settings import process
from ._attempts import Attempt, Attempts, InFlight, Target, shown
from ._bridge import in_body
from ._guarding import aguarded, guarded
from ._loops import in_ipython, running_loop
from ._models import acomplete, aretried, async_method, complete, opening, ready, retried, sync_method
from ._threads import here_busy


class _Sum:
    """What a stream has brought so far."""

    def __init__(self, one: Attempt) -> None:
        self._one = one
        self._started = time.perf_counter()
        self._completion = Completion("", model=one.request.model)
        self._text = io.StringIO()  # a list of many short pieces takes twenty times their size
        self.ended = False
        self._kept = False
        self.broken: BaseException | None = None
        self.left_with: BaseException | None = None

    def add(self, delta: Delta) -> str:
        """Take *delta* in and give its text."""
        known = {name: value for name in _TOLD if (value := getattr(delta, name)) is not None}
        self.ended = self.ended or delta.finish_reason is not None
        self._completion = evolve(
            self._completion, **known, replayed=self._completion.replayed or delta.replayed
        )
        self._text.write(delta.text)
        return delta.text

    @property
    def completion(self) -> Completion:
        """The answer so far."""
        return evolve(self._completion, text=self._text.getvalue())

    def book(self, exc: BaseException | None) -> None:
        """Book the call, once, well or badly ended; one that the caller left early is a good one."""
        duration = time.perf_counter() - self._started
        if exc is None or not isinstance(exc, Exception):
            self._one.answered(self.completion, duration)
        else:
            self._one.failed(exc, duration, self._completion.usage)

    def ended_by(self, target: Target, exc: BaseException) -> BaseException:
        """Book the call that ended with *exc*, and give what the caller is to see: his own error unchanged."""
        own = exc is self.left_with and exc is not self.broken
        self.left_with = self.broken = None
        told = exc if own else _told(target, exc)
        self.book(None if own else told)
        return told

    def keep(self) -> None:
        """Book a whole answer, and write it into the journal of the run, in this thread."""
        if self._to_be_kept():
            self.book(None)
            self._one.keep(self.completion)

    async def akeep(self) -> None:
        """Book a whole answer, and write it into the journal of the run, while the loop goes on."""
        if self._to_be_kept():
            self.book(None)
            await self._one.akeep(self.completion)

    def _to_be_kept(self) -> bool:
        kept, self._kept = self._kept, self.ended
        return self.ended and not kept

    def check(self) -> None:
        """Refuse an answer that ended badly.

        Raises:
            Refused: the model declined.
            Truncated: the answer ended at the token limit.
        """
        check_ending(self.completion)


def _told(target: Target, exc: BaseException) -> BaseException:
    told = shown(target, exc)
    if told is not exc:
        told.__cause__ = exc
    conceal(told)
    return told


_TOLD = ("usage", "finish_reason", "model", "request_id", "refusal")


def check_ending(completion: Completion) -> None:
    """Refuse an answer that ended badly.

    Raises:
        Refused: the model declined.
        Truncated: the answer ended at the token limit.
    """
    if completion.refusal is not None or completion.finish_reason == "refusal":
        said = f": {completion.refusal[:200]}" if completion.refusal else ""
        raise Refused(f"the model declined to answer{said}", (), completion.text)
    if completion.finish_reason == "length":
        raise Truncated(
            "the answer ended at the token limit; raise max_tokens or ask for less", (), completion.text
        )


@contextmanager
def stream(target: Target, request: Request) -> Generator[Iterator[str]]:
    """Answer *request* piece by piece, in this thread."""
    if in_body() or (running_loop() is not None and not in_ipython()):
        raise BridgeError(
            "LLM.stream(...) would block the event loop of this task.\n"
            "    write:  async with AsyncLLM(...).stream(...) as pieces"
        )
    method = sync_method(target.provider, "stream")
    attempts = Attempts(target, request)
    if method is None or attempts.middleware():
        whole = complete(target, request)
        check_ending(whole)
        yield iter((whole.text,))
        return
    out = guarded(attempts, request)
    memo = attempts.memo(out.request)
    known = attempts.known(out.request, memo)
    if known is not None:
        yield iter((out.restored(known).text,))
        return

    def opened(number: int) -> Iterator[str]:
        return stack.enter_context(_opened(attempts.attempt(out.request, number, memo), method))

    with ExitStack() as stack:
        yield out.pieces(retried(attempts, opened))


@contextmanager
def _opened(one: Attempt, method: Callable[..., Any]) -> Generator[Iterator[str]]:
    """Make one attempt, and give its texts when the first of them has come."""
    attempts, target = one.place, one.place.target
    with here_busy():
        attempts.check()
        with one.hold.taken(innermost(attempts.frame).scope):
            one.hold.begin()
    total = _Sum(one)
    try:
        with process.of(InFlight).during(one), ExitStack() as stack:
            with here_busy():  # whoever cancels the run waits for what is on its way
                if hasattr(target.provider, "open"):
                    opening().open_provider(target.name, target.provider)
                deltas = stack.enter_context(method(one.request))
            texts = _texts(deltas, total, attempts)
            first = list(islice(texts, 1))
            try:
                yield chain(first, texts)
            except BaseException as exc:
                total.left_with = exc
                raise
    except BaseException as exc:
        told = total.ended_by(target, exc)
        if told is exc:
            raise
        raise told from told.__cause__
    total.book(None)
    total.keep()


def _next(deltas: Iterator[Delta]) -> Delta | None:
    with here_busy():
        return next(deltas, None)


def _texts(deltas: Iterator[Delta], total: _Sum, attempts: Attempts) -> Iterator[str]:
    try:
        rest = iter(deltas)
        while (delta := _next(rest)) is not None:
            text = total.add(delta)  # before all else: what was paid for is booked
            attempts.check()
            if text:
                yield text
        total.check()
        total.keep()  # what the caller does with it may fail
    except BaseException as exc:
        told = total.broken = _told(attempts.target, exc)
        if told is exc:
            raise
        raise told from told.__cause__


@asynccontextmanager
async def astream(target: Target, request: Request) -> AsyncGenerator[AsyncIterator[str]]:
    """Answer *request* piece by piece, in this task."""
    method = async_method(target.provider, "stream")
    attempts = Attempts(target, request)
    if method is None or attempts.middleware():
        whole = await acomplete(target, request)
        check_ending(whole)
        yield _One(whole.text)
        return
    await ready(target)
    out = await aguarded(attempts, request)
    memo = attempts.memo(out.request)
    known = attempts.known(out.request, memo)
    if known is not None:
        yield _One(out.restored(known).text)
        return

    async def opened(number: int) -> AsyncIterator[str]:
        one = attempts.attempt(out.request, number, memo)
        return await stack.enter_async_context(_aopened(one, method))

    async with AsyncExitStack() as stack:
        yield out.apieces(await aretried(attempts, opened))


@asynccontextmanager
async def _aopened(one: Attempt, method: Callable[..., Any]) -> AsyncGenerator[AsyncIterator[str]]:
    """Make one attempt, and give its texts when the first of them has come."""
    attempts, target = one.place, one.place.target
    attempts.check()
    async with one.hold.ataken():
        one.hold.begin()
    total = _Sum(one)
    try:
        if hasattr(target.provider, "open"):
            await opening().aopen_provider(target.name, target.provider)
        with process.of(InFlight).during(one):
            async with method(one.request) as deltas:
                texts = _Texts(deltas, total, attempts)
                await texts.begin()
                try:
                    yield texts
                except BaseException as exc:
                    total.left_with = exc
                    raise
    except BaseException as exc:
        told = total.ended_by(target, exc)
        if told is exc:
            raise
        raise told from told.__cause__
    total.book(None)
    await total.akeep()


class _One:
    """A whole answer as a stream of one piece. No generator, so that nothing is left to finalise on trio."""

    def __init__(self, text: str) -> None:
        self._left = [text]

    def __aiter__(self) -> _One:
        return self

    async def __anext__(self) -> str:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _Texts:
    """The texts of a stream. No generator, so that nothing is left to finalise on trio."""

    def __init__(self, deltas: AsyncIterator[Delta], total: _Sum, attempts: Attempts) -> None:
        self._deltas = deltas
        self._total = total
        self._attempts = attempts
        self._first: str | None = None

    async def begin(self) -> None:
        """Wait for the first text."""
        self._first = await anext(self, None)

    def __aiter__(self) -> _Texts:
        return self

    async def __anext__(self) -> str:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return await self._next()
        except StopAsyncIteration:
            raise
        except BaseException as exc:
            told = self._total.broken = _told(self._attempts.target, exc)
            if told is exc:
                raise
            raise told from told.__cause__

    async def _next(self) -> str:
        while True:
            try:
                delta = await self._deltas.__anext__()
            except StopAsyncIteration:
                self._total.check()
                await self._total.akeep()
                raise
            text = self._total.add(delta)
            self._attempts.check()
            if text:
                return text
