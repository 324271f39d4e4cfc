"""What guards do around one model call: to the request on its way out, to the answer on its way back.

They act after all middleware and around all attempts, so that nothing but what leaves is in events and recordings,
and an answer that is tried for again meets the same placeholders.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from functools import reduce
from typing import TYPE_CHECKING

from attrs import frozen

from ..errors import PIIRefused
from ..events import PIIFound
from ..messages import Completion, Request
from ..settings import process
from ._attempts import Attempts
from ._crossing import in_thread

if TYPE_CHECKING:
    from ..pii import Guard, Guarded
    from ..pii._masking import Refill

__all__ = ["Outgoing", "aguarded", "guarded"]


@frozen
class Outgoing:
    """A *request* as it leaves, and what each guard did to it, the last one first."""

    request: Request
    by: tuple[Guarded, ...] = ()

    def restored(self, completion: Completion) -> Completion:
        """Put into an answer what was masked."""
        return reduce(lambda answer, one: one.restored(answer), self.by, completion)

    def pieces(self, texts: Iterator[str]) -> Iterator[str]:
        """Put into a stream what was masked."""
        return reduce(_refilled, self._refills(), texts)

    def apieces(self, texts: AsyncIterator[str]) -> AsyncIterator[str]:
        """Put into an async stream what was masked."""
        return reduce(_Refilled, self._refills(), texts)

    def _refills(self) -> list[Refill]:
        return [refill for one in self.by if (refill := one.refill()) is not None]


def guarded(attempts: Attempts, request: Request) -> Outgoing:
    """Give *request* as it may leave, and tell what was found in it.

    Raises:
        PIIRefused: a guard refuses it.
    """
    out = Outgoing(request)
    for guard in attempts.guards():
        one = _by(guard, attempts, out.request)
        out = Outgoing(one.request, (one, *out.by))
    return out


async def aguarded(attempts: Attempts, request: Request) -> Outgoing:
    """Do as :func:`guarded` does, on a worker thread, where there is something to do."""
    if not attempts.guards():
        return Outgoing(request)
    frame = attempts.frame
    job = await in_thread(frame.below(frame.scope), guarded, (attempts, request), {})
    out = job.outcome()
    assert isinstance(out, Outgoing)
    return out


def _by(guard: Guard, attempts: Attempts, request: Request) -> Guarded:
    try:
        one = guard.guarded(request)
    except PIIRefused as exc:
        _tell(guard, attempts, exc.kinds)
        raise
    _tell(guard, attempts, one.kinds)
    return one


def _tell(guard: Guard, attempts: Attempts, kinds: tuple[str, ...]) -> None:
    if kinds and guard.action is not None:
        model = attempts.call.request.model
        event = PIIFound(attempts.call.run, time.time(), attempts.step, model, guard.action, kinds)
        process.notice(event) if guard.action == "warn" else attempts.tell(event)


def _refilled(texts: Iterator[str], refill: Refill) -> Iterator[str]:
    for piece in texts:
        if text := refill.feed(piece):
            yield text
    if text := refill.rest():
        yield text


class _Refilled:
    """The texts of an async stream, refilled. No generator, so that nothing is left to finalise on trio."""

    def __init__(self, texts: AsyncIterator[str], refill: Refill) -> None:
        self._texts = texts
        self._refill = refill
        self._over = False

    def __aiter__(self) -> _Refilled:
        return self

    async def __anext__(self) -> str:
        while not self._over:
            try:
                piece = await self._texts.__anext__()
            except StopAsyncIteration:
                self._over = True
                text = self._refill.rest()
            else:
                text = self._refill.feed(piece)
            if text:
                return text
        raise StopAsyncIteration
