"""What is done around a fork, on systems that have forks."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["at_fork"]


def at_fork(**hooks: Callable[[], object]) -> None:
    """Register *hooks*: ``before``, ``after_in_parent``, ``after_in_child``. Windows has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)
