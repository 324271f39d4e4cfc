"""The live tree, drawn with rich: runs that have ended stay above, those that go on change below."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..events import Event, RunFinished
from ._text import ASCII, UNICODE, Line, lines_of
from ._tracker import Tracked, Tracker
from ._view import view_of
from ._words import clean_for

STYLES = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "timeout": "yellow",
    "cancelled": "yellow",
    "pending": "dim",
    "bold": "bold",
    "dim": "dim",
}
WIDEST = 120


class Tree:
    """A painter of trees."""

    def __init__(self, stream: TextIO) -> None:
        console = Console(
            file=stream, force_terminal=True, force_jupyter=False, highlight=False, markup=False
        )
        self._console = console
        self._clean = clean_for(console.encoding)
        self._glyphs = UNICODE if console.encoding.startswith("utf") else ASCII
        self._tracker = Tracker()
        self._frame = 0
        # What is printed meanwhile must go above the tree, unless it goes to a file: then it stays what it is.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start()

    def show(self, events: Iterable[Event]) -> None:
        """Print the trees of runs that have ended, and draw those that go on anew."""
        self._frame += 1
        for event in events:
            run = self._tracker.apply(event)
            if isinstance(event, RunFinished) and run is not None and run.info.id in self._tracker.roots:
                self._tracker.forget(run)
                self._print(run)
        self._live.update(self._going(), refresh=True)

    def close(self) -> None:
        """Print what still goes on as it is now, and give the terminal back."""
        self._live.update(Text(), refresh=True)
        for run in self._tracker.roots.values():
            self._print(run)
        self._live.stop()

    def _print(self, run: Tracked) -> None:
        self._console.print(_text(self._lines(run, None)), soft_wrap=True)

    def _lines(self, run: Tracked, frame: int | None) -> list[Line]:
        width = max(10, min(self._console.width - 1, WIDEST))
        return lines_of(view_of(run.metrics(time.time()), self._clean), width, self._glyphs, frame)

    def _going(self) -> Text:
        """The newest runs, as many as fit; of one that does not fit, its head and its newest lines."""
        room = max(2, self._console.height - 1)
        runs = list(self._tracker.roots.values())
        shown: list[list[Line]] = []
        while runs and room > 2:
            lines = _shortened(self._lines(runs.pop(), self._frame), room)
            room -= len(lines)
            shown.insert(0, lines)
        more: list[Line] = [[(f"and {len(runs)} more runs", "dim")]] if runs else []
        return _text([*more, *(line for lines in shown for line in lines)])


def _shortened(lines: list[Line], room: int) -> list[Line]:
    if len(lines) <= room:
        return lines
    tail = lines[len(lines) - (room - 2) :]
    hidden = len(lines) - 1 - len(tail)
    return [lines[0], [(f"   and {hidden} lines before", "dim")], *tail]


def _text(lines: Sequence[Line]) -> Text:
    text = Text(no_wrap=True, overflow="crop", end="")
    for number, line in enumerate(lines):
        text.append("\n" if number else "")
        for piece, style in line:
            text.append(piece, STYLES.get(style))
    return text
