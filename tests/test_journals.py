"""Stores of journals keep what they are given, in one process and across many."""

from pathlib import Path

import pytest

from flowlet.journals import MemoryJournal, SQLiteJournal
from flowlet.testing import check_journal


def test_memory_keeps_to_the_protocol() -> None:
    """The store of tests."""
    check_journal(MemoryJournal)


def test_sqlite_keeps_to_the_protocol(tmp_path: Path) -> None:
    """The store of everybody else; each time a file of its own."""
    numbers = iter(range(100))
    check_journal(lambda: SQLiteJournal(tmp_path / f"{next(numbers)}.db"))
