"""One call over HTTP: sent, read up to its limits, and what went wrong told as facts.

Loading this module imports openai, which costs up to a second: it is done with the first call.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

import anyio
import httpx2
import openai
from attrs import evolve
from openai._types import RequestOptions

from ..errors import ProviderError
from ..messages import Request
from . import _openai_faults as faults
from ._deadline import Deadline
from ._openai_account import Account
from ._openai_body import ENCODING, achunks, chunks
from ._openai_clients import Rejected, async_client, client
from ._openai_wire import AnswerReader, Reader, StreamReader, encode

__all__ = ["Call", "fault_of"]

_PATH = "/chat/completions"
_CONNECT = 15.0  # seconds
_DRAIN = 1.0  # seconds to wait for the end of a body whose answer is complete
_WRAPPING = 16  # times its text that a stream may be long: each word comes wrapped in some 300 bytes
_TIMEOUTS = (openai.APITimeoutError, httpx2.TimeoutException, TimeoutError)
_UNSENDABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL)
_UNREADABLE = (httpx2.DecodingError, openai.APIResponseValidationError)
_CONNECTION = (openai.APIConnectionError, httpx2.TransportError, OSError, anyio.BrokenResourceError)


class Call:
    """One call. As a context manager it catches what goes wrong in its block, to be raised after it.

    There, an error has no ``__context__``: those of the SDK carry the key in the headers of their request.
    State: the deadline, running from the start, and the error, set by the block that failed.
    """

    def __init__(self, account: Account, request: Request, limit: int, *, stream: bool = False) -> None:
        self.deadline = Deadline(request.timeout)
        self._account = account
        self._request = request
        self._limit = limit
        self._stream = stream
        self._error: ProviderError | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(exc, Exception):  # cancellation is no error
            return False
        self._error = fault_of(exc, self._account, self._request)
        return True

    def fault(self) -> ProviderError:
        """Give what the block before this line caught."""
        assert self._error is not None
        return self._error

    def send(self) -> httpx2.Response:
        """Send the request, and give the response with its body unread. Close it."""
        return client(self._account).post(
            _PATH, cast_to=httpx2.Response, content=self._content(), options=self._options()
        )

    async def asend(self) -> httpx2.Response:
        """Send the request, and give the response with its body unread. Close it."""
        sdk = await async_client(self._account)
        return await sdk.post(
            _PATH, cast_to=httpx2.Response, content=self._content(), options=self._options()
        )

    def chunks(self, response: httpx2.Response) -> Iterator[bytes]:
        """Read the body as it comes."""
        return chunks(response, self._most(response))

    def achunks(self, response: httpx2.Response) -> AsyncGenerator[bytes]:
        """Read the body as it comes; the response is closed with the generator."""
        return achunks(response, self._most(response))

    def _most(self, response: httpx2.Response) -> int:
        return self._limit if _is_whole(response) or not self._stream else self._limit * _WRAPPING

    def reader(self, response: httpx2.Response) -> Reader:
        """Give what reads the body of a streamed answer."""
        about = self.request_id_of(response), self._request.model
        return AnswerReader(*about) if _is_whole(response) else StreamReader(*about, self._limit)

    def request_id_of(self, response: httpx2.Response) -> str | None:
        """Read the id that the server gave the request."""
        return faults.one_line(response.headers.get("x-request-id"), 200) or None

    def drain(self, rest: Iterator[bytes]) -> None:
        """Read what comes after the answer, for a moment, so that the connection can be used again."""
        self.deadline.hurry(_DRAIN)
        with suppress(httpx2.HTTPError, ProviderError):
            for _ in rest:
                pass

    async def adrain(self, rest: AsyncGenerator[bytes]) -> None:
        """Read what comes after the answer, for a moment, so that the connection can be used again."""
        left = min(_DRAIN, self.deadline.left())
        with suppress(httpx2.HTTPError, ProviderError), anyio.move_on_after(left):
            async for _ in rest:
                pass

    def _content(self) -> bytes:
        return encode(self._request, official=self._account.official, stream=self._stream)

    def _options(self) -> RequestOptions:
        timeout = httpx2.Timeout(self.deadline, connect=Deadline(min(_CONNECT, self.deadline)))
        headers = {"X-Stainless-Raw-Response": "stream", "Accept-Encoding": ENCODING}  # "stream": body unread
        return {"headers": headers, "timeout": timeout}


def _is_whole(response: httpx2.Response) -> bool:
    """Whether this is a whole answer, even where a stream was asked for."""
    content_type: str = response.headers.get("content-type", "")
    return content_type.startswith("application/json")


def fault_of(exc: Exception, account: Account, request: Request) -> ProviderError:
    """Tell as facts what went wrong in a call, without the key."""
    error = _fault(exc, account, request)
    return evolve(faults.redacted(error, account.secret), provider="openai")


def _fault(exc: Exception, account: Account, request: Request) -> ProviderError:
    if isinstance(exc, ProviderError):
        return exc
    if isinstance(exc, Rejected):
        return faults.of_status(exc.status, exc.headers, exc.body, model=request.model, place=account.place)
    if isinstance(exc, openai.APIStatusError):  # read by the SDK itself, which our hook prevents
        return _rejected_by_sdk(exc, account, request)
    cause = exc.__cause__ if isinstance(exc, openai.APIConnectionError) and exc.__cause__ else exc
    told = faults.one_line(f"{type(cause).__name__}: {cause}").removesuffix(":")
    if isinstance(exc, _TIMEOUTS):
        message = (
            f"{account.place} did not give its whole answer in time ({told}; timeout {request.timeout:g} s)"
        )
        return ProviderError("timeout", message, retryable=True)
    if isinstance(exc, _UNREADABLE):
        return faults.garbage(f"the answer can't be decoded ({told})")
    if isinstance(cause, _UNSENDABLE):
        return ProviderError("bad_request", f"the request can't be sent to {account.place} ({told})")
    if isinstance(exc, _CONNECTION):
        return ProviderError(
            "connection", f"the connection to {account.place} failed ({told})", retryable=True
        )
    return ProviderError("other", told)


def _rejected_by_sdk(exc: openai.APIStatusError, account: Account, request: Request) -> ProviderError:
    body: Any = {"error": exc.body if exc.body is not None else str(exc)}
    content = json.dumps(body, default=str).encode()
    headers = exc.response.headers
    return faults.of_status(exc.status_code, headers, content, model=request.model, place=account.place)
