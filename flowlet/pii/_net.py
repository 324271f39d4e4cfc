"""Finds what names a machine or a mailbox: e-mail, IP and MAC addresses."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import AddressValueError, IPv6Address

from ._match import Match

__all__ = ["find_addresses"]

# The searches begin with a plain character, which is what makes them quick; what is before it comes after.
_HOST = re.compile(r"@[^\W_][\w.-]*")
_LOCAL = re.compile(r"[\w.+%&'~-]+\Z")
_LONGEST_LOCAL = 64

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"\.(?<=[0-9]\.){_OCTET}\.{_OCTET}\.{_OCTET}(?!\w|\.\w)")
_FIRST = re.compile(rf"(?<![\w.]){_OCTET}\Z")

_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(r"[0-9A-Fa-f:]+(?:(?<=:)[0-9]+(?:\.[0-9]+)+|(?<=[0-9])(?:\.[0-9]+)+)?(?:%\w+)?")

_MAC = re.compile(
    r":(?<=\b[0-9A-Fa-f]{2}:)(?:[0-9A-Fa-f]{2}:){4}[0-9A-Fa-f]{2}(?![\w:])"
    r"|-(?<=\b[0-9A-Fa-f]{2}-)(?:[0-9A-Fa-f]{2}-){4}[0-9A-Fa-f]{2}(?![\w-])"
    r"|\.(?<=\b[0-9A-Fa-f]{4}\.)[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\w.])"
)

_AROUND = " \t\n=()[],;/'\".!?"


def find_addresses(text: str, kinds: Collection[str]) -> Iterator[Match]:
    """Find addresses of *kinds* in *text*."""
    if "email" in kinds:
        yield from _emails(text)
    if "ip" in kinds:
        yield from _ipv4(text)
        yield from _ipv6(text)
    if "mac" in kinds:
        yield from _macs(text)


def _emails(text: str) -> Iterator[Match]:
    for host in _HOST.finditer(text):
        at = host.start()
        local = _LOCAL.search(text[max(0, at - _LONGEST_LOCAL) : at])
        name = "" if local is None else local[0].lstrip(".'-&%~+")
        domain = host[0][1:].rstrip(".-_")
        if name and not name.endswith(".") and _is_domain(domain):
            yield Match("email", at - len(name), at + 1 + len(domain), 1.0)


def _is_domain(domain: str) -> bool:
    *labels, top = domain.split(".")
    well = all(label and "_" not in label and label.strip("-") == label for label in labels)
    return bool(labels) and well and ((len(top) > 1 and top.isalpha()) or top[:4].lower() == "xn--")


def _ipv4(text: str) -> Iterator[Match]:
    for rest in _IPV4.finditer(text):
        first = _FIRST.search(text, max(0, rest.start() - 4), rest.start())
        if first is not None:
            yield Match("ip", first.start(), rest.end(), 0.95)


def _ipv6(text: str) -> Iterator[Match]:
    found = _COLONS.search(text)
    while found is not None:
        start, before = _beginning(text, found.start())
        whole = _IPV6.match(text, start)
        end = found.end() if whole is None else max(whole.end(), found.end())
        if whole is not None and (match := _checked(text, start, before, whole[0])) is not None:
            yield match
        found = _COLONS.search(text, end)


def _beginning(text: str, colon: int) -> tuple[int, str]:
    """Where the address begins that has its first colon at *colon*, and what stands before it."""
    start = colon
    while start and text[start - 1].isalnum() and colon - start < 6:
        start -= 1
    label = text[start:colon]
    if label.isalpha() and label.strip("abcdefABCDEF"):  # as in ip:2001:db8::1
        return colon + 1, " "
    return start, text[max(0, start - 1) : start]


def _checked(text: str, start: int, before: str, address: str) -> Match | None:
    if address.endswith(":") and not address.endswith("::"):
        address = address[:-1]
        after = ""
    else:
        after = text[start + len(address) : start + len(address) + 1]
    port = after == ":" and "." in address
    if before.isalnum() or before in (":", ".", "_") or after.isalnum() or (after in (":", "_") and not port):
        return None
    if address == "::" and (before not in _AROUND or after not in _AROUND):
        return None  # a sign of a programming language
    if len(address) < 5 and (after == "-" or (before == "[" and text[start - 2 : start - 1].isalnum())):
        return None  # a slice of Python, as in x[::2]
    if "::" not in address and address.count(":") < 6:
        return None  # a time, most often
    try:
        IPv6Address(address)
    except AddressValueError:
        return None
    return Match("ip", start, start + len(address), 0.95)


def _macs(text: str) -> Iterator[Match]:
    for rest in _MAC.finditer(text):
        start = rest.start() - (4 if rest[0][0] == "." else 2)
        if text[start - 1 : start] not in (":", "-", "."):
            yield Match("mac", start, rest.end(), 0.95)
