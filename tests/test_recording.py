"""A recording answers as the model did, for nothing, and fails where it was asked something else."""

import errno
import json
import os
import threading
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from attrs import frozen

from flowlet import (
    LLM,
    AsyncLLM,
    ProviderError,
    apmap,
    arun,
    configure,
    last_run,
    pmap,
    register_provider,
    run,
    start,
    step,
    usage,
    with_options,
    workflow,
)
from flowlet.errors import ConfigError, DefinitionError, RecordingError
from flowlet.llm import stand_in
from flowlet.messages import Completion, Message, OutputFormat, Parameters, Request
from flowlet.metrics import TokenUsage
from flowlet.providers.openai import OpenAIProvider
from flowlet.settings import process
from flowlet.testing import (
    AsyncMockProvider,
    MockProvider,
    SyncMockProvider,
    UnexpectedCall,
    UnusedRecording,
    recording,
)
from flowlet.testing._tape import asked, key
from server import Answer, Server

USED = TokenUsage(10, 5, 15)


@frozen
class Talk:
    title: str
    minutes: int


@step
def ask(question: str, llm: LLM = LLM("mock:any")) -> str:
    return llm.ask(question)


@step
async def aask(question: str, llm: AsyncLLM = AsyncLLM("mock:any")) -> str:
    return await llm.ask(question)


@workflow
def wide(questions: list[str]) -> list[str]:
    return pmap(ask, questions)


@workflow
async def awide(questions: list[str]) -> list[str]:
    return [await aask(question) for question in questions]


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    return tmp_path / "recordings" / "talk.json"


def record(tape: Path, answers: object, *questions: str) -> None:
    """Record *questions* to a scripted model, which then is gone."""
    register_provider("mock", MockProvider(answers, usage=USED))
    with recording(tape, "all"):
        for question in questions:
            ask(question)
    process.reset()


def shout(request: Request) -> str:
    return request.messages[-1].content.upper()


# --- replay --------------------------------------------------------------------------------------


def test_answers_come_from_the_file(tape: Path) -> None:
    """No provider of that name is needed; the usage is the original, the cost nothing."""
    record(tape, ["Leaves.\nHot.", "Beans."], "tea?", "coffee?")
    with recording(tape):
        assert run(wide, ["coffee?", "tea?"]) == ["Beans.", "Leaves.\nHot."]
    calls = last_run().metrics.calls
    assert [(call.usage, call.cost, call.replayed) for call in calls] == [(USED, Decimal(0), True)] * 2


def test_no_key_is_needed(tape: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenAI answered once is answered again without any set-up."""
    with Server([Answer("Leaves.")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        with recording(tape, "once"):
            assert LLM("openai:m-1").ask("tea?") == "Leaves."
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    process.reset()
    with recording(tape, "once"):
        assert LLM("openai:m-1").ask("tea?") == "Leaves."
    with pytest.raises(ConfigError):
        LLM("openai:m-1").ask("tea?")


@pytest.mark.anyio
async def test_the_same_file_serves_both_colours(tape: Path, anyio_backend: str) -> None:
    """Recorded by sync code, replayed by async code, on either backend and in a background run."""
    await anyio.to_thread.run_sync(record, tape, shout, "tea?", "tea?", "coffee?")
    with recording(tape):
        assert await arun(awide, ["tea?", "coffee?"]) == ["TEA?", "COFFEE?"]
        assert await start(aask, "tea?") == "TEA?"


@pytest.mark.parametrize("provider", [SyncMockProvider, AsyncMockProvider, MockProvider])
@pytest.mark.anyio
async def test_every_kind_of_provider_is_recorded(tape: Path, provider: type) -> None:
    """Called whole and streamed, from async code and from a thread."""
    register_provider("mock", provider(shout))
    for mode in ("all", "none"):
        with recording(tape, mode):
            assert await arun(aask, "a") == "A"
            assert await arun(wide, ["b"]) == ["B"]
            async with AsyncLLM("mock:any").stream("c") as pieces:
                assert "".join([piece async for piece in pieces]) == "C"
        process.reset()


def test_streams_are_replayed_line_by_line(tape: Path) -> None:
    """A stream and a whole answer are the same request."""
    register_provider("mock", MockProvider(["one\ntwo\n", "one\ntwo\n"], usage=USED))
    llm = LLM("mock:any")
    with recording(tape, "all"), llm.stream("count") as pieces:
        assert "".join(pieces) == "one\ntwo\n"
    with recording(tape), llm.stream("count") as pieces:
        assert list(pieces) == ["one\n", "two\n"]
    with recording(tape):
        completion = llm.complete("count")
    assert (completion.text, completion.usage, completion.replayed) == ("one\ntwo\n", USED, True)


def test_a_stream_left_early_is_no_whole_answer(tape: Path) -> None:
    """Its beginning can be replayed, and reading on fails."""
    register_provider("mock", MockProvider(["abcdef"]))
    llm = LLM("mock:any")
    with recording(tape, "all"), llm.stream("count") as pieces:
        assert next(pieces) == "ab"
    with recording(tape), llm.stream("count") as pieces:
        assert next(pieces) == "ab"
        with pytest.raises(RecordingError, match="left early"):
            next(pieces)
    with pytest.raises(RecordingError, match="left early"), recording(tape):
        llm.complete("count")


def test_an_error_of_the_caller_is_not_the_streams(tape: Path) -> None:
    """A ProviderError that the code in the block raised is not what the provider said."""
    register_provider("mock", MockProvider(["ab"]))
    llm = LLM("mock:any")
    mine = ProviderError("other", "mine")
    with recording(tape, "all"), pytest.raises(ProviderError, match="mine"), llm.stream("a") as pieces:
        assert "".join(pieces) == "ab"
        raise mine
    with recording(tape):
        assert llm.complete("a").text == "ab"


def test_errors_are_replayed_so_that_retries_are(tape: Path) -> None:
    """With their facts, and without the waits that a server asked for."""
    down = ProviderError("server", "down", retryable=True, status=503, retry_after=0)
    record(tape, [down, "Leaves."], "tea?")
    text = tape.read_text()
    tape.write_text(text.replace('"retry_after": 0', '"retry_after": 50'))
    assert tape.read_text() != text
    with recording(tape):
        assert run(ask, "tea?") == "Leaves."
    first, second = last_run().metrics.calls
    assert (first.ok, first.error, second.attempt) == (False, first.error, 2)
    assert "503" in (first.error or "")


def test_repeats_get_their_answers_in_turn(tape: Path) -> None:
    """The same request twice is two answers, and a third time is one too many."""
    record(tape, ["one", "two"], "again", "again")
    with pytest.raises(RecordingError, match="once more"), recording(tape):
        assert [ask("again"), ask("again")] == ["one", "two"]
        ask("again")


def test_typed_answers_are_asked_for_as_when_recorded(tape: Path) -> None:
    """A way of asking that was refused is tried in the replay too, whatever the process knows by then."""
    unsupported = ProviderError("unsupported", "no json_schema")
    register_provider("mock", MockProvider([unsupported, Talk("Tea", 5)]))
    with recording(tape, "all"):
        assert LLM("mock:any").ask("a talk", Talk) == Talk("Tea", 5)
    for _ in range(2):
        with recording(tape):
            assert LLM("mock:any").ask("a talk", Talk) == Talk("Tea", 5)


# --- where it holds ------------------------------------------------------------------------------


def test_two_threads_have_their_own(tmp_path: Path) -> None:
    """The same question, at the same time, is answered from two files."""
    both = threading.Barrier(2)
    heard: dict[str, list[str]] = {}

    def test(name: str) -> None:
        with recording(tmp_path / name):
            both.wait(5)
            heard[name] = run(wide, ["tea?"] * 20)
            both.wait(5)

    for name in ("a", "b"):
        record(tmp_path / name, [name] * 20, *["tea?"] * 20)
    threads = [threading.Thread(target=test, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {name: [name] * 20 for name in ("a", "b")}


@pytest.mark.anyio
async def test_two_tasks_have_their_own(tmp_path: Path, anyio_backend: str) -> None:
    """Which recording holds is not a matter of the thread."""

    async def test(name: str) -> None:
        with recording(tmp_path / name):
            await anyio.lowlevel.checkpoint()
            assert await arun(awide, ["tea?"] * 5) == [name] * 5

    for name in ("a", "b"):
        await anyio.to_thread.run_sync(record, tmp_path / name, [name] * 5, *["tea?"] * 5)
    async with anyio.create_task_group() as group:
        for name in ("a", "b"):
            group.start_soon(test, name)


def test_it_ends_with_its_block(tape: Path) -> None:
    """Also when that fails; a nested one hides the outer one, and "off" hides it too."""
    record(tape, ["Leaves."], "tea?")
    register_provider("mock", MockProvider(lambda request: "live"))
    with recording(tape):
        with recording(tape, "off"):
            assert ask("tea?") == "live"
        assert ask("tea?") == "Leaves."
    with pytest.raises(ZeroDivisionError), recording(tape):
        raise ZeroDivisionError
    assert stand_in.get() is None
    assert ask("tea?") == "live"


def test_a_run_that_outlives_the_block_is_told(tape: Path, background: str) -> None:
    """Its calls go nowhere, neither to the file nor to the model."""
    go = threading.Event()

    def late() -> str:
        assert go.wait(5)
        return LLM("mock:any").ask("tea?")

    register_provider("mock", MockProvider([]))
    with recording(tape, "all"):
        handle = start(late)
    go.set()
    with pytest.raises(RecordingError, match="closed"):
        handle.result(5)


# --- modes and misses ----------------------------------------------------------------------------


def test_once_records_and_then_replays(tape: Path) -> None:
    """The second time the model is not asked."""
    with MockProvider(["Leaves."]) as mock:
        register_provider("mock", mock)
        for _ in range(2):
            with recording(tape, "once"):
                assert ask("tea?") == "Leaves."


def test_all_records_anew_in_the_old_order(tape: Path) -> None:
    """A diff of the file shows what changed, not who was quicker."""
    record(tape, shout, "a", "b", "c")
    record(tape, ["4", "3", "2", "1"], "d", "c", "b", "a")
    texts = [one["answer"]["text"] for one in json.loads(tape.read_text())["interactions"]]
    assert texts == ["1", "2", "3", "4"]


@pytest.mark.anyio
async def test_the_order_is_that_of_asking(tape: Path, anyio_backend: str) -> None:
    """Who is answered first has no say: repeats of one request are told apart by who asked first."""
    first, second = anyio.Event(), anyio.Event()

    async def answer(request: Request) -> str:
        if request.messages[-1].content == "first":
            first.set()
            await second.wait()
        second.set()
        return "leaves"

    async def in_turn(question: str) -> str:
        if question == "second":
            await first.wait()  # trio starts tasks in any order
        return await aask(question)

    register_provider("mock", AsyncMockProvider(answer))
    with recording(tape, "all"):
        assert await apmap(in_turn, ["first", "second"]) == ["leaves"] * 2
    asked = [one["request"]["messages"][0]["content"] for one in json.loads(tape.read_text())["interactions"]]
    assert asked == ["first", "second"]


def test_a_write_that_fails_leaves_the_file(tape: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or not at all, and nothing else is left in the folder."""
    record(tape, ["Leaves."], "tea?")
    before = tape.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    register_provider("mock", MockProvider(shout))
    with pytest.raises(RecordingError, match="can't be written: No space left"), recording(tape, "all"):
        ask("a")
    assert tape.read_bytes() == before
    assert [file.name for file in tape.parent.iterdir()] == ["talk.json"]


def test_a_recording_of_nothing_leaves_the_file(tape: Path) -> None:
    """A model that could not be asked at all must not cost what was recorded before."""
    record(tape, shout, "a")
    before = tape.read_bytes()
    with pytest.raises(ConfigError), recording(tape, "all"):
        LLM("openai:m-1").ask("a")
    assert tape.read_bytes() == before


def test_a_miss_shows_the_difference_to_the_nearest(tape: Path) -> None:
    """And how to record; code that hides the failure can't make the test pass."""
    record(tape, shout, "Summarise:\nTea is hot.", "Something else")
    with pytest.raises(RecordingError) as caught, recording(tape), suppress(RecordingError):
        ask("Summarise:\nTea is cold.")
    assert str(caught.value).splitlines() == [
        "talk.json has no answer to this request; against the nearest of 2:",
        "  --- recorded",
        "  +++ asked",
        "  @@ -8,3 +8,3 @@",
        '           "Summarise:",',
        '  -        "Tea is hot."',
        '  +        "Tea is cold."',
        "         ]",
        "  to record it: recording('talk.json', mode='all'), or mode='once' when there is no file;",
        "  in pytest: --flowlet-record=all --flowlet-live; flowlet run: --record",
    ]


def test_a_missing_file_is_told_by_the_first_call(tape: Path) -> None:
    """A block without a call needs none."""
    with recording(tape):
        pass
    with pytest.raises(RecordingError, match=r"there is no recording .*talk\.json"), recording(tape):
        ask("tea?")
    assert not tape.exists()


def test_unused_calls_are_warned_of(tape: Path) -> None:
    """A filter of warnings makes it an error; a block that failed for another reason has no such news."""
    record(tape, shout, "a", "b", "b")
    told = r"2 of 3 recorded calls were not used, first mock:any 'b'"
    with pytest.warns(UnusedRecording, match=told), recording(tape):
        ask("a")
    with pytest.raises(ZeroDivisionError), recording(tape):
        raise ZeroDivisionError


def test_a_wrong_mode_is_told() -> None:
    """With those that there are."""
    with pytest.raises(DefinitionError, match="none, once, all, off"):
        recording("talk.json", "always")  # type: ignore[arg-type]


# --- the file ------------------------------------------------------------------------------------


def test_the_file_reads_well(tape: Path) -> None:
    """Long texts are lines; what has its default is left out; keys, addresses and timeouts are not there."""
    record(tape, ["Leaves.\nHot — ☕."], "What\nis tea?")
    whole = json.loads(tape.read_text(encoding="utf-8"))
    assert whole["interactions"] == [
        {
            "request": {
                "provider": "mock",
                "model": "any",
                "messages": [{"role": "user", "content": ["What", "is tea?"]}],
            },
            "answer": {
                "text": ["Leaves.", "Hot — ☕."],
                "usage": {
                    "prompt_tokens": 10,
                    "completion_tokens": 5,
                    "total_tokens": 15,
                    "source": "provider",
                },
                "model": "any",
            },
        }
    ]
    assert "☕" in tape.read_text(encoding="utf-8")
    assert [file.name for file in tape.parent.iterdir()] == ["talk.json"]


def test_a_file_that_is_no_recording_is_told(tape: Path) -> None:
    """All faults of it, with their places."""
    tape.parent.mkdir()
    tape.write_text(
        '{"flowlet_recording": 1, "structured_output": {}, "interactions": [{"request": 5}], "x": 1}'
    )
    with (
        pytest.raises(RecordingError, match=r"\$\.x: (.|\n)*\$\.interactions\[0\]\.request"),
        recording(tape),
    ):
        pass
    tape.write_text("<html>")
    with pytest.raises(RecordingError, match="no recording of flowlet"), recording(tape):
        pass


def test_an_answer_with_a_secret_is_refused(tape: Path) -> None:
    """The file stays as it was; a secret over two lines is found too."""
    record(tape, ["Leaves."], "tea?")
    before = tape.read_bytes()
    process.redactor.register("first-half\nsecond-half")
    register_provider("mock", MockProvider(["It is first-half\nsecond-half."]))
    with pytest.raises(RecordingError, match="holds a registered secret"), recording(tape, "all"):
        ask("tell")
    assert tape.read_bytes() == before
    assert len(list(tape.parent.iterdir())) == 1


def test_a_request_with_a_secret_is_redacted(tape: Path) -> None:
    """What looks like a key gets the same answer, whichever key it is."""
    record(tape, ["Yes."], "is sk-aaaaaaaaaaaaaaaaaaaa a key?")
    assert "sk-aaaa" not in tape.read_text()
    with recording(tape):
        assert ask("is sk-bbbbbbbbbbbbbbbbbbbb a key?") == "Yes."


def test_an_interrupted_block_writes_nothing(tape: Path) -> None:
    """One that failed in another way does: what was paid for is kept."""
    register_provider("mock", MockProvider(shout))
    with pytest.raises(KeyboardInterrupt), recording(tape, "all"):
        ask("a")
        raise KeyboardInterrupt
    assert not tape.exists()
    with pytest.raises(ZeroDivisionError), recording(tape, "all"):
        ask("a")
        raise ZeroDivisionError
    assert tape.exists()


def test_a_file_that_can_not_be_written_is_told(tape: Path) -> None:
    """With the reason of the system."""
    tape.parent.write_text("a file in the way")
    register_provider("mock", MockProvider(shout))
    with pytest.raises(RecordingError, match="can't be written"), recording(tape, "all"):
        ask("a")


def test_half_a_surrogate_pair_is_replaced(tape: Path) -> None:
    """What a model broke off in the middle is recorded too, question and answer, as far as a file can."""
    record(tape, ["a\ud83d"], "b\ud83d")
    with recording(tape):
        assert ask("b\ud83d") == "a\ufffd"


def test_what_the_answer_depends_on_makes_the_key() -> None:
    """Each part of a request, and not how long it may take."""
    base = Request("m", (Message("user", "hi"),))
    schema = OutputFormat("T", {"type": "object"})
    others = [
        Request("m2", base.messages),
        Request("m", (Message("system", "hi"),)),
        Request("m", (Message("user", "ho"),)),
        Request("m", base.messages, Parameters(temperature=0)),
        Request("m", base.messages, Parameters(seed=0)),
        Request("m", base.messages, Parameters(extra={"a": 1})),
        Request("m", base.messages, Parameters(), schema),
        Request("m", base.messages, Parameters(), OutputFormat("T", {"type": "string"})),
    ]
    keys = {key(asked("p", request)) for request in [base, *others]} | {key(asked("q", base))}
    assert len(keys) == len(others) + 2
    assert key(asked("p", Request("m", base.messages, timeout=1))) == key(asked("p", base))
    exact = key(asked("p", Request("m", base.messages, Parameters(temperature=0.0))))
    assert exact == key(asked("p", others[3]))


def test_a_scripts_own_failure_is_not_recorded(tape: Path) -> None:
    """Only what a provider may say is."""
    register_provider("mock", MockProvider(["A"]))
    with recording(tape, "all"):
        assert ask("a") == "A"
        with pytest.raises(UnexpectedCall):
            ask("b")
    assert len(json.loads(tape.read_text())["interactions"]) == 1


def test_openai_is_recorded_with_its_facts(tape: Path) -> None:
    """Request ids and usage of the wire are those of the replay."""
    llm = LLM("openai:m-1", temperature=0)
    with Server([Answer("Leaves.")]) as server:
        register_provider("openai", OpenAIProvider(server.key, server.url))
        with recording(tape, "all"):
            live = llm.complete("tea?")
    assert "sk-test" not in tape.read_text()
    assert "127.0.0.1" not in tape.read_text()
    with recording(tape):
        again = llm.complete("tea?")
    assert not live.replayed
    assert again == Completion(
        live.text, live.usage, live.model, live.finish_reason, live.request_id, live.refusal, True
    )


def test_a_recording_answers_where_the_settings_say_offline(tape: Path) -> None:
    """For the models that it has, since nothing is sent; what was recorded offline is replayed offline."""
    record(tape, ["Leaves."], "tea?")
    configure(model="offline")
    with recording(tape):
        assert ask("tea?") == "Leaves."
    register_provider("mock", OpenAIProvider("sk-none", "http://127.0.0.1:9/v1"))
    with recording(tape, "all"):
        made_up = ask("tea?")
    with recording(tape):
        assert ask("tea?") == made_up
    assert made_up.startswith("[offline]")


def test_the_model_of_the_run_is_the_one_that_is_recorded(tape: Path) -> None:
    """With its own name and provider, so that another model is a miss."""
    register_provider("mock", MockProvider(shout))
    register_provider("other", MockProvider(shout))
    open_ = with_options(ask, model="other:m")
    with recording(tape, "all"):
        assert run(open_, "a", LLM()) == "A"
    with pytest.raises(RecordingError, match='-  "provider": "other"'), recording(tape):
        run(ask, "a")
    assert usage().cost == 0
