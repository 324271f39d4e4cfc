"""The step ``glossary``: it looks a word up in a database, which is open while a run needs it."""

import sqlite3
from contextlib import closing

WORDS = [("step", "a function whose calls are recorded"), ("run", "one execution of a workflow")]


class Glossary:
    """Each run makes one, opens it before the first call, and closes it at its end, whatever that is.

    ``lifetime = "process"`` would keep one open until the process ends. The methods may be ``async def``, too.
    """

    def open(self) -> None:
        self.database = sqlite3.connect(":memory:", check_same_thread=False)  # calls come on any thread
        self.database.execute("create table words (word primary key, meaning)")
        self.database.executemany("insert into words values (?, ?)", WORDS)

    def __call__(self, word: str) -> str | None:
        """Tell what a word means, None where nobody knows."""
        with closing(self.database.execute("select meaning from words where word = ?", (word,))) as found:
            row = found.fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        self.database.close()
