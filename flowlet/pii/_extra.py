"""The libraries of the extra ``pii``, imported when they are first needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

from ..errors import ConfigError

__all__ = ["Check", "checked_by", "library"]

Check = Callable[[str], bool]


def library(module: str) -> Any:
    """Import *module*.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as exc:
        raise ConfigError(
            f"to find phone numbers and national ids, {module.partition('.')[0]} is needed, and is not installed.\n"
            "Install it with  pip install 'flowlet[pii]'  or ask for the kinds that do without: "
            "card, email, iban, ip, mac, sg_nric, uk_nino, us_itin, us_ssn, za_id"
        ) from exc


def checked_by(module: str, **options: bool) -> Check:
    """The check of python-stdnum's *module*, which is imported with the first number."""

    @cache
    def check() -> Check:
        return partial(library(f"stdnum.{module}").is_valid, **options)

    return lambda number: check()(number)
