"""The view as lines of text, each a sequence of pieces with a style; they fit any width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen
from rich.cells import cell_len, chop_cells, set_cell_size

from ..metrics import RunState
from ._view import Node, View
from ._words import STATE_WORDS, cost_of, counted, time_of, tokens_of, word_of

SHORTEST_NAME = 12
"""To how many cells a name is cut so that its state fits."""

Piece = tuple[str, str]
"""A text and its style: a state, ``bold``, ``dim`` or none."""

Line = list[Piece]


@frozen
class Glyphs:
    """The characters that a tree is drawn with, by state and by place."""

    marks: dict[str, str]
    spinner: str
    branch: str
    corner: str
    bar: str
    times: str
    ellipsis: str


UNICODE = Glyphs(
    {"pending": "○", "running": "●", "completed": "✓", "failed": "✗", "cancelled": "⊘", "timeout": "✗"},
    "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    "├─ ",
    "└─ ",
    "│  ",
    "×",
    "…",
)
ASCII = Glyphs(
    {"pending": ".", "running": "*", "completed": "+", "failed": "x", "cancelled": "-", "timeout": "x"},
    "|/-\\",
    "|- ",
    "`- ",
    "|  ",
    "x",
    "~",
)


@frozen
class _Row:
    """A node on its way to a line: what stands on the left, and the cells of the columns."""

    left: Line
    cells: tuple[str, str, str]
    below: str
    error: str | None


def lines_of(view: View, width: int = 100, glyphs: Glyphs = UNICODE, frame: int | None = None) -> list[Line]:
    """Draw the tree of a run; *frame* counts the pictures of a spinner."""
    rows = list(_rows(view.root, glyphs, frame, "", ""))
    columns = _columns(rows, width)
    room = width - sum(size + 2 for size in columns)
    widest = max(cell_len(_plain(row.left)) for row in rows)
    size = max(1, min(room, widest))
    lines: list[Line] = []
    for row in rows:
        lines.append(_fitted(row.left, size, glyphs.ellipsis) + _cells(row, columns))
        lines += _error_lines(row, width, glyphs)
    return lines


def text_of(view: View, width: int = 100) -> str:
    """Draw the tree of a run as plain text."""
    return "\n".join(_plain(line).rstrip() for line in lines_of(view, width))


def _plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def _rows(node: Node, glyphs: Glyphs, frame: int | None, lead: str, below: str) -> Iterator[_Row]:
    inner = below + (glyphs.bar if node.children else "   ")
    mark = glyphs.marks[node.state]
    if node.state == "running" and frame is not None:
        mark = glyphs.spinner[frame % len(glyphs.spinner)]
    left: Line = [(lead, "dim"), (f"{mark} ", node.state), (node.name, "bold" if node.kind == "run" else "")]
    cells = (time_of(node.duration), tokens_of(node.usage), cost_of(node.usage))
    yield _Row(left + _notes(node, glyphs, top=not lead), cells, inner, node.error)
    for child in node.children:
        last = child is node.children[-1]
        turn, bar = (glyphs.corner, "   ") if last else (glyphs.branch, glyphs.bar)
        yield from _rows(child, glyphs, frame, below + turn, below + bar)


def _notes(node: Node, glyphs: Glyphs, *, top: bool) -> Line:
    notes: Line = []
    counts = node.counts
    if node.members:
        notes.append((f" {glyphs.times}{len(node.members)}", "dim"))
        notes += _states(counts)
        notes += [
            (f"  {number} {word_of(node.state, source)}", "dim") for source, number in node.sources.items()
        ]
    elif top or node.reused is not None or node.state not in ("completed", "running"):
        notes.append((f"  {word_of(node.state, node.reused)}", node.state))
    if node.retries:
        going = node.state == "running" and not node.members
        text = f"attempt {node.attempts}" if going else counted(node.retries, "retry", "retries")
        notes.append((f"  {text}", "timeout"))
    return notes


def _states(counts: Mapping[RunState, int]) -> Line:
    """How many calls are in which state, unless all are done: ``7 done 2 running``, ``running``."""
    if len(counts) == 1:
        (state,) = counts
        return [] if state == "completed" else [(f"  {STATE_WORDS[state]}", state)]
    texts = [(f" {number} {STATE_WORDS[state]}", state) for state, number in counts.items()]
    return [(" ", ""), *texts]


def _columns(rows: Sequence[_Row], width: int) -> tuple[int, int, int]:
    """The widths of time, tokens and cost; what would take more than a third of the line is left out."""
    time, tokens, cost = (max(len(row.cells[column]) for row in rows) for column in range(3))
    for sizes in ((time, tokens and tokens + 4, cost), (time, 0, cost)):
        if sum(size + 2 for size in sizes if size) <= width // 3:
            return sizes
    return (time if time + 2 <= width // 2 else 0), 0, 0


def _cells(row: _Row, columns: tuple[int, int, int]) -> Line:
    time, tokens, cost = row.cells
    texts = (time, f"{tokens} tok" if tokens else "", cost)
    return [(f"  {text:>{size}}", "dim") for text, size in zip(texts, columns, strict=True) if size]


def _fitted(line: Line, width: int, ellipsis: str) -> Line:
    """Cut or fill *line* to *width* cells: first the beginning of its branch, then its name, then its end."""
    (lead, dim), mark, (name, bold), *notes = line
    over = cell_len(_plain(line)) - width
    if over > 0 and len(lead) > width // 3:
        cut = min(over, len(lead) - width // 3)
        lead = ellipsis + lead[cut + 1 :]
        over -= cut
    if over > 0 and cell_len(name) > SHORTEST_NAME:
        name = _cut(name, max(SHORTEST_NAME, cell_len(name) - over), ellipsis)
    fitted: Line = []
    for text, style in ((lead, dim), mark, (name, bold), *notes):
        fitted.append((_cut(text, width, ellipsis), style))
        width -= cell_len(fitted[-1][0])
    return [*fitted, (" " * width, "")]


def _cut(text: str, width: int, ellipsis: str) -> str:
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1) + ellipsis if width else ""


def _error_lines(row: _Row, width: int, glyphs: Glyphs) -> list[Line]:
    if row.error is None:
        return []
    lead = row.below[-(width // 3) :]
    room = max(4, width - len(lead))
    texts = textwrap.wrap(row.error, room, max_lines=3, placeholder=f" {glyphs.ellipsis}")
    pieces = [part for text in texts for part in chop_cells(text, room)]
    return [[(lead, "dim"), (piece, "failed")] for piece in pieces[:3]]
