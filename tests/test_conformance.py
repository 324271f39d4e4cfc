"""The kit passes our own providers, and finds what is wrong with others, all at once."""

from contextlib import contextmanager
from decimal import Decimal

import pytest

from flowlet import LLM, register_provider
from flowlet.errors import ProviderError
from flowlet.messages import Completion, Delta, Message, Request
from flowlet.metrics import TokenUsage
from flowlet.providers.offline import OfflineProvider
from flowlet.providers.openai import OpenAIProvider
from flowlet.testing import AsyncMockProvider, MockProvider, SyncMockProvider, check_provider, recording
from server import Answer, Server, Status, Stream

FAILING = Request("none", (Message("user", "fail"),))


def scripted(request: Request) -> object:
    if request.model == "none":
        raise ProviderError("not_found", "no such model", status=404)
    return {"word": "tea"} if request.output else "tea"


@pytest.mark.parametrize("kind", [MockProvider, SyncMockProvider, AsyncMockProvider])
def test_mocks_pass(kind: type) -> None:
    """Of all colours, errors included."""
    check_provider(kind(scripted), failing=FAILING)


def test_offline_passes() -> None:
    """The provider that asks no model."""
    check_provider(OfflineProvider())


def test_openai_passes() -> None:
    """Over real HTTP, whole and in pieces."""

    def script(received):
        if received.json["model"] == "none":
            return Status(404)
        if received.json.get("stream"):
            return Stream(["te", "a"])
        return Answer('{"word": "tea"}' if "response_format" in received.json else "tea")

    with Server(script) as server:
        check_provider(OpenAIProvider(server.key, server.url), failing=FAILING)


class Sloppy:
    live = False
    structured_output = "xml"

    def price(self, model: str, usage: TokenUsage) -> float:
        return 0.5

    def complete(self, request: Request) -> Completion:
        if request.model == "none":
            raise KeyError("none")
        return Completion("tea", TokenUsage(), finish_reason="done")  # type: ignore[arg-type]

    @contextmanager
    def stream(self, request: Request):
        yield iter([Delta("tea", usage=TokenUsage(-1, 0, 0))])

    async def acomplete(self, request: Request) -> str:
        return "tea"


def test_all_faults_are_told_at_once() -> None:
    """Each with the method that it is in."""
    with pytest.raises(AssertionError) as caught:
        check_provider(Sloppy(), failing=FAILING)  # type: ignore[arg-type]
    lines = str(caught.value).splitlines()
    assert lines[0] == "Sloppy does not keep to the protocol of providers:"
    told = "\n".join(lines)
    for fault in (
        "structured_output: 'xml' is none of json_schema, json_object, prompt",
        "price: it gave 0.5, not a Decimal or None",
        "complete: finish_reason 'done'",
        "complete: its usage is all zeros",
        "complete, failing: it raised KeyError, expected a ProviderError",
        "stream: 0 deltas have a finish_reason",
        "stream: its usage has counts that are none",
        "acomplete on asyncio: it gave str, not a Completion",
        "acomplete on trio, failing: it raised nothing, expected a ProviderError",
    ):
        assert fault in told


def test_a_foreign_error_that_hangs_on_is_told() -> None:
    """It could carry a key in its headers."""

    def leaky(request: Request) -> str:
        if request.model != "none":
            return "tea"
        try:
            raise OSError("Authorization: Bearer ...")
        except OSError as exc:
            raise ProviderError("connection", "down") from exc

    provider = SyncMockProvider(leaky)
    provider.structured_output = "prompt"
    with pytest.raises(AssertionError, match="OSError hangs on its error"):
        check_provider(provider, failing=FAILING)


def test_what_has_no_method_is_told() -> None:
    """Before it is asked."""
    with pytest.raises(AssertionError, match=r"methods: it needs complete\(request\)"):
        check_provider(object())  # type: ignore[arg-type]


def test_a_recording_passes_as_its_provider(tmp_path) -> None:
    """Live and replayed: what stands before a provider keeps to the protocol too."""
    register_provider("mock", MockProvider(scripted))
    for mode in ("all", "none"):
        with recording(tmp_path / "talk.json", mode):
            check_provider(LLM("mock:test")._target()[0].provider, failing=FAILING)
    assert Decimal(0) == LLM("mock:test")._target()[0].provider.price("m", TokenUsage())
