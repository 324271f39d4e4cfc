"""Whom to ask and as whom: address, key and organisation, checked before anything is sent."""

from __future__ import annotations

import os
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import field, frozen

from .._live_calls import check_live
from .._value import address
from ..errors import ConfigError
from ..settings import process

__all__ = ["Account"]

_OPENAI = "https://api.openai.com/v1"
_NO_KEY = "no-key-needed"


@frozen
class Account:
    """An address and the credentials for it. Its hash is what clients are shared by."""

    base_url: str = field(repr=address)
    key: str = field(repr=False)
    organization: str | None = None
    project: str | None = None

    @classmethod
    def of(
        cls,
        key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
    ) -> Account:
        """Fill what is None from the environment, as OpenAI's own tools do.

        Raises:
            ConfigError: the key is missing at OpenAI's own address, or something can't be sent as it is.
        """
        key = key or os.environ.get("OPENAI_API_KEY")
        if key:
            process.redactor.register(key)
        url = base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
        if "?" in url or "@" in url:
            process.redactor.register_address(url)
        return _account(
            key,
            url,
            organization or os.environ.get("OPENAI_ORG_ID"),
            project or os.environ.get("OPENAI_PROJECT_ID"),
        )

    def check_live(self) -> None:
        """Let a test call this machine alone, unless it was asked for otherwise.

        Raises:
            ConfigError: pytest runs without --flowlet-live, or there is no key, and the host is another.
        """
        if not _is_loopback(self.base_url):
            check_live(self.place, key=self.secret is not None, also="set OPENAI_API_KEY and ")

    @property
    def official(self) -> bool:
        """Whether this is OpenAI itself (a regional address too), not a compatible server."""
        return _is_official(self.base_url)

    @property
    def secret(self) -> str | None:
        """The key, where it is one."""
        return None if self.key == _NO_KEY else self.key

    @property
    def place(self) -> str:
        """The address as it may be shown: without a query, where some servers want a key."""
        return self.base_url.partition("?")[0]


@lru_cache(maxsize=64)
def _account(key: str | None, base_url: str, organization: str | None, project: str | None) -> Account:
    url, token = base_url.strip(), (key or "").strip()
    faults = [
        *_address_faults(url),
        *_header_faults(api_key=token, organization=organization, project=project),
    ]
    if not faults and not token and _is_official(url):
        faults = [
            "the API key is missing: set OPENAI_API_KEY, or pass OpenAIProvider(api_key=...)",
            "for a compatible server that needs no key, set OPENAI_BASE_URL; any key will do there",
        ]
    if faults:
        raise ConfigError("the openai provider can't be used as it is configured:", tuple(faults))
    return Account(url, token or _NO_KEY, organization or None, project or None)


def _address_faults(base_url: str) -> list[str]:
    try:
        url = urlsplit(base_url)
        fine = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        url, fine = None, False
    if url is None or not fine:
        return [f"base_url (OPENAI_BASE_URL) is no http:// or https:// address; expected one like {_OPENAI}"]
    if "@" in url.netloc:  # the HTTP library would send it in place of the key
        return ["base_url (OPENAI_BASE_URL) holds a user or password; set OPENAI_API_KEY instead"]
    return []


def _header_faults(**values: str | None) -> list[str]:
    return [
        f"{name} holds characters that an HTTP header can't carry; expected printable ASCII"
        for name, value in values.items()
        if value and not (value.isascii() and value.isprintable())
    ]


def _is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_official(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")
