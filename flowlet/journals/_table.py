"""Tables of sealed rows: a name, a body, and a digest that proves that the body is that name's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from attrs import frozen

from ._faults import damaged
from ._sealed import data, facts, packed, proven, seal, text

__all__ = ["Table"]


@frozen
class Table:
    """The table *name* of the journal at *path*, whose rows are each a *what*."""

    path: Path
    name: str
    what: str

    def ground(self, key: bytes) -> bytes:
        """Tell what the body of *key* stands on."""
        return seal(self.name.encode(), key)

    def get(self, db: Connection, key: str) -> dict[str, Any] | None:
        """Read the body of *key*, if there is one.

        Raises:
            JournalError: it is not as it was written.
        """
        name = data(key)
        row = db.execute(self._sql("SELECT digest, body FROM {} WHERE name = ?"), (name,)).fetchone()
        if row is None:
            return None
        found, body = row
        if not self._proven(name, found, body):
            raise damaged(self.path, self.shown(name))
        return facts(body)

    def all(self, db: Connection) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Read all bodies that are as they were written, by name, and say which are not."""
        rows = db.execute(self._sql("SELECT name, digest, body FROM {}")).fetchall()
        whole = {text(name): facts(body) for name, found, body in rows if self._proven(name, found, body)}
        return whole, [self.shown(name) for name, found, body in rows if not self._proven(name, found, body)]

    def put(self, db: Connection, key: str, facts: Mapping[str, object]) -> None:
        """Write the body of *key*, in place of an older one."""
        name, body = data(key), packed(facts)
        row = name, seal(self.ground(name), body), body
        db.execute(self._sql("INSERT OR REPLACE INTO {} VALUES (?, ?, ?)"), row)

    def ended(self, db: Connection, is_over: Callable[[dict[str, Any]], bool]) -> list[tuple[object, object]]:
        """Tell name and digest of the rows whose body *is_over*, and of those that are damaged."""
        rows = db.execute(self._sql("SELECT name, digest, body FROM {}"))
        return [row[:2] for row in rows if not self._proven(*row) or is_over(facts(row[2]))]

    def drop_as_told(self, db: Connection, rows: Iterable[tuple[object, object]]) -> None:
        """Remove the rows of these names, where they still have the digest told with each."""
        db.executemany(self._sql("DELETE FROM {} WHERE name = ? AND digest IS ?"), rows)

    def drop(self, db: Connection, key: str) -> None:
        """Remove the row of *key*, damaged or not."""
        db.execute(self._sql("DELETE FROM {} WHERE name = ?"), (data(key),))

    def _sql(self, statement: str) -> str:
        return statement.format(self.name)

    def _proven(self, name: object, found: object, body: object) -> bool:
        return isinstance(name, bytes) and proven(body, self.ground(name), found)

    def shown(self, name: object) -> str:
        """Say which row that of *name* is."""
        return f"{self.what} {name.decode('utf-8', 'replace') if isinstance(name, bytes) else name!r}"
