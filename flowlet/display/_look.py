"""From what users hold, a handle or metrics, to the view of it, with the line of source that failed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .._engine._handle import Run, record_of
from .._raised import trail_of
from ..context import RunRecord
from ..metrics import ExecutionMetrics
from ._view import View, view_of
from ._words import clean_for

_OURS = str(Path(__file__).parent.parent)
_PYTHON = str(Path(os.__file__).parent)


def view_of_run(run: Run[object] | ExecutionMetrics) -> View:
    """Make the view of a run, with secrets redacted."""
    if isinstance(run, ExecutionMetrics):
        return view_of(run, clean_for())
    return view_of(run.metrics, clean_for(), _place(record_of(run)))


def _place(record: RunRecord) -> str | None:
    """The innermost line outside of flowlet that the error of a run was raised through."""
    error = record.error
    lines = record.trail if error is None else trail_of(error)
    theirs = [line for line in lines if not line[0].co_filename.startswith(_OURS)]
    own = [line for line in theirs if not _installed(line[0].co_filename)] or theirs
    if not own:
        return None
    code, number = own[0]
    return f"{_short(code.co_filename)}:{number} in {code.co_name}"


def _installed(filename: str) -> bool:
    return "site-packages" in filename or filename.startswith(("<", _PYTHON))


def _short(filename: str) -> str:
    """Name a file as people know it: below the working directory, or the cell of a notebook."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)  # another thread may be importing it
    shell = None if get is None else get()
    cell = None if shell is None else shell.compile.format_code_name(filename)
    if cell is not None:
        return " ".join(cell)
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name
