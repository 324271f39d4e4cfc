"""Recording and replay of model calls: ``with recording("talk.json"): ...``.

A recording stands before every provider that a model names, for the code in its ``with`` block and the
threads, tasks and runs that are started there: a context variable says so, since two tests in two threads
have two recordings. Repeats of one request are told apart by their number, so the order of others has no say.
"""

from __future__ import annotations

import difflib
import threading
import warnings
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from itertools import count
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import anyio.lowlevel

from .._conversation import Modes
from .._engine._models import async_method, sync_method
from ..errors import DefinitionError, ProviderError, RecordingError
from ..llm import stand_in
from ..messages import Completion, Delta, Request
from ..metrics import TokenUsage
from ..protocols import LLMProvider
from ..providers.offline import after_checkpoints, deltas_of
from ..settings import process
from ._take import Heard, Take
from ._tape import Answer, Asked, Fault, Interaction, asked, joined, key, read, rendered, write

__all__ = ["Mode", "Recording", "UnusedRecording", "recording"]

Mode = Literal["none", "once", "all", "off"]

_MOST_LINES = 40


class UnusedRecording(UserWarning):
    """A test ended before all that was recorded for it was asked for."""


def recording(path: str | PathLike[str], mode: Mode = "none") -> Recording:
    """Answer the model calls of a ``with`` block from the file *path*, or record them there.

    ``mode="none"`` only replays, and a call that was not recorded fails; ``"once"`` records when there is no
    file yet, and else replays; ``"all"`` records anew; ``"off"`` does neither. Replayed answers keep their
    usage, are marked ``replayed`` and cost nothing. They need no key, nor a provider of that name.

    Raises:
        DefinitionError: there is no such mode.
    """
    return Recording(path, mode)


class Replays:
    """What this process has replayed, which costs nothing."""

    def __init__(self) -> None:
        self.calls = 0
        self.tokens = 0

    def add(self, interaction: Interaction) -> None:
        """Count *interaction*."""
        of = interaction.answer or interaction.error
        usage = None if of is None else of.usage
        with process.lock:
            self.calls += 1
            self.tokens += 0 if usage is None else usage.total_tokens


class Recording:
    """One file, while it is recorded or replayed; see :func:`recording`. Calls may come from any thread.

    Leaving the ``with`` block writes what was recorded, unless the block was interrupted.

    Attributes:
        path: the file.
        mode: what was asked for.
        replaying: whether answers come from the file.
    """

    def __init__(self, path: str | PathLike[str], mode: Mode = "none") -> None:
        if mode not in get_args(Mode):
            raise DefinitionError(f"mode {mode!r}: a recording is one of {', '.join(get_args(Mode))}")
        self.path = Path(path).absolute()
        self.mode = mode
        self.replaying = mode == "none" or (mode == "once" and self.path.exists())
        self._lock = threading.Lock()
        self._providers: dict[str, _Taped] = {}
        self._interactions: list[Interaction] = []
        self._taken: dict[int, Interaction] = {}
        self._begun = count()
        self._by_key: dict[str, list[Interaction]] = {}
        self._formats: dict[str, Any] = {}
        self._asked: Counter[str] = Counter()
        self._missed: RecordingError | None = None
        self._open = False
        self._outer: Any = None

    @property
    def unused(self) -> int:
        """How many recorded calls were not asked for so far; 0 while recording."""
        return sum(max(0, len(found) - self._asked[k]) for k, found in self._by_key.items())

    def __enter__(self) -> Self:
        if self.replaying and self.path.exists():
            self._interactions, self._formats = read(self.path)
            for interaction in self._interactions:
                self._by_key.setdefault(key(interaction.request), []).append(interaction)
        self._outer = stand_in.get()
        self._open = True
        stand_in.set(None if self.mode == "off" else self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stand_in.set(self._outer)  # no token: a fixture may end in another context than it began in
        self._open = False
        if self.mode == "off":
            return
        if self.replaying:
            if exc is None:
                self._verify()
        elif exc is None or isinstance(exc, Exception):
            self._write()

    def hold(self) -> Callable[[], object]:
        """Hold in this context too, such as a task that began before; gives what ends that."""
        outer = stand_in.get()
        stand_in.set(None if self.mode == "off" else self)
        return lambda: stand_in.set(outer)

    def _verify(self) -> None:
        """Tell of a call that was not recorded, also where the tested code hid it, and of unused ones."""
        if self._missed is not None:
            raise self._missed
        if self.unused:
            names = [i.request for k, found in self._by_key.items() for i in found[self._asked[k] :]]
            warnings.warn(
                f"{self.path.name}: {self.unused} of {len(self._interactions)} recorded calls were not used, "
                f"first {_shortened(names[0])}; record anew with mode='all'",
                UnusedRecording,
                stacklevel=3,
            )

    def _write(self) -> None:
        with self._lock:
            found = [interaction for _, interaction in sorted(self._taken.items())]
        if not found:  # nothing was asked, or no provider could be: an older file is better than none
            return
        write(self.path, self._in_old_order(found), self._formats)

    def _in_old_order(self, found: list[Interaction]) -> list[Interaction]:
        """Keep the order of the file, so that its diff shows what changed: concurrent calls have none."""
        try:
            old, _ = read(self.path)
        except RecordingError:
            return found
        places = {key(interaction.request): place for place, interaction in reversed([*enumerate(old)])}
        return sorted(found, key=lambda interaction: places.get(key(interaction.request), len(old)))

    def has(self, name: str) -> bool:
        """Whether the file that is replayed has answers of provider *name*."""
        return any(interaction.request.provider == name for interaction in self._interactions)

    def provider(self, name: str, find: Callable[[], LLMProvider]) -> LLMProvider:
        """Give what replays or records the calls of provider *name*, which *find* finds."""
        with self._lock:
            if name not in self._providers:
                self._providers[name] = (
                    _Replayed(self, name, self._formats.get(name, "json_schema"))
                    if self.replaying
                    else _Recorded(self, name, find())
                )
            return self._providers[name]  # type: ignore[return-value]

    def offers(self, name: str, structured_output: str) -> None:
        """Note how provider *name* can be asked for JSON, which a replay is to do alike."""
        self._formats[name] = structured_output

    def begin(self) -> int:
        """Number a call that is recorded: the file has them as they were asked, not as they were answered.

        Raises:
            RecordingError: the block was left.
        """
        self.check_open()
        return next(self._begun)

    def add(self, number: int, interaction: Interaction) -> None:
        """Take down what came back of call *number*."""
        with self._lock:
            if self._open:
                self._taken[number] = interaction

    def check_open(self) -> None:
        """Refuse a call from a run that outlived the block.

        Raises:
            RecordingError: the block was left.
        """
        if not self._open:
            raise RecordingError(
                f"{self.path.name} is closed: this call came after its `with` block had ended; "
                "wait for the run inside of it"
            )

    def next(self, request: Asked) -> Interaction:
        """Give what was recorded for *request*, for its first call the first, and so on.

        Raises:
            RecordingError: there is none.
        """
        self.check_open()
        mine = key(request)
        with self._lock:
            number = self._asked[mine]
            self._asked[mine] += 1
            found = self._by_key.get(mine, [])
            if number < len(found):
                process.of(Replays).add(found[number])
                return found[number]
            missed = RecordingError("\n".join(self._why(request, len(found), number)))
            self._missed = self._missed or missed
        raise missed

    def _why(self, request: Asked, recorded: int, number: int) -> Iterator[str]:
        name = self.path.name
        if recorded:
            yield f"{name} has {recorded} answers to this request, and it was asked once more:"
            yield f"  {_shortened(request)}"
        elif not self._interactions:
            yield (f"{name} is empty" if self.path.exists() else f"there is no recording {self.path}") + ","
            yield f"  and {_shortened(request)} was asked"
        else:
            yield f"{name} has no answer to this request; against the nearest of {len(self._interactions)}:"
            yield from (f"  {line}" for line in self._difference(request))
        yield f"  to record it: recording({name!r}, mode='all'), or mode='once' when there is no file;"
        yield "  in pytest: --flowlet-record=all --flowlet-live; flowlet run: --record"

    def _difference(self, request: Asked) -> list[str]:
        mine = rendered(request)
        others = [rendered(interaction.request) for interaction in self._interactions]
        nearest = max(others, key=lambda other: difflib.SequenceMatcher(None, other, mine, False).ratio())
        lines = list(difflib.unified_diff(nearest, mine, "recorded", "asked", n=1, lineterm=""))
        more = [f"... and {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
        return [*lines[:_MOST_LINES], *more]


def _shortened(request: Asked) -> str:
    text = joined(request.messages[-1].content) if request.messages else ""
    return f"{request.provider}:{request.model} {text[:120]!r}"


class _Taped:
    """What stands before a provider. *modes* are its own: what others tried must not change what it asks."""

    def __init__(self, tape: Recording, name: str) -> None:
        self.name = name
        self.modes = Modes()
        self._tape = tape


class _Replayed(_Taped):
    """Answers from the file, in every way there is; the pieces of a stream are lines."""

    replayed = True
    keeps_time = True

    def __init__(self, tape: Recording, name: str, structured_output: str) -> None:
        super().__init__(tape, name)
        self.structured_output = structured_output

    def price(self, model: str, usage: TokenUsage) -> Decimal:
        """Cost nothing."""
        return Decimal(0)

    def complete(self, request: Request, /) -> Completion:
        """Give the recorded answer, or raise the recorded error."""
        found = self._tape.next(asked(self.name, request))
        if found.error is not None:
            raise found.error.error()
        answer = found.answer or Answer()
        if answer.partial:
            raise self._left_early()
        return answer.completion()

    def _left_early(self) -> RecordingError:
        return RecordingError(
            f"{self._tape.path.name} has only the beginning of this answer: its stream was left early when it "
            "was recorded; record it anew with mode='all'"
        )

    async def acomplete(self, request: Request, /) -> Completion:
        """Answer as :meth:`complete` does, after letting other tasks go first."""
        await anyio.lowlevel.checkpoint()
        return self.complete(request)

    @contextmanager
    def stream(self, request: Request, /) -> Generator[Iterator[Delta]]:
        """Give the recorded answer line by line."""
        yield self._deltas(self._tape.next(asked(self.name, request)))

    @asynccontextmanager
    async def astream(self, request: Request, /) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Give the recorded answer line by line, letting other tasks go before each."""
        deltas = after_checkpoints(self._deltas(self._tape.next(asked(self.name, request))))
        try:
            yield deltas
        finally:
            await deltas.aclose()

    def _deltas(self, found: Interaction) -> Iterator[Delta]:
        answer = found.answer or Answer()
        completion = answer.completion()
        for line in completion.text.splitlines(keepends=True):
            yield Delta(line, replayed=True)
        if found.error is not None:
            raise found.error.error()
        if answer.partial:
            raise self._left_early()
        yield from deltas_of(completion, ())


class _Recorded(_Taped):
    """Asks the provider and takes down what came back. It has the methods that the provider has."""

    def __init__(self, tape: Recording, name: str, provider: LLMProvider) -> None:
        super().__init__(tape, name)
        self._provider = provider
        self.structured_output = getattr(provider, "structured_output", "prompt")
        tape.offers(name, self.structured_output)
        for optional in ("price", "load", "keeps_time", "scripted", "open", "close"):
            if hasattr(provider, optional):
                setattr(self, optional, getattr(provider, optional))
        for kind, find in (("", sync_method), ("a", async_method)):
            for method in ("complete", "stream"):
                inner = find(provider, method)
                if inner is not None:
                    setattr(self, kind + method, getattr(self, f"_{kind}{method}")(inner))

    def _complete(self, inner: Callable[[Request], Completion]) -> Callable[[Request], Completion]:
        def complete(request: Request, /) -> Completion:
            with self._taking_down(request) as heard:
                heard.completion = inner(request)
            return heard.completion

        return complete

    def _acomplete(self, inner: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def acomplete(request: Request, /) -> Completion:
            with self._taking_down(request) as heard:
                heard.completion = await inner(request)
            return heard.completion

        return acomplete

    def _stream(self, inner: Callable[[Request], Any]) -> Callable[[Request], Any]:
        @contextmanager
        def stream(request: Request, /) -> Generator[Iterator[Delta]]:
            with self._taking_down(request, streamed=True) as heard, inner(request) as deltas:
                heard.opened = True
                yield heard.hear(deltas)

        return stream

    def _astream(self, inner: Callable[[Request], Any]) -> Callable[[Request], Any]:
        @asynccontextmanager
        async def astream(request: Request, /) -> AsyncGenerator[AsyncIterator[Delta]]:
            with self._taking_down(request, streamed=True) as heard:
                async with inner(request) as deltas:
                    heard.opened = True
                    yield Heard(deltas, heard)

        return astream

    @contextmanager
    def _taking_down(self, request: Request, *, streamed: bool = False) -> Generator[Take]:
        number, mine = self._tape.begin(), asked(self.name, request)
        take = Take(request.model, ended=not streamed)
        try:
            yield take
        except BaseException as exc:
            if isinstance(exc, ProviderError) and (exc is take.error or not take.opened):
                answer = Answer.of(take.completion, partial=True) if take.completion.text else None
                self._tape.add(number, Interaction(mine, answer, Fault.of(exc)))
            elif take.opened:  # the caller's own error
                self._tape.add(number, Interaction(mine, Answer.of(take.completion, partial=not take.ended)))
            raise
        self._tape.add(number, Interaction(mine, Answer.of(take.completion, partial=not take.ended)))
