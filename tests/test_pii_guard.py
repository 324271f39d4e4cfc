"""The guard: nothing personal leaves, whatever the colour, the backend, the stream, and who set it."""

import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flowlet import (
    LLM,
    AsyncLLM,
    ConfigError,
    ModelCall,
    PIIRefused,
    arun,
    configure,
    log_to,
    register_provider,
    run,
    step,
    usage,
    with_options,
    workflow,
)
from flowlet.events import ModelCalled, PIIFound
from flowlet.messages import Completion, Message, Request
from flowlet.pii import Guard, Match
from flowlet.protocols import LLMProvider
from flowlet.settings import check
from flowlet.testing import AsyncMockProvider, MockProvider, SyncMockProvider, recording
from rig import Heard

MAIL, CARD = "jo@example.org", "4012-8888-8888-1881"
TALK = [
    Message("system", f"You serve {MAIL}."),
    Message("user", "Who is it?"),
    Message("assistant", f"The tool says {CARD}."),
    Message("user", f"Mail {MAIL} or ring +44 20 7123 4567."),
]
SENT = [
    "You serve <EMAIL_1>.",
    "Who is it?",
    "The tool says <CARD_1>.",
    "Mail <EMAIL_1> or ring <PHONE_1>.",
]
Make = Callable[..., MockProvider | SyncMockProvider | AsyncMockProvider]


def echo(request: Request) -> str:
    return f"I mail {request.messages[-1].content.split()[1]} & <EMAIL_9>."


ANSWER = f"I mail {MAIL} & <EMAIL_9>."


@step
def ask(talk: list[Message], llm: LLM = LLM("mock:any")) -> str:
    return llm.complete(talk).text


@step
async def aask(talk: list[Message], llm: AsyncLLM = AsyncLLM("mock:any")) -> str:
    return (await llm.complete(talk)).text


@workflow
def answer(talk: list[Message]) -> str:
    return ask(talk)


@workflow
async def aanswer(talk: list[Message]) -> str:
    return await aask(talk)


def provide(provider: LLMProvider) -> None:
    register_provider("mock", provider)


def sent(provider: MockProvider | SyncMockProvider | AsyncMockProvider) -> list[str]:
    return [message.content for message in provider.requests[-1].messages]


@pytest.mark.parametrize("make", [MockProvider, SyncMockProvider, AsyncMockProvider])
@pytest.mark.parametrize("call", ["run", "outside"])
def test_sync_calls_are_masked_and_restored(make: Make, call: str, backend: str) -> None:
    """System prompt, tool results and all other messages leave without values; the answer has them again."""
    configure(pii=Guard("mask"), backend=backend)
    provide(provider := make(echo))
    assert (run(answer, TALK) if call == "run" else LLM("mock:any").complete(TALK).text) == ANSWER
    assert sent(provider) == SENT


@pytest.mark.anyio
@pytest.mark.parametrize("make", [MockProvider, SyncMockProvider, AsyncMockProvider])
@pytest.mark.parametrize("call", ["run", "outside"])
async def test_async_calls_are_masked_and_restored(make: Make, call: str) -> None:
    """The same in async code, on both backends."""
    configure(pii=Guard("mask"))
    provide(provider := make(echo))
    text = await arun(aanswer, TALK) if call == "run" else (await AsyncLLM("mock:any").complete(TALK)).text
    assert text == ANSWER
    assert sent(provider) == SENT


def test_streams_stay_streams() -> None:
    """Pieces come as the provider gives them, with values where a placeholder was, cut or not."""
    configure(pii=Guard("mask"))
    provide(provider := MockProvider(echo))
    with LLM("mock:any").stream(TALK) as pieces:
        texts = list(pieces)
    assert "".join(texts) == ANSWER
    assert len(texts) > 1
    assert sent(provider) == SENT


@pytest.mark.anyio
async def test_async_streams_stay_streams() -> None:
    """The same in async code, on both backends."""
    configure(pii=Guard("mask"))
    provide(provider := MockProvider(echo))
    async with AsyncLLM("mock:any").stream(TALK) as pieces:
        texts = [text async for text in pieces]
    assert "".join(texts) == ANSWER
    assert len(texts) > 1
    assert sent(provider) == SENT


def test_values_stay_away_without_restore() -> None:
    """The answer may keep its placeholders."""
    configure(pii=Guard("mask", restore=False))
    provide(MockProvider(echo))
    assert LLM("mock:any").complete(TALK).text == "I mail <EMAIL_1> & <EMAIL_9>."


def test_typed_answers_have_values_too() -> None:
    """An answer is restored before it is read, and a call that asks again has the same placeholders."""
    configure(pii=Guard("mask"))
    provide(provider := MockProvider(["no JSON about <EMAIL_1>", '{"<EMAIL_1>": 3}']))
    assert LLM("mock:any").ask(f"Count {MAIL}.", dict[str, int]) == {MAIL: 3}
    assert sent(provider)[:2] == ["Count <EMAIL_1>.", "no JSON about <EMAIL_1>"]


def test_refusal_names_kinds_and_places_only() -> None:
    """The error tells what and where, survives pickling, and nothing was asked or booked."""
    configure(pii=Guard("refuse"))
    provide(provider := MockProvider(echo))
    with pytest.raises(PIIRefused) as caught:
        run(answer, TALK)
    error = caught.value
    assert error.kinds == ("card", "email", "phone")
    assert error.places[0] == "message 1 (system), characters 10 to 24: email"
    assert "message 3 (assistant)" in str(error)
    assert MAIL not in str(error)
    assert "8888" not in repr(error)
    assert pickle.loads(pickle.dumps(error)).places == error.places
    assert (provider.requests, usage().calls) == ((), 0)


@pytest.mark.anyio
async def test_streams_are_refused_too() -> None:
    """Before the provider is asked."""
    configure(pii=Guard("refuse", kinds=("card",)))
    provide(provider := MockProvider(echo))
    with pytest.raises(PIIRefused, match="card"):
        async with AsyncLLM("mock:any").stream(TALK):
            pass
    assert provider.requests == ()


def test_warn_only_tells(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """The call leaves as it is; an event says so, and a warning where nothing is logged."""
    configure(pii=Guard("warn"))
    provide(provider := MockProvider(echo))
    run(answer, TALK)
    assert sent(provider) == [message.content for message in TALK]
    (event,) = heard.of(PIIFound)
    assert isinstance(event, PIIFound)
    assert (event.action, event.kinds, event.step) == ("warn", ("card", "email", "phone"), "ask")
    assert "personal data for model any is sent: card, email, phone" in caplog.text


def test_events_logs_and_recordings_see_what_was_sent(tmp_path: Path, heard: Heard) -> None:
    """No value is in any of them, and a replay gives the same answer."""
    configure(pii=Guard("mask"))
    provide(MockProvider(echo))
    log_to(log := io.StringIO(), level="DEBUG", prompts=True)
    with recording(tmp_path / "talk.json", "all"):
        assert run(answer, TALK) == ANSWER
    with recording(tmp_path / "talk.json"):
        assert run(answer, TALK) == ANSWER
    written = log.getvalue() + (tmp_path / "talk.json").read_text()
    assert "<EMAIL_1>" in written
    assert MAIL not in written
    ids, times = r'"[0-9a-f]{16}"', r'"[-0-9]{10}T[0-9:.+]+"'  # which may have these digits by chance
    assert CARD.replace("-", "") not in written
    assert "8888" not in re.sub(f"{ids}|{times}", "", written)
    requests = [event.request for event in heard.of(ModelCalled) if isinstance(event, ModelCalled)]
    assert [message.content for message in requests[0].messages] == SENT
    levels = [json.loads(line)["level"] for line in log.getvalue().splitlines() if "pii_found" in line]
    assert set(levels) == {"INFO"}


def test_a_guard_in_the_middleware_acts_last() -> None:
    """It sees what the others made of the request, whatever its place, for this workflow only."""

    def sign(call: ModelCall, next: Callable[[ModelCall], Completion]) -> Completion:
        from attrs import evolve

        signed = Message("user", f"Mail me@example.org {call.request.messages[-1].content}")
        return next(evolve(call, request=evolve(call.request, messages=(signed,))))

    provide(provider := MockProvider(echo))
    guarded = with_options(answer, middleware=[Guard("mask"), sign])
    assert run(guarded, TALK[:1]) == "I mail me@example.org & <EMAIL_9>."
    assert sent(provider) == ["Mail <EMAIL_1> You serve <EMAIL_2>."]
    run(answer, TALK)
    assert MAIL in sent(provider)[0]


def test_a_guard_is_a_middleware_by_itself() -> None:
    """Whoever wraps middleware may call it."""
    call = ModelCall("mock", Request("any", tuple(TALK)), None, None)
    answered = Guard("mask")(call, lambda call: Completion(echo(call.request)))
    assert answered.text == ANSWER


def test_two_guards_restore_both() -> None:
    """One in the settings and one of the workflow each put back what they took."""

    def staff(text: str) -> list[Match]:
        return [Match("staff", text.find("E-1"), text.find("E-1") + 3)] if "E-1" in text else []

    configure(pii=Guard("mask", kinds=("email",)))
    provide(provider := MockProvider(lambda request: request.messages[-1].content))
    both = with_options(answer, middleware=[Guard("mask", kinds=("card",), detectors=[staff])])
    talk = [Message("user", f"E-1 {MAIL} {CARD}")]
    assert run(both, talk) == f"E-1 {MAIL} {CARD}"
    assert sent(provider) == ["<STAFF_1> <EMAIL_1> <CARD_1>"]


def test_a_guard_that_fails_lets_nothing_out() -> None:
    """A detector's error is the call's."""

    def broken(text: str) -> list[Match]:
        raise LookupError("no dictionary")

    configure(pii=Guard("mask", detectors=[broken]))
    provide(provider := MockProvider(echo))
    with pytest.raises(LookupError):
        run(answer, TALK)
    assert provider.requests == ()


def test_file_and_environment_set_a_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pii:`` in flowlet.yaml, and variables above it."""
    monkeypatch.chdir(tmp_path)
    Path("flowlet.yaml").write_text("pii:\n  action: refuse\n  kinds: email, card\n")
    monkeypatch.setenv("FLOWLET_PII_ACTION", "mask")
    assert check() == (
        "pii.action = mask (FLOWLET_PII_ACTION)",
        "pii.kinds = email, card (flowlet.yaml)",
    )
    provide(provider := MockProvider(echo))
    LLM("mock:any").complete(TALK)
    assert sent(provider)[-1] == "Mail <EMAIL_1> or ring +44 20 7123 4567."


def test_wrong_settings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip in a kind or an action would leave data unprotected."""
    monkeypatch.chdir(tmp_path)
    Path("flowlet.yaml").write_text("pii:\n  action: hide\n  kinds: emial\n")
    with pytest.raises(ConfigError) as caught:
        check()
    assert [fault.split(": ")[1] for fault in caught.value.faults] == ["pii.action", "pii.kinds"]
    with pytest.raises(ConfigError, match="kinds"):
        configure(pii=Guard("mask", kinds=("emial",)))


def test_no_guard_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an action there is none."""
    configure(pii=Guard())
    provide(provider := MockProvider(echo))
    LLM("mock:any").complete(TALK)
    assert sent(provider) == [message.content for message in TALK]
