"""Models: asking for text and values, what is tried again, what is booked, who provides the answer."""

import contextlib
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Any, Literal

import anyio
import pytest
from attrs import evolve, frozen

import flowlet
from flowlet import (
    LLM,
    AsyncLLM,
    BridgeError,
    Budget,
    BudgetExceeded,
    Budgets,
    Completion,
    ConfigError,
    DefinitionError,
    InputError,
    Message,
    OutputError,
    ProviderError,
    Refused,
    RunCancelled,
    RunStopped,
    TokenUsage,
    Truncated,
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
from flowlet._engine import _attempts
from flowlet._engine._ledger import ProcessMeter
from flowlet.context import here
from flowlet.events import Event, ModelCalled, ModelRetried, PluginFailed
from flowlet.messages import Delta, Request
from flowlet.metrics import UNKNOWN
from flowlet.protocols import ModelCall
from flowlet.providers.openai import OpenAIProvider
from flowlet.settings import process
from flowlet.testing import AsyncMockLLM, AsyncMockProvider, MockLLM, MockProvider, SyncMockProvider
from rig import Heard, SlowSync, until

pytestmark = pytest.mark.anyio

LATE = 5.0

USAGE = TokenUsage(prompt_tokens=7, completion_tokens=3, total_tokens=10)
PROVIDERS = [SyncMockProvider, AsyncMockProvider, MockProvider]
EACH_PROVIDER = pytest.mark.parametrize("kind", PROVIDERS)


@frozen
class Talk:
    title: str
    points: list[str]


@frozen
class Unsure:
    reason: str


TALK = Talk("Tea", ["pot", "cup"])
TALK_JSON = '{"title": "Tea", "points": ["pot", "cup"]}'


def scripted(*answers: Any, kind: Any = MockProvider, name: str = "mock", **options: Any) -> Any:
    """Register a provider that answers from a script, and make it the model."""
    provider = kind(list(answers), **options)
    register_provider(name, provider)
    configure(model=f"{name}:m")
    return provider


def failing(kind: Any, **facts: Any) -> ProviderError:
    """An error of a provider."""
    return ProviderError(kind, "no", provider="mock", **facts)


LATER = failing("rate_limit", retryable=True, status=429)


# --- asking --------------------------------------------------------------------------------------

ANSWERS: list[tuple[Any, str, Any]] = [
    (str, "some tea", "some tea"),
    (Talk, TALK_JSON, TALK),
    (list[str], '{"value": ["a", "b"]}', ["a", "b"]),
    (Literal["a", "b"], '{"value": "b"}', "b"),
    (int, '{"value": 3}', 3),
    (dict[str, int], '{"a": 1}', {"a": 1}),
    (str | None, '{"value": null}', None),
]


@EACH_PROVIDER
@pytest.mark.parametrize(("returns", "text", "value"), ANSWERS)
def test_ask_gives_the_type_asked_for(
    background: str, kind: Any, returns: Any, text: str, value: Any
) -> None:
    """Text, classes, lists, literals and unions come back as values, from any provider, in sync code."""
    scripted(text, text, kind=kind)
    assert LLM().ask("?", returns) == value
    assert run(lambda: LLM().ask("?", returns)) == value


@EACH_PROVIDER
@pytest.mark.parametrize(("returns", "text", "value"), ANSWERS)
async def test_ask_gives_the_type_asked_for_in_async_code(
    kind: Any, returns: Any, text: str, value: Any
) -> None:
    """The same awaited, in a task and in a body."""
    scripted(text, text, kind=kind)
    assert await AsyncLLM().ask("?", returns) == value
    assert await arun(_asks, returns) == value


async def _asks(returns: Any) -> Any:
    return await AsyncLLM().ask("?", returns)


@pytest.mark.parametrize("value", [TALK, Unsure("fog")])
def test_a_union_of_classes_is_told_apart(value: Any) -> None:
    """``A | B`` gives the member that the model chose."""
    provider = scripted(value, value)
    assert LLM().ask("?", Talk | Unsure) == value
    assert provider.requests[0].output.schema is not None


def test_the_request_has_what_was_set_and_nothing_else() -> None:
    """Parameters, system prompt and model reach the provider; what was not set is None."""
    provider = scripted("a", "b")
    LLM(system="Be brief.", temperature=0.0, max_tokens=9, stop=["x"], seed=1, timeout=5).ask("Hi")
    LLM().ask("Hi")
    first, second = provider.requests
    assert first.messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert (first.parameters.temperature, first.parameters.max_tokens, first.parameters.stop) == (
        0.0,
        9,
        ("x",),
    )
    assert (first.model, first.timeout, second.timeout) == ("m", 5, 600.0)
    assert (second.parameters.temperature, second.parameters.seed, second.output) == (None, None, None)


def test_a_model_is_a_frozen_value() -> None:
    """Models compare, hash into sets by their settings, and copy with changes."""
    assert LLM("a:b", temperature=1.0) == evolve(LLM("a:b"), temperature=1.0)
    with pytest.raises(AttributeError):
        LLM().model = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"timeout": 0},
        {"timeout": -5},
        {"model": 3},
        {"model": ""},
        {"temperature": "x"},
        {"temperature": 2.5},
        {"temperature": float("nan")},
        {"temperature": True},
        {"max_tokens": 0},
        {"max_tokens": 10.0},
        {"top_p": 1.5},
        {"seed": "1"},
        {"stop": [1]},
        {"stop": 5},
        {"stop": b"END"},
        {"system": 5},
        {"extra": "x"},
    ],
)
def test_impossible_parameters_are_refused(options: Any) -> None:
    """A value that no call can have is refused where the model is written."""
    for model in (LLM, AsyncLLM):
        with pytest.raises(DefinitionError, match=f"{model.__name__}: {next(iter(options))}="):
            model(**options)


@pytest.mark.parametrize(
    "model", ["openai:", ":", ":m", " openai:m", "openai: m", "openai :m", "openai:m ", ""]
)
def test_a_model_that_has_no_name_is_refused(model: str) -> None:
    """Or whose name is beside spaces: where it is written, by whomever."""
    others = (lambda m: with_options(asks, model=m), lambda m: workflow(model=m)(lambda: None))
    for name_it in (LLM, AsyncLLM, *others):
        with pytest.raises(
            DefinitionError, match=f'model={model!r} is not a model such as "openai:gpt-5-mini"'
        ):
            name_it(model)
    with pytest.raises(ConfigError, match="a model such as"):
        configure(model=model)


def test_one_text_to_stop_at_is_one() -> None:
    """``stop="END"`` stops at END, not at E, N or D."""
    assert LLM(stop="END").stop == LLM(stop=["END"]).stop == ("END",)  # type: ignore[arg-type]


def test_complete_continues_a_conversation() -> None:
    """``complete`` takes messages and gives the whole answer, whatever its ending."""
    answer = Completion("cut", USAGE, model="m-1", finish_reason="length", request_id="r1")
    provider = scripted(answer, answer)
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert LLM().complete(messages) is answer
    assert provider.requests[0].messages == tuple(messages)
    assert LLM().complete("a").finish_reason == "length"


async def test_complete_is_awaited() -> None:
    """``await AsyncLLM().complete(...)`` does the same."""
    answer = Completion("x", USAGE, refusal="no")
    scripted(answer)
    assert await AsyncLLM().complete("a") is answer


# --- misfits -------------------------------------------------------------------------------------


@EACH_PROVIDER
def test_a_misfit_is_told_to_the_model_and_asked_once_more(background: str, kind: Any) -> None:
    """The second request holds the wrong answer and its faults, with paths."""
    provider = scripted('{"title": 3, "points": "x"}', TALK_JSON, kind=kind)
    assert LLM().ask("?", Talk) == TALK
    assert [m.role for m in provider.requests[1].messages] == ["user", "assistant", "user"]
    told = provider.requests[1].messages[-1].content
    assert "$.title" in told
    assert "$.points" in told


def test_a_second_misfit_is_an_output_error_with_all_faults() -> None:
    """After the one re-ask the error has the faults and the text, which its message does not show."""
    scripted('{"title": 3}', '{"title": 4, "points": "secret"}')
    with pytest.raises(OutputError, match="the answer of m does not fit") as caught:
        LLM().ask("?", Talk)
    assert len(caught.value.faults) == 2
    assert "secret" in caught.value.text
    assert isinstance(caught.value, ValueError)


async def test_reasks_are_a_setting() -> None:
    """``reasks=0`` asks once, ``reasks=2`` three times."""
    configure(reasks=0)
    provider = scripted("no", "never")
    with pytest.raises(OutputError):
        await AsyncLLM().ask("?", Talk)
    assert len(provider.requests) == 1
    configure(reasks=2)
    scripted("no", "no", TALK_JSON)
    assert await AsyncLLM().ask("?", Talk) == TALK


def test_every_asking_is_booked() -> None:
    """The call that did not fit was paid for, and counts."""
    scripted("no", TALK_JSON, usage=USAGE)
    run(lambda: LLM().ask("?", Talk))
    assert last_run().metrics.usage.total_tokens == 20


BAD_ENDINGS = [
    (Completion("", USAGE, refusal="I can't help with that"), Refused, "declined to answer: I can't help"),
    (Completion("", USAGE, finish_reason="refusal"), Refused, "declined to answer"),
    (Completion('{"title', USAGE, finish_reason="length"), Truncated, "ended at the token limit"),
]


@pytest.mark.parametrize("returns", [str, Talk])
@pytest.mark.parametrize(("answer", "error", "said"), BAD_ENDINGS)
def test_refusals_and_cut_answers_are_errors_of_their_own(
    answer: Completion, error: type[Exception], said: str, returns: Any
) -> None:
    """They are not asked again, they are OutputErrors, and their tokens are booked."""
    provider = scripted(answer)
    with pytest.raises(error, match=said):
        run(lambda: LLM().ask("?", returns))
    assert issubclass(error, OutputError)
    assert len(provider.requests) == 1
    assert last_run().metrics.usage.total_tokens == 10


# --- structured output ---------------------------------------------------------------------------


class Picky(SyncMockProvider):
    """Can be asked for JSON in some ways only."""

    can: tuple[str, ...] = ("prompt",)

    def complete(self, request: Request, /) -> Completion:
        if request.output is not None and request.output.mode not in self.can:
            with contextlib.suppress(Exception):
                super().complete(request)
            raise failing("unsupported", status=400)
        return super().complete(request)


@pytest.mark.parametrize(
    ("can", "modes"),
    [
        (("json_schema",), ["json_schema"]),
        (("json_object",), ["json_schema", "json_object"]),
        (("prompt",), ["json_schema", "json_object", "prompt"]),
    ],
)
def test_structured_output_steps_down_to_what_the_provider_can(can: Any, modes: list[str]) -> None:
    """A provider that refuses a way is asked in the next plainer one, and the next call knows it."""
    picky = Picky(lambda _: TALK_JSON)
    picky.can = can
    register_provider("mock", picky)
    configure(model="mock:m")
    assert LLM().ask("?", Talk) == TALK
    assert [r.output.mode for r in picky.requests] == modes
    assert LLM().ask("?", Talk) == TALK
    assert [r.output.mode for r in picky.requests][len(modes) :] == modes[-1:]


def test_the_schema_is_in_the_prompt_where_the_provider_does_not_take_it() -> None:
    """Below ``json_schema`` the last message carries the schema, once, also when asked again."""
    picky = Picky(["no", "no", "no", TALK_JSON])
    register_provider("mock", picky)
    configure(model="mock:m")
    assert LLM(system="S").ask("Question?", Talk) == TALK
    last = picky.requests[-1]
    assert [m.role for m in last.messages] == ["system", "user", "assistant", "user"]
    assert last.messages[1].content.startswith("Question?")
    assert sum(m.content.count('"points"') for m in last.messages) >= 1
    assert sum("JSON Schema" in m.content for m in last.messages) == 1


def test_an_unsupported_request_for_text_is_raised() -> None:
    """There is nothing plainer than text, so the error reaches the caller."""
    provider = scripted(failing("unsupported"))
    with pytest.raises(ProviderError):
        LLM().ask("?")
    assert len(provider.requests) == 1


def test_a_provider_says_how_it_can_be_asked() -> None:
    """``structured_output`` of the provider is where it begins; without one it is the prompt."""

    class Plain:
        live = False
        name = "plain"

        def __init__(self) -> None:
            self.modes: list[str] = []

        def complete(self, request: Request) -> Completion:
            self.modes.append(request.output.mode)
            return Completion(f"```json\n{TALK_JSON}\n```")

    plain = Plain()
    register_provider("plain", plain)
    assert LLM("plain:m").ask("?", Talk) == TALK
    assert plain.modes == ["prompt"]


# --- streams -------------------------------------------------------------------------------------


class Streaming:
    """Streams from a script, in the colours that it was made for, and tells when it was closed."""

    live = False
    name = "streaming"

    def __init__(self, *pieces: Any) -> None:
        self.pieces = pieces
        self.closed = 0

    def _deltas(self) -> Iterator[Delta]:
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece if isinstance(piece, Delta) else Delta(piece)


class SyncStreaming(Streaming):
    def complete(self, request: Request) -> Completion:
        raise AssertionError("not asked")

    @contextmanager
    def stream(self, request: Request) -> Iterator[Iterator[Delta]]:
        try:
            yield self._deltas()
        finally:
            self.closed += 1


class AsyncStreaming(Streaming):
    async def acomplete(self, request: Request) -> Completion:
        raise AssertionError("not asked")

    @asynccontextmanager
    async def astream(self, request: Request) -> AsyncIterator[AsyncIterator[Delta]]:
        async def deltas() -> AsyncIterator[Delta]:
            for delta in self._deltas():
                await anyio.lowlevel.checkpoint()
                yield delta

        try:
            async with contextlib.aclosing(deltas()) as found:
                yield found
        finally:
            self.closed += 1


END = Delta(usage=USAGE, finish_reason="stop", model="m-1", request_id="r1")


def streamed(provider: Streaming) -> list[str]:
    register_provider("s", provider)
    with LLM("s:m").stream("?") as pieces:
        return list(pieces)


async def astreamed(provider: Streaming) -> list[str]:
    register_provider("s", provider)
    async with AsyncLLM("s:m").stream("?") as pieces:
        return [piece async for piece in pieces]


def test_a_stream_gives_the_pieces_and_books_the_call() -> None:
    """Text comes piece by piece; the last delta's usage is booked when the context is left."""
    provider = SyncStreaming("a", "", "b", END)
    assert run(streamed, provider) == ["a", "b"]
    record = last_run().metrics.calls[0]
    assert (record.usage, record.finish_reason, record.model, record.request_id) == (
        USAGE,
        "stop",
        "m-1",
        "r1",
    )
    assert (record.ok, provider.closed) == (True, 1)


async def test_an_async_stream_gives_the_pieces_and_books_the_call() -> None:
    """The same with ``async with`` and ``async for``."""
    provider = AsyncStreaming("a", "", "b", END)
    assert await arun(astreamed, provider) == ["a", "b"]
    assert last_run().metrics.usage.total_tokens == 10
    assert provider.closed == 1


def test_a_stream_that_is_left_early_is_closed_and_booked_as_unknown() -> None:
    """Leaving after the first piece closes the connection; nobody knows what it used."""
    provider = SyncStreaming("a", "b", END)
    register_provider("s", provider)

    def body() -> str:
        with LLM("s:m").stream("?") as pieces:
            return next(iter(pieces))

    assert run(body) == "a"
    usage = last_run().metrics.usage
    assert (usage.calls, usage.unknown, usage.failed, provider.closed) == (1, 1, 0, 1)


async def test_an_async_stream_that_is_left_early_is_closed_and_booked() -> None:
    """The same for ``async with``, by ``break`` and by ``return``."""
    provider = AsyncStreaming("a", "b", END)
    register_provider("s", provider)

    async def body() -> str:
        async with AsyncLLM("s:m").stream("?") as pieces:
            async for piece in pieces:
                return piece
        return ""

    assert await arun(body) == "a"
    usage = last_run().metrics.usage
    assert (usage.calls, usage.unknown, usage.failed, provider.closed) == (1, 1, 0, 1)


@pytest.mark.parametrize("error", [failing("connection", retryable=True), OSError("reset")])
async def test_a_stream_that_breaks_off_is_a_provider_error_and_is_not_repeated(error: Any) -> None:
    """After the first piece nothing is tried again: the caller has seen text already."""
    for make, ask in ((SyncStreaming, streamed), (AsyncStreaming, astreamed)):
        provider = make("a", error, "b")
        with pytest.raises(ProviderError):
            await arun(ask, provider) if ask is astreamed else await arun(lambda p=provider: streamed(p))
        usage = last_run().metrics.usage
        assert (usage.calls, usage.failed, usage.unknown, provider.closed) == (1, 1, 1, 1)


async def test_the_callers_own_error_in_a_stream_passes_unchanged() -> None:
    """What the ``with`` block raises is not the provider's doing."""
    error = KeyError("mine")

    def body(provider: Streaming) -> None:
        register_provider("s", provider)
        with LLM("s:m").stream("?") as pieces:
            next(iter(pieces))
            raise error

    async def abody(provider: Streaming) -> None:
        register_provider("s", provider)
        async with AsyncLLM("s:m").stream("?"):
            raise error

    for make, fn in ((SyncStreaming, body), (AsyncStreaming, abody)):
        provider = make("a", END)
        with pytest.raises(KeyError) as caught:
            await arun(fn, provider)
        assert caught.value is error
        assert (last_run().metrics.usage.calls, provider.closed) == (1, 1)


@pytest.mark.parametrize(
    ("end", "error"),
    [(Delta(usage=USAGE, finish_reason="length"), Truncated), (Delta(usage=USAGE, refusal="no"), Refused)],
)
async def test_a_stream_that_ends_badly_raises_after_its_pieces(end: Delta, error: Any) -> None:
    """The pieces come, then Truncated or Refused, and the tokens are booked."""
    seen: list[str] = []

    def body() -> None:
        register_provider("s", SyncStreaming("a", end))
        with LLM("s:m").stream("?") as pieces:
            seen.extend(pieces)

    async def abody() -> None:
        register_provider("s", AsyncStreaming("a", end))
        async with AsyncLLM("s:m").stream("?") as pieces:
            async for piece in pieces:
                seen.append(piece)

    for fn in (body, abody):
        with pytest.raises(error):
            await arun(fn)
        assert last_run().metrics.usage.total_tokens == 10
    assert seen in ([], ["a", "a"])


@EACH_PROVIDER
async def test_a_provider_of_the_other_colour_streams(kind: Any) -> None:
    """Where a provider can't stream in the caller's colour, the text comes all the same."""
    scripted("some long text", "some long text", kind=kind)

    def body() -> str:
        with LLM().stream("?") as pieces:
            return "".join(pieces)

    async def abody() -> str:
        async with AsyncLLM().stream("?") as pieces:
            return "".join([piece async for piece in pieces])

    assert await arun(body) == await arun(abody) == "some long text"
    assert [r.metrics.usage.calls for r in runs()] == [1, 1]


async def test_a_stream_of_one_piece_may_be_left_early() -> None:
    """A provider that does not stream leaves nothing behind that trio would have to finalise."""
    scripted("tea", kind=SyncMockProvider)
    async with AsyncLLM().stream("?") as pieces:
        async for piece in pieces:
            assert piece == "tea"
            break
    gc.collect()


async def test_a_sync_stream_in_an_async_body_shows_what_works() -> None:
    """A plain ``with`` can't be bridged piece by piece, so it raises with the line that works."""
    scripted("x")

    async def body() -> None:
        with LLM().stream("?") as pieces:
            list(pieces)

    with pytest.raises(BridgeError, match="async with AsyncLLM"):
        await arun(body)


# --- trying again --------------------------------------------------------------------------------

RETRYABLE = [
    failing("rate_limit", retryable=True, status=429),
    failing("server", retryable=True, status=503),
    failing("timeout", retryable=True),
    failing("connection", retryable=True),
]
FINAL = [
    failing("authentication", status=401),
    failing("permission", status=403),
    failing("not_found", status=404),
    failing("bad_request", status=400),
    failing("quota", status=429, code="insufficient_quota"),
]


@pytest.mark.usefixtures("no_waits")
@EACH_PROVIDER
@pytest.mark.parametrize("error", RETRYABLE, ids=lambda e: e.kind)
def test_a_passing_fault_is_tried_again_three_times_in_all(background: str, kind: Any, error: Any) -> None:
    """Two failures and an answer are an answer; three failures are the last one's error."""
    provider = scripted(error, error, "tea", kind=kind)
    assert run(lambda: LLM().ask("?")) == "tea"
    assert len(provider.requests) == 3
    provider = scripted(error, error, error, "tea", kind=kind)
    with pytest.raises(ProviderError) as caught:
        run(lambda: LLM().ask("?"))
    assert caught.value is error
    assert len(provider.requests) == 3


@pytest.mark.usefixtures("no_waits")
@EACH_PROVIDER
async def test_a_passing_fault_is_tried_again_in_async_code(kind: Any) -> None:
    """The same awaited."""
    provider = scripted(LATER, LATER, "tea", LATER, LATER, LATER, kind=kind)
    assert await AsyncLLM().ask("?") == "tea"
    with pytest.raises(ProviderError):
        await AsyncLLM().ask("?")
    assert len(provider.requests) == 6


@EACH_PROVIDER
@pytest.mark.parametrize("error", FINAL, ids=lambda e: e.kind)
def test_what_no_repetition_can_mend_is_raised_at_once(background: str, kind: Any, error: Any) -> None:
    """Wrong keys, wrong requests and used-up quotas are asked once."""
    provider = scripted(error, kind=kind)
    with pytest.raises(ProviderError) as caught:
        LLM().ask("?")
    assert caught.value is error
    assert len(provider.requests) == 1


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_number_of_attempts_is_a_setting_and_a_parameter(attempts: int) -> None:
    """``configure(attempts=...)`` for all, ``LLM(attempts=...)`` for one."""
    provider = scripted(*[LATER] * 20)
    with pytest.raises(ProviderError):
        LLM(attempts=attempts).ask("?")
    configure(attempts=attempts)
    with pytest.raises(ProviderError):
        LLM().ask("?")
    assert len(provider.requests) == 2 * attempts


@pytest.mark.usefixtures("no_waits")
async def test_the_wait_that_a_server_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After is waited for, in place of the backoff, and capped."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    monkeypatch.setattr(_attempts, "LONGEST_RETRY_AFTER", 0.004)
    scripted(evolve(LATER, retry_after=0.002), evolve(LATER, retry_after=900.0), "tea", "tea")
    assert await AsyncLLM().ask("?") == "tea"
    assert [e.wait for e in seen if isinstance(e, ModelRetried)] == [0.002, 0.004]


def test_waits_grow_with_a_little_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Retry-After the waits are exponential: half a second, then one, each a little longer."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    from flowlet._engine import _models

    monkeypatch.setattr(_models, "pause", lambda scope, seconds: None)
    scripted(LATER, LATER, LATER, "tea")
    assert LLM(attempts=4).ask("?") == "tea"
    waits = [e.wait for e in seen if isinstance(e, ModelRetried)]
    for wait, least in zip(waits, (0.5, 1.0, 2.0), strict=True):
        assert least <= wait <= 1.25 * least


@pytest.mark.usefixtures("no_waits")
def test_each_retry_is_told() -> None:
    """An observer hears of each failed attempt: which, why, of what model and step."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    scripted(LATER, LATER, "tea")
    run(step(name="asks")(lambda: LLM().ask("?")))
    told = [e for e in seen if isinstance(e, ModelRetried)]
    assert [(e.attempt, e.model, e.step) for e in told] == [(1, "m", "asks"), (2, "m", "asks")]


@pytest.mark.usefixtures("no_waits")
def test_the_last_error_reaches_the_caller_with_its_place() -> None:
    """The facts of the error are whole, and the step is named."""
    error = failing("server", retryable=True, status=500, request_id="r9")
    scripted(error, error, error)
    with pytest.raises(ProviderError, match=r"mock: no \(server, HTTP 500, request r9\)") as caught:
        run(step(name="asks")(lambda: LLM().ask("?")))
    assert failure_of(caught.value).step == "asks"


# --- trying a stream again -----------------------------------------------------------------------


@step
def piecewise(**options: Any) -> str:
    with LLM(**options).stream("?") as pieces:
        return "".join(pieces)


@step
async def apiecewise(**options: Any) -> str:
    async with AsyncLLM(**options).stream("?") as pieces:
        return "".join([piece async for piece in pieces])


WAYS: dict[str, Callable[..., Any]] = {
    "sync": lambda **options: run(piecewise, **options),
    "sync, outside of a run": lambda **options: piecewise(**options),
    "sync, on a worker": lambda **options: start(piecewise, **options).result(),
    "sync, in a fan-out": lambda **options: run(lambda: pmap(lambda _: piecewise(**options), [1])[0]),
    "async": lambda **options: run(apiecewise, **options),
    "async, in the background": lambda **options: start(apiecewise, **options).result(),
}
EACH_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.mark.usefixtures("no_waits")
@EACH_PROVIDER
@EACH_WAY
def test_the_opening_of_a_stream_is_tried_again(background: str, kind: Any, way: Any) -> None:
    """As any call is: so often, with the waits that a server asks for, each attempt booked and told."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    provider = scripted(evolve(LATER, retry_after=0.002), LATER, "some tea", kind=kind)
    assert way() == "some tea"
    assert [(e.attempt, e.wait) for e in seen if isinstance(e, ModelRetried)] == [(1, 0.002), (2, 0.0)]
    calls = [e.record for e in seen if isinstance(e, ModelCalled)]
    assert [(c.attempt, c.ok, c.usage.total_tokens > 0) for c in calls] == [
        (1, False, False),
        (2, False, False),
        (3, True, True),
    ]
    assert flowlet.usage().calls == len(provider.requests) == 3


@pytest.mark.usefixtures("no_waits")
@EACH_WAY
def test_a_stream_is_opened_no_more_often_than_it_may_be(background: str, way: Any) -> None:
    """Then the last error comes; one that no repetition can mend comes at once."""
    for faults, attempts, asked in (([LATER] * 5, 3, 3), ([LATER] * 5, 1, 1), (FINAL[:1], 3, 1)):
        provider = scripted(*faults)
        with pytest.raises(ProviderError) as caught:
            way(attempts=attempts)
        assert caught.value is faults[0]
        assert len(provider.requests) == asked


class Flaky(SyncStreaming, AsyncStreaming):
    """Breaks off before its first text, until it was opened often enough."""

    def __init__(self, fault: Exception, opened: int) -> None:
        super().__init__("tea", END)
        self.fault = fault
        self.left = opened - 1

    def _deltas(self) -> Iterator[Delta]:
        yield Delta(usage=USAGE)
        self.left -= 1
        if self.left >= 0:
            raise self.fault
        yield from super()._deltas()


@pytest.mark.usefixtures("no_waits")
@EACH_WAY
def test_a_stream_that_breaks_off_before_its_first_text_is_tried_again(background: str, way: Any) -> None:
    """The caller has seen nothing of it; each is closed, and what it told to have used is booked."""
    provider = Flaky(failing("connection", retryable=True), 3)
    register_provider("flaky", provider)
    assert way(model="flaky:m") == "tea"
    assert provider.closed == 3
    usage = flowlet.usage()
    assert (usage.calls, usage.failed, usage.total_tokens) == (3, 2, 30)
    assert not process.of(_attempts.InFlight).calls


@pytest.mark.parametrize("fn", [piecewise, apiecewise])
@pytest.mark.parametrize("how", ["cancelled", "timeout"])
def test_the_wait_before_a_stream_is_opened_again_ends_with_the_run(
    background: str, fn: Any, how: str, heard: Heard
) -> None:
    """By a cancellation or a deadline, whatever wait the server asked for."""
    provider = scripted(evolve(LATER, retry_after=LATE * 9), "tea")
    handle = start(with_options(fn, timeout=0.2 if how == "timeout" else None))
    heard.wait(ModelRetried)
    if how == "cancelled":
        handle.cancel()
    with pytest.raises(RunCancelled if how == "cancelled" else TimeoutError):
        handle.result(timeout=LATE)
    assert len(provider.requests) == handle.metrics.usage.calls == 1


@pytest.mark.usefixtures("no_waits")
@EACH_WAY
def test_each_opening_of_a_stream_needs_its_share_of_the_budget(background: str, way: Any) -> None:
    """What is used up is not asked for again."""
    provider = scripted(LATER, LATER, "tea")
    configure(budget=Budgets(process=Budget(calls=2)))
    with pytest.raises(BudgetExceeded):
        way()
    assert len(provider.requests) == 2


# --- usage ---------------------------------------------------------------------------------------


def assert_sums_agree() -> None:
    """The same tokens and cost per call, per step, per run and in all."""
    metrics = last_run().metrics

    def runs_of(m: Any) -> list[Any]:
        return [m, *(below for child in m.children for below in runs_of(child))]

    every = runs_of(metrics)
    records = [record for one in every for record in one.calls]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        in_calls = sum(getattr(record.usage, name) for record in records)
        assert getattr(metrics.usage, name) == in_calls
        assert getattr(flowlet.usage(), name) == in_calls
        assert sum(getattr(s.usage, name) for one in every for s in one.steps) == in_calls
    assert metrics.usage.cost == sum((r.cost for r in records if r.cost), Decimal(0)) == flowlet.usage().cost
    assert metrics.usage.calls == len(records) == flowlet.usage().calls


@step
def asks(question: str = "?") -> str:
    return LLM().ask(question)


@step
async def aasks(question: str = "?") -> str:
    return await AsyncLLM().ask(question)


@workflow
def child(question: str) -> str:
    return asks(question) + run(aasks, question)


@pytest.mark.usefixtures("no_waits")
@EACH_PROVIDER
def test_usage_agrees_between_call_step_run_and_process(background: str, kind: Any) -> None:
    """Through steps, child runs, fan-outs, retries and failures the difference is zero."""
    scripted(LATER, *(f"answer {'x' * n}" for n in range(40)), kind=kind)

    def body() -> None:
        asks("one")
        child("two")
        pmap(asks, [str(n) for n in range(10)])
        pmap(aasks, [str(n) for n in range(10)])
        start(asks, "three").result()

    run(body)
    assert_sums_agree()
    assert last_run().metrics.usage.calls == 25
    assert last_run().metrics.usage.failed == 1


@EACH_PROVIDER
async def test_usage_agrees_in_async_runs(kind: Any) -> None:
    """The same for an async body."""
    scripted(*(f"answer {'x' * n}" for n in range(40)), kind=kind)

    async def body() -> None:
        asks("one")
        await aasks("two")
        child("three")
        pmap(asks, [str(n) for n in range(5)])

    await arun(body)
    assert_sums_agree()
    assert last_run().metrics.usage.calls == 9


@pytest.mark.usefixtures("no_waits")
def test_there_is_one_record_for_each_attempt() -> None:
    """Failed attempts are records too, with number and error; what nobody reported is unknown, not zero."""
    scripted(failing("server", retryable=True), "tea", usage=USAGE)
    run(asks)
    first, second = last_run().metrics.calls
    assert (first.attempt, first.ok, first.error, first.usage.source) == (
        1,
        False,
        "ProviderError: mock: no (server)",
        "unknown",
    )
    assert (second.attempt, second.ok, second.usage, second.step) == (2, True, USAGE, "asks")
    assert last_run().metrics.usage.unknown == 1


def test_what_was_refused_before_work_cost_nothing() -> None:
    """An attempt that was refused (401, 429) used no tokens for sure."""
    scripted(failing("authentication", status=401))
    with pytest.raises(ProviderError):
        run(asks)
    record = last_run().metrics.calls[0]
    assert (record.usage, record.cost) == (TokenUsage(), Decimal(0))
    assert last_run().metrics.usage.unknown == 0


def test_an_answer_without_usage_is_unknown_and_counted() -> None:
    """A provider that tells no tokens gives no silent zero: the call is counted as unknown, without a cost."""
    scripted("tea", usage=UNKNOWN)
    run(asks)
    usage = last_run().metrics.usage
    assert (usage.calls, usage.unknown, usage.total_tokens) == (1, 1, 0)


def test_a_price_that_nobody_knows_is_none_and_counted() -> None:
    """An unknown model's tokens are booked, its cost is None and counted as unpriced."""

    class Odd:
        live = False
        name = "odd"

        def complete(self, request: Request) -> Completion:
            return Completion("x", USAGE, model="never-heard-of-it")

    register_provider("odd", Odd())
    run(lambda: LLM("odd:m").ask("?"))
    usage = last_run().metrics.usage
    assert last_run().metrics.calls[0].cost is None
    assert (usage.total_tokens, usage.unpriced, usage.cost) == (10, 1, Decimal(0))


def test_a_provider_may_say_its_price() -> None:
    """``price(model, usage)`` of the provider goes before the price list."""

    class Priced(SyncMockProvider):
        def price(self, model: str, usage: TokenUsage) -> Decimal:
            return Decimal("0.5")

    scripted("tea", kind=Priced)
    run(asks)
    assert last_run().metrics.usage.cost == Decimal("0.5")


def test_a_call_outside_runs_is_booked_in_the_totals() -> None:
    """There is no run, but retries, records, events and totals are there."""
    seen: list[Event] = []
    configure(observers=[seen.append])
    scripted("tea", usage=USAGE)
    assert asks() == "tea"
    (event,) = [e for e in seen if isinstance(e, ModelCalled)]
    assert (event.run, event.record.run_id, event.record.step) == (None, None, None)
    assert flowlet.usage().total_tokens == 10
    assert runs() == []


@pytest.mark.usefixtures("no_waits")
async def test_a_call_outside_runs_is_tried_again() -> None:
    """Outside a run, on a bare loop too, a model call has its attempts."""
    scripted(LATER, "tea", usage=USAGE)
    assert await AsyncLLM().ask("?") == "tea"
    assert (flowlet.usage().calls, flowlet.usage().failed) == (2, 1)


# --- colours and places --------------------------------------------------------------------------


@EACH_PROVIDER
async def test_a_model_in_an_async_body_is_bridged(kind: Any) -> None:
    """``LLM().ask`` in an ``async def`` body suspends the body only: other tasks answer the provider."""
    loop_went_on = threading.Event()

    def answer(_: Request) -> str:
        assert kind is not SyncMockProvider or loop_went_on.wait(5)
        return "tea"

    register_provider("mock", kind(answer))
    configure(model="mock:m")

    async def body() -> str:
        return LLM().ask("?") + asks()

    async def other() -> None:
        await anyio.lowlevel.checkpoint()
        loop_went_on.set()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        assert await arun(body) == "teatea"


@EACH_PROVIDER
async def test_a_sync_model_on_a_bare_loop_raises(kind: Any) -> None:
    """In a task that is no body ``LLM().ask`` would block the loop, so it raises and shows what works."""
    provider = scripted("tea", kind=kind)
    with pytest.raises(BridgeError, match=r"await AsyncLLM"):
        LLM().ask("?")
    with pytest.raises(BridgeError, match="async with AsyncLLM"), LLM().stream("?"):
        pass
    assert provider.requests == ()


def test_an_async_provider_in_sync_code_runs_on_the_background_loop(background: str) -> None:
    """Sync code outside and inside a run asks an async-only provider on the loop of the backend."""
    import sniffio

    seen: list[tuple[str, int]] = []

    class Tells:
        live = False
        name = "tells"

        async def acomplete(self, request: Request) -> Completion:
            seen.append((sniffio.current_async_library(), threading.get_ident()))
            return Completion("tea")

    register_provider("tells", Tells())
    assert LLM("tells:m").ask("?") == run(lambda: LLM("tells:m").ask("?")) == "tea"
    assert {library for library, _ in seen} == {background}
    assert threading.get_ident() not in {thread for _, thread in seen}


async def test_a_sync_provider_in_async_code_runs_on_a_worker() -> None:
    """A sync-only provider never blocks the loop, with or without a run."""
    threads: list[int] = []

    def answer(_: Request) -> str:
        threads.append(threading.get_ident())
        return "tea"

    register_provider("mock", SyncMockProvider(answer))
    assert await AsyncLLM("mock:m").ask("?") == await arun(lambda: LLM("mock:m").ask("?")) == "tea"
    assert threading.get_ident() not in threads


def test_a_complete_that_is_a_coroutine_function_is_an_async_provider(background: str) -> None:
    """The colour is that of the method, not of its name."""

    class Odd:
        live = False
        name = "odd"

        async def complete(self, request: Request) -> Completion:
            await anyio.lowlevel.checkpoint()
            return Completion("tea")

    register_provider("odd", Odd())
    assert LLM("odd:m").ask("?") == run(_asks_of, "odd:m") == "tea"


async def _asks_of(model: str) -> str:
    return await AsyncLLM(model).ask("?")


def test_context_variables_reach_the_provider(background: str) -> None:
    """A provider sees the caller's context variables, whatever thread or loop it runs on."""
    from contextvars import ContextVar

    word: ContextVar[str] = ContextVar("word", default="unset")
    for kind in PROVIDERS:
        register_provider("mock", kind(lambda _: word.get()))
        token = word.set("caller")
        assert LLM("mock:m").ask("?") == run(_asks_of, "mock:m") == "caller"
        word.reset(token)


# --- providers that misbehave --------------------------------------------------------------------


@EACH_PROVIDER
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_foreign_error_becomes_a_provider_error(background: str, kind: Any, mode: str) -> None:
    """What a provider raises beside its contract is told as ProviderError, with the cause, and booked."""
    provider = scripted(ZeroDivisionError("oops"), kind=kind)
    provider.scripted = False  # as the provider of somebody else
    with pytest.raises(ProviderError, match="the provider raised ZeroDivisionError: oops") as caught:
        run(asks if mode == "sync" else aasks)
    assert (caught.value.kind, caught.value.provider, caught.value.retryable) == ("other", "mock", False)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert (len(provider.requests), last_run().metrics.usage.failed) == (1, 1)


@pytest.mark.parametrize("found", [None, "tea", 3, {"text": "tea"}])
@pytest.mark.parametrize("mode", ["sync", "async", "other"])
def test_an_answer_that_is_no_completion_is_a_provider_error(background: str, found: Any, mode: str) -> None:
    """A provider that returns something else fails its own call only, and the loop lives on."""

    class Sync:
        live = False
        name = "bad"

        def complete(self, request: Request) -> Any:
            return found

    class Async:
        live = False
        name = "bad"

        async def acomplete(self, request: Request) -> Any:
            return found

    register_provider("bad", Sync() if mode == "sync" else Async())
    fn: Any = aasks if mode == "async" else asks
    with pytest.raises(ProviderError, match="not a Completion"):
        run(with_options(fn, model="bad:m"))
    assert last_run().metrics.usage.calls == 1
    assert run(_one) == 1


async def _one() -> int:
    return 1


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_price_that_raises_does_not_lose_the_answer(background: str, mode: str) -> None:
    """The paid answer is kept, its cost is unknown, and the fault is told once."""
    seen: list[Event] = []
    configure(observers=[seen.append])

    class Broken(MockProvider):
        def price(self, model: str, usage: TokenUsage) -> Decimal:
            raise KeyError(model)

    scripted("tea", "tea", kind=Broken)
    for _ in range(2):
        assert run(asks if mode == "sync" else aasks) == "tea"
    assert last_run().metrics.usage.unpriced == 1
    assert len([e for e in seen if isinstance(e, PluginFailed)]) == 1


def test_a_failing_provider_hurts_its_own_run_only(background: str) -> None:
    """Other runs on the same loop go on and give their answers."""
    bad = AsyncMockProvider(lambda _: 1 // 0)
    bad.scripted = False
    register_provider("bad", bad)
    register_provider("good", AsyncMockProvider(lambda _: "tea"))
    handles = [start(with_options(aasks, model=f"{name}:m")) for name in ("bad", "good") * 10]
    for index, handle in enumerate(handles):
        if index % 2:
            assert handle.result(timeout=5) == "tea"
        else:
            with pytest.raises(ProviderError):
                handle.result(timeout=5)


# --- which provider ------------------------------------------------------------------------------


def echo(name: str) -> None:
    """Register a provider that answers with the model that was asked for."""
    register_provider(name, MockProvider(lambda request: f"{name}:{request.model}"))


@pytest.fixture
def providers() -> None:
    for name in ("set", "run", "step", "pin"):
        echo(name)


@pytest.mark.usefixtures("providers")
def test_what_is_nearest_says_the_model() -> None:
    """Settings are below the run's model, that below the step's, and a pinned model stays pinned."""
    configure(model="set:m")

    def body() -> tuple[str, ...]:
        return asks(), with_options(asks, model="step:m")(), LLM("pin:m").ask("?")

    assert run(body) == ("set:m", "step:m", "pin:m")
    assert run(with_options(body, model="run:m")) == ("run:m", "step:m", "pin:m")
    assert LLM().ask("?") == "set:m"


@pytest.mark.usefixtures("providers")
def test_the_model_of_a_step_holds_below_it(background: str) -> None:
    """Steps that a step calls ask its model, through threads and loops; siblings do not."""
    configure(model="set:m")

    @step
    def outer() -> list[str]:
        return [asks(), run(aasks), *pmap(asks, ["?"])]

    def body() -> list[str]:
        return [*with_options(outer, model="step:m")(), asks()]

    assert run(body) == ["step:m", "step:m", "step:m", "set:m"]


class Paid(MockProvider):
    """Would be paid for, as far as flowlet knows."""

    live = True


def streams() -> str:
    with LLM("paid:m").stream("tea") as pieces:
        return "".join(pieces)


async def astreams() -> str:
    async with AsyncLLM("paid:m").stream("tea") as pieces:
        return "".join([piece async for piece in pieces])


async def fanned_out() -> str:
    return (await apmap(with_options(aasks, model="paid:m"), ["tea"]))[0]


NAMED: dict[str, Callable[[], Any]] = {
    "pinned": lambda: LLM("paid:m").ask("tea"),
    "a step": lambda: with_options(asks, model="paid:m")("tea"),
    "a child run": lambda: run(workflow(model="paid:m")(lambda: asks("tea"))),
    "below a child run": lambda: run(workflow(model="paid:m")(lambda: pmap(asks, ["tea"])[0])),
    "a background run": lambda: start(with_options(aasks, model="paid:m"), "tea").result(),
    "a fan-out": lambda: run(fanned_out),
    "a stream": streams,
    "an async stream": lambda: run(astreams),
}


@pytest.mark.parametrize("how", ["setting", "environment", "run", "step"])
@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
def test_offline_overrides_every_model_that_is_named_below_it(
    how: str, named: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever chooses offline sends nothing anywhere."""
    if how == "environment":
        monkeypatch.setenv("FLOWLET_MODEL", "offline")
    elif how == "setting":
        configure(model="offline")
    paid = Paid()
    register_provider("paid", paid)
    body = step(named) if how == "step" else workflow(named)
    body = with_options(body, model="offline") if how in ("run", "step") else body
    assert run(workflow(model="paid:m")(lambda: body())).startswith("[offline]")
    assert paid.requests == ()


def test_a_run_whose_own_model_was_named_asks_nobody_when_the_settings_say_offline() -> None:
    """Neither by ``@workflow(model=...)`` nor by ``with_options``; a name after offline changes nothing."""
    register_provider("paid", Paid())
    configure(model="offline:any")
    for outermost in (workflow(model="paid:m")(lambda: asks("tea")), with_options(asks, model="paid:m")):
        assert run(outermost).startswith("[offline]")


def test_offline_leaves_mocks_in_place() -> None:
    """They send nothing, and a test that names one wants its answers."""
    configure(model="offline")
    echo("mock")
    assert run(with_options(asks, model="mock:m")) == "mock:m"
    assert run(with_options(lambda: LLM("mock:n").ask("?"), model="offline")) == "mock:n"
    assert run(with_options(asks, model="offline")).startswith("[offline]")


def test_the_server_of_openai_is_not_taken_for_a_mock() -> None:
    """A provider that looks by itself whether a call is live is replaced as others are."""
    configure(model="offline")
    register_provider("own", OpenAIProvider("sk-none", "http://127.0.0.1:9/v1"))
    assert LLM("own:m").ask("tea").startswith("[offline]")


def test_without_a_provider_the_error_names_three_things_to_do() -> None:
    """Nothing configured is told with what to set, in sync code, in runs, and for a pinned OpenAI model."""
    for ask in (asks, lambda: run(asks), lambda: run(aasks), lambda: LLM("openai:gpt-5").ask("?")):
        with pytest.raises(ConfigError) as caught:
            ask()
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "FLOWLET_MODEL=offline"):
            assert name in str(caught.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("mok:m", "there is no provider 'mok'; did you mean 'mock'"),
        ("gpt-5", "write provider:model, such as openai:gpt-5"),
    ],
)
def test_an_unknown_provider_is_named_with_a_suggestion(model: str, said: str) -> None:
    """A misspelt or missing provider is told with those that exist."""
    scripted("tea")
    with pytest.raises(ConfigError) as caught:
        LLM(model).ask("?")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["", "a:b"])
def test_register_provider_refuses_impossible_names(name: str) -> None:
    """A provider's name stands before the colon, so it has none."""
    with pytest.raises(DefinitionError):
        register_provider(name, MockProvider())


def test_register_provider_refuses_what_is_no_provider() -> None:
    """Something without ``complete`` and ``acomplete`` is named."""
    with pytest.raises(DefinitionError, match="int is no provider"):
        register_provider("x", 3)  # type: ignore[arg-type]


def test_a_registered_provider_may_be_replaced_even_a_built_in_one() -> None:
    """The newest registration of a name holds."""
    echo("openai")
    assert LLM("openai:gpt-5").ask("?") == "openai:gpt-5"
    register_provider("openai", MockProvider(["other"]))
    assert LLM("openai:gpt-5").ask("?") == "other"


def test_a_model_name_may_have_colons() -> None:
    """Only the first colon separates: what follows is the model's own name."""
    echo("mock")
    assert LLM("mock:qwen3:4b").ask("?") == "mock:qwen3:4b"


# --- mock models ---------------------------------------------------------------------------------


@step
def summarise(text: str, llm: LLM = LLM()) -> Talk:
    return llm.ask(f"Summarise: {text}", Talk)


@step
async def asummarise(text: str, llm: AsyncLLM = AsyncLLM()) -> Talk:
    return await llm.ask(f"Summarise: {text}", Talk)


def test_a_step_is_tested_as_a_plain_function_with_a_mock_model() -> None:
    """``MockLLM`` in place of the default argument needs no run and no settings."""
    llm = MockLLM([TALK])
    assert summarise("tea", llm=llm) == TALK
    assert llm.requests[0].messages == (Message("user", "Summarise: tea"),)
    llm.verify()


async def test_an_async_step_is_tested_with_an_async_mock_model() -> None:
    """``AsyncMockLLM`` does the same for ``async def`` steps, in and outside a run."""
    llm = AsyncMockLLM([TALK, TALK])
    assert await asummarise("tea", llm=llm) == TALK
    assert await arun(asummarise, "tea", llm=llm) == TALK
    llm.verify()


def test_a_mock_model_stays_pinned_in_a_run() -> None:
    """A run's model, offline too, does not go around a mock: that is the caller's explicit choice."""
    assert run(with_options(summarise, model="offline"), "tea", llm=MockLLM([TALK])) == TALK


@pytest.mark.usefixtures("no_waits")
@EACH_PROVIDER
def test_an_exception_in_a_script_comes_out_as_it_is(background: str, kind: Any, heard: Heard) -> None:
    """Whatever it is, from a call or a stream, booked as failed, and no failure of a plugin."""
    error = ValueError("mine")
    scripted(error, lambda request: json.loads("{"), error, error, kind=kind)
    for fails in (asks, aasks, piecewise, apiecewise):
        with pytest.raises(ValueError, match="mine|Expecting property name") as caught:
            run(fails)
        assert caught.value is error or fails is aasks
        assert last_run().metrics.usage.failed == 1
    assert heard.of(PluginFailed) == []


def test_a_mock_model_raises_the_exception_in_its_script() -> None:
    """Of the caller's own type, so that what handles it can be tested."""
    for error in (ValueError("mine"), TimeoutError("late"), KeyError("k")):
        with pytest.raises(type(error)) as caught:
            MockLLM([error]).ask("?")
        assert caught.value is error


async def test_a_mock_model_streams() -> None:
    """Mock models stream their answers in both colours."""
    with anyio.fail_after(5):
        async with AsyncMockLLM(["some text"]).stream("?") as pieces:
            assert "".join([piece async for piece in pieces]) == "some text"


def test_a_sync_mock_model_streams() -> None:
    """The same in plain code."""
    with MockLLM(["some text"]).stream("?") as pieces:
        assert "".join(pieces) == "some text"


@pytest.mark.parametrize(
    "prompt",
    [None, 3, b"tea", ["tea"], {"role": "user"}, Message("user", "tea")],
)
def test_a_prompt_that_is_no_text_is_refused(prompt: Any) -> None:
    """``ask`` takes text: anything else is named before anything is sent."""
    provider = scripted("tea")
    with pytest.raises(InputError, match=f"text or a list of Message, not {type(prompt).__name__}"):
        LLM().ask(prompt)
    assert provider.requests == ()


def test_a_type_that_has_no_schema_is_refused_before_anything_is_sent() -> None:
    """A type that JSON can't hold is a definition error with its name."""
    provider = scripted("tea")
    with pytest.raises(DefinitionError):
        LLM().ask("?", Callable[[int], int])  # type: ignore[arg-type]
    with pytest.raises(DefinitionError):
        LLM().ask("?", threading.Thread)
    assert provider.requests == ()


def test_a_run_that_is_over_sends_nothing_more() -> None:
    """A body that goes on after its run was cancelled can't spend tokens."""
    provider = scripted("tea", "tea")
    gate, cancelled = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def body() -> None:
        gate.set()
        cancelled.wait(5)
        try:
            LLM().ask("?")
        except BaseException as exc:
            caught.append(exc)
            gate.set()
            raise

    handle = start(body)
    assert gate.wait(5)
    gate.clear()
    handle.cancel()
    cancelled.set()
    assert gate.wait(5)
    assert isinstance(caught[0], RunStopped)
    assert provider.requests == ()


def test_hedging_middleware_gives_every_reservation_back() -> None:
    """``next`` called twice at once makes two attempts, each with a reservation of its own."""

    async def hedge(call: ModelCall, next: Any) -> Any:
        answers: list[Any] = []

        async def one() -> None:
            answers.append(await next(call))

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)
        return answers[0]

    llm = AsyncMockLLM(lambda request: "x")

    async def body() -> list[str]:
        return [await llm.ask("?") for _ in range(3)]

    asked = with_options(workflow(body), middleware=[hedge], budget=Budget(tokens=40_000), timeout=LATE)
    assert run(asked) == ["x", "x", "x"]
    assert len(last_run().metrics.calls) == 6


def test_waiting_for_a_budget_outside_a_run_ends_when_its_fan_out_does() -> None:
    """The wait neither spins nor holds the fan-out up when another item fails."""
    configure(budget=Budgets(None, Budget(tokens=100)))
    slow = SlowSync()
    register_provider("slow", slow)
    ended, too_late = threading.Event(), list[bool]()

    def item(number: int) -> None:
        if number == 0:
            LLM("slow:m").ask("?")
        elif number == 1:
            slow.wait_asked()
            with contextlib.suppress(RunStopped):
                LLM("slow:m").ask("?")
            too_late.append(slow.answer.is_set())
            ended.set()
        else:
            until(lambda: bool(process.of(ProcessMeter).now()._waiting))
            threading.Timer(0.5, slow.answer.set).start()
            raise ValueError(number)

    with pytest.raises(ValueError, match="2"):
        pmap(item, [0, 1, 2], max_concurrency=3)
    assert ended.wait(LATE)
    assert too_late == [False]


class Held(SyncStreaming):
    """Its second delta comes when the test says so."""

    def __init__(self, *pieces: Any) -> None:
        super().__init__(*pieces)
        self.waiting = threading.Event()
        self.go_on = threading.Event()

    def _deltas(self) -> Iterator[Delta]:
        yield Delta("a")
        self.waiting.set()
        assert self.go_on.wait(LATE)
        yield END


def test_a_delta_that_was_on_its_way_when_the_run_was_cancelled_is_booked() -> None:
    """A sync stream is in flight while it waits for a delta: the cancellation waits for it, and books its usage."""
    provider = Held()
    handle = start(streamed, provider)
    assert provider.waiting.wait(LATE)
    assert len(process.of(_attempts.InFlight).calls) == 1
    handle.cancel()
    timer = threading.Timer(0.3, provider.go_on.set)
    timer.start()
    with pytest.raises(RunCancelled):
        handle.result(LATE)
    assert handle.metrics.usage.total_tokens == USAGE.total_tokens
    assert not process.of(_attempts.InFlight).calls


async def test_an_async_delta_is_counted_before_the_end_of_the_run_is_noticed() -> None:
    """What has come is booked, even when the run was stopped meanwhile."""

    class Stops(AsyncStreaming):
        def _deltas(self) -> Iterator[Delta]:
            here().scope.reason = "cancelled"
            yield END

    with pytest.raises(RunCancelled):
        await arun(astreamed, Stops())
    assert last_run().metrics.usage.total_tokens == USAGE.total_tokens


def test_model_middleware_that_forgets_await_is_told() -> None:
    """A coroutine in the place of an answer is refused, in both colours."""

    async def forgetful(call: ModelCall, next: Any) -> Any:
        return next(call)

    configure(middleware=[forgetful])
    with pytest.raises(BridgeError, match="'next' is async and was not awaited"):
        run(lambda: MockLLM(["x"]).ask("?"))

    async def body() -> str:
        return await AsyncMockLLM(["x"]).ask("?")

    with pytest.raises(BridgeError, match="'next' is async and was not awaited"):
        run(body)
