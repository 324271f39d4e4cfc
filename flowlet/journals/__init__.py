"""Stores of journals: a file of SQLite, and memory for tests. Each is a ``Journal`` of the protocols."""

from __future__ import annotations

from ._memory import MemoryJournal
from ._sqlite import SQLiteJournal

__all__ = ["MemoryJournal", "SQLiteJournal"]
