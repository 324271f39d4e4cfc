"""The mock provider answers from its script, and fails a test that strays from it."""

import json
import threading
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

import anyio
import pytest
from attrs import frozen

from flowlet._codec import answer_from_json
from flowlet._schema import output_format
from flowlet.errors import DefinitionError, ProviderError
from flowlet.messages import Completion, Message, OutputFormat, Request
from flowlet.metrics import UNKNOWN, TokenUsage
from flowlet.protocols import AsyncProvider, SyncProvider
from flowlet.testing import AsyncMockProvider, MockProvider, SyncMockProvider, UnexpectedCall, UnusedAnswers


@frozen
class Talk:
    title: str
    minutes: int


class Colour(StrEnum):
    GREEN = "green"


@frozen
class Unsure:
    why: str


@frozen
class Maybe:
    why: str


@frozen
class Box:
    value: Unsure | Maybe


def ask(text: str = "hello", **options) -> Request:
    return Request("m", (Message("user", text),), **options)


def test_answers_come_in_their_order():
    """Text, completions, values and functions of the request are all answers."""
    whole = Completion("done", finish_reason="length")
    script = ["one", whole, Talk("Tea", 20), {"a": [1]}, lambda request: request.messages[0].content.upper()]
    with MockProvider(script) as mock:
        answers = [mock.complete(ask("shout")) for _ in script]
    assert answers[1] is whole
    texts = [answer.text for answer in answers]
    assert texts == ["one", "done", '{"title": "Tea", "minutes": 20}', '{"a": [1]}', "SHOUT"]
    assert len(mock.requests) == 5
    assert mock.requests[0] == ask("shout")


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Talk, Talk("Tea", 20)),
        (Talk | Unsure, Unsure("no tea")),
        (Unsure | Maybe | None, Maybe("tea?")),
        (Unsure | Maybe | None, None),
        (list[Unsure | Maybe], [Maybe("a"), Unsure("b")]),
        (dict[str, Unsure | Maybe], {"x": Maybe("a"), "y": Unsure("b")}),
        (Annotated[list[Unsure | Maybe] | None, "reasons"], [Maybe("a")]),
        (Box, Box(Maybe("a"))),
        (Literal["a", "b"] | list[int], [1]),
        (float, 0.5),
        (Colour, Colour.GREEN),
    ],
)
def test_a_value_is_written_as_it_is_read_again(hint, value):
    """Members of unions get their tag, and what is no object the one that every answer has around it."""
    mock = MockProvider([value])
    assert answer_from_json(mock.complete(ask(output=output_format(hint))).text, hint) == value


def test_a_value_that_does_not_fit_is_sent_all_the_same():
    """A test may let a model answer wrongly; the fault is for the one who asked to find."""
    mock = MockProvider([{"who": 1}])
    assert mock.complete(ask(output=output_format(Unsure | Maybe))).text == '{"value": {"who": 1}}'


def test_an_exception_in_the_script_is_raised_as_it_is():
    """So is one that a function gives; the next call gets the next answer."""
    busy = ProviderError("rate_limit", "busy", retryable=True)
    mock = MockProvider([busy, lambda request: busy, "now"])
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            mock.complete(ask())
        assert caught.value is busy
    assert mock.complete(ask()).text == "now"


def test_one_function_answers_every_request():
    """It may look at the request, and there is no number of calls to keep to."""
    with MockProvider(lambda request: request.model) as mock:
        assert [mock.complete(ask()).text for _ in range(3)] == ["m", "m", "m"]


def test_without_answers_text_is_echoed_and_types_are_made_up():
    """A typed answer fits its schema."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    mock = MockProvider()
    assert mock.complete(ask("echo")).text == "echo"
    assert isinstance(json.loads(mock.complete(ask(output=OutputFormat("N", schema))).text)["n"], int)


def test_a_call_too_many_shows_what_it_asked():
    """The error names the call, its last message and the script's length, also when it was swallowed."""
    mock = MockProvider(["only"])
    mock.complete(ask())
    with pytest.raises(UnexpectedCall, match=r"(?s)call 2 of a script with 1 answers.*user: 'and x+…"):
        mock.complete(ask("and " + "x" * 500))
    with pytest.raises(UnexpectedCall, match="call 2"):
        mock.verify()
    assert issubclass(UnexpectedCall, AssertionError)


def test_answers_that_nobody_asked_for_fail():
    """The first of them is shown; a test that failed for another reason keeps that reason."""
    with (
        pytest.raises(UnusedAnswers, match="2 of 3 answers were not used, first 'b'"),
        MockProvider(["a", "b", "c"]) as mock,
    ):
        mock.complete(ask())
    with pytest.raises(KeyError), MockProvider(["a"]):
        raise KeyError


def test_each_kind_has_its_own_methods_only():
    """A sync mock is no async provider, an async one no sync provider, and the plain one is both."""
    kinds = {SyncMockProvider: (True, False), AsyncMockProvider: (False, True), MockProvider: (True, True)}
    for kind, expected in kinds.items():
        mock = kind(["a"], name="planned")
        assert (isinstance(mock, SyncProvider), isinstance(mock, AsyncProvider)) == expected
        assert mock.name == "planned"


@pytest.mark.parametrize(
    ("usage", "reported"), [(None, TokenUsage(2, 1, 3)), (UNKNOWN, UNKNOWN), (TokenUsage(7), TokenUsage(7))]
)
def test_usage_is_counted_unless_it_is_given(usage, reported):
    """Counted as the offline provider does; or what the test says, even that no one knows; free of charge."""
    mock = MockProvider(["hi"], usage=usage)
    assert mock.complete(ask("hello")).usage == reported
    assert mock.price("m", reported) == Decimal(0)


def test_a_latency_beyond_the_timeout_is_a_timeout_at_once():
    """Latency is virtual: nothing waits, and what would have been too late fails as a slow provider does."""
    mock = MockProvider(["in time", "late"], latency=60)
    assert mock.complete(ask(timeout=60)).text == "in time"
    with pytest.raises(ProviderError, match=r"no answer within 59 s \(latency 60 s\)") as caught:
        mock.complete(ask(timeout=59))
    assert (caught.value.kind, caught.value.retryable) == ("timeout", True)


@pytest.mark.parametrize("answers", ["text", {"a": 1}, 7])
def test_answers_that_are_no_list_are_refused(answers):
    """One text is not a script of its letters; the error shows the list to write."""
    with pytest.raises(DefinitionError, match=r"such as \["):
        MockProvider(answers)


def test_a_stream_is_the_answer_in_pieces():
    """Up to three of them, then the usage; errors come when the stream is opened."""
    mock = MockProvider(["seven77", "", ProviderError("server", "down")])
    with mock.stream(ask()) as deltas:
        *pieces, last = deltas
    assert [piece.text for piece in pieces] == ["sev", "en7", "7"]
    assert (last.usage, last.finish_reason, last.model) == (TokenUsage(2, 2, 4), "stop", "m")
    with mock.stream(ask()) as deltas:
        assert len(list(deltas)) == 1
    with pytest.raises(ProviderError), mock.stream(ask()):
        pass


@pytest.mark.anyio
async def test_async_calls_take_from_the_same_script():
    """Async completions and streams, one left early, give what the sync ones give."""
    with MockProvider(["a", "bcd", "efg"]) as mock:
        assert (await mock.acomplete(ask())).text == "a"
        async with mock.astream(ask()) as deltas:
            assert [delta.text async for delta in deltas] == ["b", "c", "d", ""]
        async with mock.astream(ask()) as deltas:
            assert (await anext(deltas)).text == "e"


@pytest.mark.anyio
async def test_an_async_function_decides_how_long_a_call_takes():
    """A test may hold a call until something happened; two calls are then under way at once."""
    second = anyio.Event()

    async def answer(request: Request) -> str:
        if request.messages[0].content == "first":
            await second.wait()
        else:
            second.set()
        return "after the second"

    mock = AsyncMockProvider(answer)
    async with anyio.create_task_group() as group:
        group.start_soon(mock.acomplete, ask("first"))
        assert (await mock.acomplete(ask("second"))).text == "after the second"


def test_an_async_function_does_not_answer_a_sync_call():
    """The error says so, and no coroutine is left over."""

    async def answer(request: Request) -> str:
        return "late"

    with pytest.raises(DefinitionError, match="async function can't answer a sync call"):
        MockProvider(answer).complete(ask())


def test_threads_share_a_script_without_losing_an_answer():
    """Every answer is given once, whoever asks."""
    got: list[str] = []

    def work(mock: MockProvider) -> None:
        got.extend(mock.complete(ask()).text for _ in range(50))

    with MockProvider([str(n) for n in range(200)]) as mock:
        threads = [threading.Thread(target=work, args=(mock,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(got, key=int) == [str(n) for n in range(200)]
