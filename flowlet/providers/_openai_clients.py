"""The SDK's clients: one for the process, for sync calls, and one for each event loop.

Loading this module imports openai, which costs up to a second: it is done with the first call.
State: the sync clients of the process (:class:`_Shared`) and the async clients of each event loop.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import anyio
import httpx2
from anyio.lowlevel import RunVar
from openai import AsyncOpenAI, OpenAI

from .._forks import at_fork
from ..errors import ProviderError
from ..settings import process
from ._deadline import PunctualBackend
from ._openai_account import Account
from ._openai_body import achunks, chunks

__all__ = ["Rejected", "async_client", "client", "close", "warm"]

_ERROR_BYTES = 64 * 1024
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=30.0)
_BROKEN = (httpx2.NetworkError, httpx2.ProtocolError, ProviderError)  # not timeouts


class Rejected(Exception):
    """A response whose status is no success; read here, since the SDK would read it without a limit."""

    def __init__(self, response: httpx2.Response, body: bytes) -> None:
        super().__init__(response.status_code)
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.body = body


class _Shared:
    """The sync clients of this process, changed under the lock only. A forked child starts another one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clients: dict[Account, OpenAI] = {}


_shared = [_Shared()]  # the parent's stays in the list: a child must not close the parent's connections
at_fork(after_in_child=lambda: _shared.append(_Shared()))

_Kept = tuple[AsyncOpenAI, AsyncGenerator[None]]
_of_loop: RunVar[dict[Account, _Kept]] = RunVar("flowlet.openai.clients")


def warm() -> None:
    """Do the slow part that all clients share: read the certificates."""
    _tls()


def client(account: Account) -> OpenAI:
    """Give the process's client for *account*."""
    shared = _shared[-1]
    found = shared.clients.get(account)
    if found is None:
        with shared.lock:
            found = shared.clients.get(account)
            if found is None:
                found = shared.clients[account] = _new_client(account)
    return found


def close(account: Account) -> None:
    """Close the process's client for *account*, if there is one; a later call makes another."""
    shared = _shared[-1]
    with shared.lock:
        found = shared.clients.pop(account, None)
    if found is not None:
        found.close()


def _close_all() -> None:
    for account in list(_shared[-1].clients):
        close(account)


process.at_end(_close_all)


async def async_client(account: Account) -> AsyncOpenAI:
    """Give the client of this event loop for *account*. It is closed when the loop ends."""
    clients = _of_loop.get(None)
    if clients is None:
        clients = dict[Account, _Kept]()
        _of_loop.set(clients)
    if account not in clients:
        made = _new_async_client(account)
        keeper = _keep(made, clients, account)
        clients[account] = (made, keeper)
        await anext(keeper)  # from now on the loop knows it
    return clients[account][0]


async def _keep(made: AsyncOpenAI, clients: dict[Account, _Kept], account: Account) -> AsyncGenerator[None]:
    """Close the client with the loop: asyncio and trio both end the async generators that are left."""
    try:
        yield
    finally:
        clients.pop(account, None)
        with anyio.CancelScope(shield=True):
            await made.close()


def _new_client(account: Account) -> OpenAI:
    made = httpx2.Client(verify=_tls(), limits=_LIMITS, event_hooks={"response": [_refuse]})
    transports: list[Any] = [vars(made).get("_transport"), *vars(made).get("_mounts", {}).values()]
    for transport in transports:  # httpx2 has no public place for a network backend
        pool = getattr(transport, "_pool", None)
        if hasattr(pool, "_network_backend"):
            vars(pool)["_network_backend"] = PunctualBackend(vars(pool)["_network_backend"])
    return OpenAI(http_client=made, **_identity(account))


def _new_async_client(account: Account) -> AsyncOpenAI:
    http = httpx2.AsyncClient(verify=_tls(), limits=_LIMITS, event_hooks={"response": [_arefuse]})
    made = AsyncOpenAI(http_client=http, **_identity(account))
    vars(made)["_platform"] = (
        "Unknown"  # a header; to find it out, the SDK would start a thread for each client
    )
    return made


def _identity(account: Account) -> dict[str, Any]:
    return {
        "api_key": account.key,
        "base_url": account.base_url,
        "organization": account.organization,
        "project": account.project,
        "max_retries": 0,
    }


@cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _refuse(response: httpx2.Response) -> None:
    if not response.is_success:
        body = b""
        with suppress(*_BROKEN):
            for chunk in chunks(response, _ERROR_BYTES):
                body += chunk
        raise Rejected(response, body)


async def _arefuse(response: httpx2.Response) -> None:
    if not response.is_success:
        body = b""
        with suppress(*_BROKEN):
            async for chunk in achunks(response, _ERROR_BYTES):
                body += chunk
        raise Rejected(response, body)
