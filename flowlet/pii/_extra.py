"""The libraries of the extra ``pii``: which kinds need them, and their import when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import ConfigError

__all__ = ["Check", "checked_by", "library", "require"]

Check = Callable[[str], bool]

_OURS = {"email", "card", "iban", "ip", "mac", "us_ssn", "us_itin", "uk_nino", "sg_nric", "za_id"}
_PHONES, _NUMBERS = "phonenumbers", "stdnum"


def require(kinds: Collection[str] | None) -> None:
    """Check that what *kinds* need is installed; None means all kinds.

    Raises:
        ConfigError: it is not. Otherwise the first doubtful number would tell, some day.
    """
    needed = {_PHONES, _NUMBERS} if kinds is None else {_needed(kind) for kind in kinds} - {None}
    missing = sorted(str(name) for name in needed if not _is_there(str(name)))
    if missing:
        raise ConfigError(
            f"to find phone numbers and national ids, {' and '.join(missing)} must be installed, and is not.\n"
            "Install it with  pip install 'flowlet[pii]'  or ask for kinds that do without: "
            + ", ".join(sorted(_OURS))
        )


def _needed(kind: str) -> str | None:
    return _PHONES if kind == "phone" else None if kind in _OURS else _NUMBERS


@cache
def _is_there(module: str) -> bool:
    return find_spec(module) is not None


@cache
def library(module: str) -> Any:
    """Import *module*, which :func:`require` has found."""
    return import_module(module)


def checked_by(module: str, **options: bool) -> Check:
    """The check of python-stdnum's *module*, which is imported with the first number."""

    @cache
    def check() -> Check:
        return partial(library(f"{_NUMBERS}.{module}").is_valid, **options)

    return lambda number: check()(number)
