"""OpenAI's chat completions, and those of every compatible server: sync and async, whole or in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING

import anyio
from attrs import field, frozen

from .._value import address
from ..messages import Completion, Delta, Request
from ..protocols import StructuredOutput
from ._openai_account import Account
from ._openai_wire import Reader, completion_of

if TYPE_CHECKING:
    import httpx2

    from ._openai_call import Call

__all__ = ["OpenAIProvider"]


@frozen
class OpenAIProvider:
    """OpenAI, or a compatible server at *base_url*.

    What is None is read from the environment at each call: ``OPENAI_API_KEY``, ``OPENAI_BASE_URL``,
    ``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID``. A server other than OpenAI's may need no key. Answers of
    more than *max_bytes*, decompressed, are refused; a stream, which wraps each word, may be 16 times as
    long. Connections are shared by all providers of the same account: by the process for sync calls, by
    the event loop (and closed with it) for async ones.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = field(default=None, repr=address)
    organization: str | None = None
    project: str | None = None
    max_bytes: int = field(default=4 * 2**20, kw_only=True)

    name = "openai"
    keeps_time = True
    live = None  # some of its calls are: it checks each address itself
    structured_output: StructuredOutput = field(default="json_schema", kw_only=True, repr=False)

    def load(self) -> None:
        """Import the SDK and read the certificates: up to a second, which the first call takes otherwise."""
        from ._openai_clients import warm

        warm()

    def close(self) -> None:
        """Close the connections that sync calls of this account share; a later call opens new ones."""
        from ._openai_clients import close

        close(self._account())

    def complete(self, request: Request, /) -> Completion:
        """Answer *request*.

        Raises:
            ConfigError: there is no API key, or the address is none.
            ProviderError: whatever else went wrong, as facts.
        """
        call = self._call(request)
        with call:
            with closing(call.send()) as response:
                body = b"".join(call.chunks(response))
            return completion_of(body, call.request_id_of(response), request.model)
        raise call.fault()

    async def acomplete(self, request: Request, /) -> Completion:
        """Answer *request*.

        Raises:
            ConfigError: there is no API key, or the address is none.
            ProviderError: whatever else went wrong, as facts.
        """
        call = self._call(request)
        with call:
            with anyio.fail_after(call.deadline.left()):
                async with aclosing(await call.asend()) as response:
                    body = b"".join([chunk async for chunk in call.achunks(response)])
            return completion_of(body, call.request_id_of(response), request.model)
        raise call.fault()

    @contextmanager
    def stream(self, request: Request, /) -> Generator[Iterator[Delta]]:
        """Answer *request* in pieces; leaving the context closes the connection.

        The deadline counts the time that the caller takes too, but strikes only while waiting for the server.

        Raises:
            ConfigError: there is no API key, or the address is none.
            ProviderError: whatever else went wrong, as facts; while iterating, too.
        """
        call = self._call(request, stream=True)
        with closing(_opened(call)) as response:
            yield _deltas(call, response)

    @asynccontextmanager
    async def astream(self, request: Request, /) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Answer *request* in pieces; leaving the context closes the connection.

        The deadline counts the time that the caller takes too, but strikes only while waiting for the server.

        Raises:
            ConfigError: there is no API key, or the address is none.
            ProviderError: whatever else went wrong, as facts; while iterating, too.
        """
        call = self._call(request, stream=True)
        async with aclosing(await _aopened(call)) as response, aclosing(_adeltas(call, response)) as deltas:
            yield deltas

    def _call(self, request: Request, *, stream: bool = False) -> Call:
        account = self._account()
        account.check_live()
        from ._openai_call import Call

        return Call(account, request, self.max_bytes, stream=stream)

    def _account(self) -> Account:
        return Account.of(self.api_key, self.base_url, self.organization, self.project)


def _opened(call: Call) -> httpx2.Response:
    with call:
        return call.send()
    raise call.fault()


async def _aopened(call: Call) -> httpx2.Response:
    with call, anyio.fail_after(call.deadline.left()):
        return await call.asend()
    raise call.fault()


def _deltas(call: Call, response: httpx2.Response) -> Iterator[Delta]:
    reader, chunks = call.reader(response), call.chunks(response)
    while not reader.ended:
        yield from _step(call, reader, chunks)
    call.drain(chunks)


def _step(call: Call, reader: Reader, chunks: Iterator[bytes]) -> list[Delta]:
    with call:
        call.deadline.check()
        chunk = next(chunks, None)
        return reader.end() if chunk is None else reader.feed(chunk)
    return reader.broken(call.fault())


async def _adeltas(call: Call, response: httpx2.Response) -> AsyncGenerator[Delta]:
    reader = call.reader(response)
    async with aclosing(call.achunks(response)) as chunks:
        while not reader.ended:
            for delta in await _astep(call, reader, chunks):
                yield delta
        await call.adrain(chunks)


async def _astep(call: Call, reader: Reader, chunks: AsyncIterator[bytes]) -> list[Delta]:
    with call, anyio.fail_after(call.deadline.left()):
        chunk = await anext(chunks, None)
        return reader.end() if chunk is None else reader.feed(chunk)
    return reader.broken(call.fault())
