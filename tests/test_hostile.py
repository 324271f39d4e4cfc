"""Whatever a server does, a call ends as a success or as one typed error: in time, in bounds, and booked once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import flowlet
from flowlet import (
    LLM,
    AsyncLLM,
    OutputError,
    ProviderError,
    WorkflowTimeout,
    arun,
    register_provider,
    run,
    runs,
    step,
    usage,
    with_options,
    workflow,
)
from flowlet._live_calls import LIVE
from flowlet.metrics import CallRecord
from flowlet.providers.openai import OpenAIProvider
from hostile import ALIKE, LARGE, LARGE_STREAMED, STREAMED, TOLD, WHOLE, Case, answer, nested
from server import KEY, Answer, Body, RateLimit, Received, Server

LATER = 1.0
"""Seconds after its deadline within which a call must have ended."""

WAYS = ("sync", "asyncio", "trio")
SMALL = Case("small", Answer("tea"), "tea")
BY_NAME = {
    (case.name, stream): case
    for stream, more in ((False, WHOLE), (True, STREAMED + LARGE_STREAMED))
    for case in [SMALL, *ALIKE, *LARGE, *more]
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that does to each request what its prompt names; it redirects nobody who follows."""
    with Server(_step) as server:
        yield server


def _step(received: Received) -> Any:
    asked = received.json
    return BY_NAME[asked["messages"][0]["content"], asked.get("stream", False)].step


@pytest.fixture(autouse=True)
def provider(server: Server) -> Iterator[OpenAIProvider]:
    """The provider that asks the server."""
    provider = OpenAIProvider(KEY, server.url)
    provider.load()
    register_provider("hostile", provider)
    yield provider
    provider.close()


@step
def whole(case: Case) -> str:
    """Ask for a whole answer."""
    return LLM("hostile:m", attempts=1, timeout=case.timeout).ask(case.name)


@step
def streamed(case: Case) -> str:
    """Ask for a stream."""
    with LLM("hostile:m", attempts=1, timeout=case.timeout).stream(case.name) as pieces:
        return "".join(pieces)


@step
async def awhole(case: Case) -> str:
    """Await a whole answer."""
    return await AsyncLLM("hostile:m", attempts=1, timeout=case.timeout).ask(case.name)


@step
async def astreamed(case: Case) -> str:
    """Await a stream."""
    async with AsyncLLM("hostile:m", attempts=1, timeout=case.timeout).stream(case.name) as pieces:
        return "".join([piece async for piece in pieces])


def ask(way: str, sync: Any, asynchronous: Any, case: Case) -> tuple[str | ProviderError, CallRecord]:
    """Call in one of the three ways, and give the answer or the error, and the one record."""

    async def main() -> str:
        return await arun(asynchronous, case)

    try:
        end = run(sync, case) if way == "sync" else anyio.run(main, backend=way)
    except ProviderError as error:
        end = error
    (record,) = runs()[0].metrics.calls
    return end, record


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ALIKE + WHOLE, ids=lambda case: case.name)
def test_a_whole_answer_is_an_answer_or_one_typed_error(way: str, case: Case, server: Server) -> None:
    """Whatever comes in its place."""
    check(server, case, way, whole, awhole)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ALIKE + STREAMED, ids=lambda case: case.name)
def test_a_stream_is_an_answer_or_one_typed_error(way: str, case: Case, server: Server) -> None:
    """Whatever comes in its place, and wherever it breaks off."""
    check(server, case, way, streamed, astreamed)


def check(server: Server, case: Case, way: str, sync: Any, asynchronous: Any) -> None:
    """Make the call, and hold its end to what the case says."""
    asked, began = len(server.requests), time.monotonic()
    end, record = ask(way, sync, asynchronous, case)
    assert len(server.requests) == asked + 1, "it was asked again, or somewhere else"
    assert time.monotonic() - began < case.timeout + LATER
    if isinstance(end, ProviderError):
        assert (end.kind, end.retryable) == (case.outcome, case.retryable), end
        check_is_clean(end)
    else:
        assert (end, None) == (case.outcome, case.retryable)
    assert (record.usage, record.ok) == (case.usage, isinstance(end, str))


def check_is_clean(error: ProviderError) -> None:
    """No foreign error hangs on it, and no key."""
    assert error.__cause__ is error.__context__ is None
    assert KEY[:12] not in "".join(traceback.format_exception(error)) + repr(error)
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")


# --- memory --------------------------------------------------------------------------------------

MOST = 64 * 2**20
"""Bytes that a call may take."""


@pytest.fixture(scope="module")
def measured(server: Server) -> dict[tuple[str, bool, str], dict[str, Any]]:
    """What the large cases took in a process of their own, which serves nothing itself."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux to measure the peak of memory")
    script = Path(__file__).with_name("hostile_memory.py")
    env = {**os.environ, "PYTHONPATH": str(Path(flowlet.__file__).parents[1])}
    command = [sys.executable, str(script), server.url]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return {(m["name"], m["stream"], m["way"]): m for m in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("stream", "case"),
    [*((False, case) for case in LARGE), *((True, case) for case in LARGE + LARGE_STREAMED)],
    ids=lambda value: value.name if isinstance(value, Case) else ("stream" if value else "whole"),
)
def test_a_large_answer_takes_little_memory(stream: bool, case: Case, way: str, measured: Any) -> None:
    """At most 64 MiB, however much is sent and whatever it unpacks to."""
    took = measured[case.name, stream, way]
    assert (took["kind"], took["retryable"], took["calls"]) == (case.outcome, case.retryable, 1)
    assert took["grown"] <= MOST
    assert took["seconds"] <= case.timeout + LATER


# --- more than one attempt -----------------------------------------------------------------------

RETRIED = [case for case in ALIKE if case.retryable and case.outcome != "rate_limit"][::4]


def twice(timeout: float) -> str:
    """Ask with two attempts."""
    return LLM("hostile:m", attempts=2, timeout=timeout).ask("?")


async def atwice(timeout: float) -> str:
    """Await an answer of two attempts."""
    return await AsyncLLM("hostile:m", attempts=2, timeout=timeout).ask("?")


def ask_twice(way: str, seconds: float, **options: Any) -> str:
    """Ask with two attempts in one of the three ways, in a run with *options*."""
    if way == "sync":
        return run(with_options(workflow(twice), **options), seconds)
    return anyio.run(arun, with_options(workflow(atwice), **options), seconds, backend=way)


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", RETRIED, ids=lambda case: case.name)
def test_a_second_attempt_is_booked_beside_the_first(way: str, bad: Case) -> None:
    """What was retryable is tried again, and each attempt's tokens count once."""
    with Server([bad.step, Body(answer())]) as server:
        register_provider("hostile", OpenAIProvider(KEY, server.url))
        assert ask_twice(way, bad.timeout) == "tea"
    calls = runs()[0].metrics.calls
    assert [(call.attempt, call.ok, call.usage) for call in calls] == [(1, False, bad.usage), (2, True, TOLD)]
    assert (usage().calls, usage().total_tokens) == (2, bad.usage.total_tokens + TOLD.total_tokens)


@pytest.mark.parametrize("way", WAYS)
def test_no_retry_after_outlasts_the_run(way: str) -> None:
    """A server that asks for years of patience gets what the run's deadline leaves."""
    with Server(lambda received: RateLimit("1e9")) as server:
        register_provider("hostile", OpenAIProvider(KEY, server.url))
        began = time.monotonic()
        with pytest.raises(WorkflowTimeout):
            ask_twice(way, 5.0, name="patient", timeout=0.4)
        assert time.monotonic() - began < 0.4 + LATER


# --- answers that are to be values ---------------------------------------------------------------

MISFITS = {
    "100k deep": nested(100_000).decode(),
    "100k digits": "9" * 100_000,
    "infinite": '{"value": 1e999}',
    "no number": '{"value": NaN}',
    "half a pair": '{"value": "\\ud800"}',
    "two of a name": '{"value": 1, "value": "x"}',
    "cut": '{"value": [1, 2',
    "nothing": "",
}


@pytest.mark.parametrize("text", MISFITS.values(), ids=MISFITS)
def test_a_hostile_text_is_no_value(text: str) -> None:
    """Text that is no JSON, or too much of it, is an ``OutputError`` after one re-ask."""
    with Server([Answer(text), Answer(text)]) as server:
        register_provider("hostile", OpenAIProvider(KEY, server.url))
        with pytest.raises(OutputError) as caught:
            run(lambda: LLM("hostile:m").ask("?", list[int]))
        assert len(server.requests) == 2
    assert caught.value.__cause__ is caught.value.__context__ is None


# --- before the first byte -----------------------------------------------------------------------


def test_a_look_up_is_bounded_by_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that never answers does not hold a sync call beyond its deadline."""
    asked, answered = threading.Event(), threading.Event()

    def getaddrinfo(*args: Any, **options: Any) -> list[Any]:
        asked.set()
        answered.wait(5)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    began = time.monotonic()
    end = _end_of("http://slow.example/v1", timeout=0.2)
    answered.set()
    assert asked.is_set()
    assert time.monotonic() - began < 0.2 + LATER
    assert (end.kind, end.retryable) == ("timeout", True)
    check_is_clean(end)


@pytest.mark.parametrize("fault", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("no name")])
def test_a_name_that_is_none_is_a_connection_fault(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """Also one that can't be looked up at all."""

    def getaddrinfo(*args: Any, **options: Any) -> list[Any]:
        raise fault

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    end = _end_of("http://none.example/v1")
    assert (end.kind, end.retryable) == ("connection", True)
    check_is_clean(end)


def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is not there at its first address is found at its second."""
    with Server() as server:
        port = int(server.url.split(":")[2].split("/")[0])
        infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: infos)
        provider = OpenAIProvider(KEY, f"http://two.example:{port}/v1")
        register_provider("hostile", provider)
        monkeypatch.setenv(LIVE, "yes")
        assert LLM("hostile:m").ask("tea") == "echo: tea"
        provider.close()


@pytest.mark.parametrize(
    ("greeting", "kind"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "connection"), (b"", "timeout")]
)
def test_a_server_that_speaks_no_tls_is_told(greeting: bytes, kind: str) -> None:
    """A handshake that fails, or never comes, is one typed error in time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            accepted.append(listener.accept()[0])
            accepted[0].sendall(greeting)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        began = time.monotonic()
        end = _end_of(f"https://127.0.0.1:{listener.getsockname()[1]}/v1", timeout=0.3)
        assert time.monotonic() - began < 0.3 + LATER
        thread.join(5)
        accepted[0].close()
    assert (end.kind, end.retryable) == (kind, True)
    check_is_clean(end)


def _end_of(url: str, timeout: float = 5.0) -> ProviderError:
    """The error of a sync call."""
    provider = OpenAIProvider(KEY, url)
    register_provider("hostile", provider)
    with pytest.raises(ProviderError) as caught, pytest.MonkeyPatch.context() as patch:
        patch.setenv(LIVE, "yes")
        LLM("hostile:m", attempts=1, timeout=timeout).ask("?")
    provider.close()
    return caught.value
