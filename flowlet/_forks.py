"""What is done around a fork, on systems that have forks, and which process this is."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["at_fork", "this_process"]

_process = object()


def this_process() -> object:
    """What stands for this process, and not for the one that it was forked from; to ask the system takes longer."""
    return _process


def at_fork(**hooks: Callable[[], object]) -> None:
    """Register *hooks*: ``before``, ``after_in_parent``, ``after_in_child``. Windows has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def _begin() -> None:
    global _process
    _process = object()


at_fork(after_in_child=_begin)
