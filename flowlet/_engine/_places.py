"""Where runs are in journals: below a run that is journalled, or as the outermost one of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..context import Frame, RunRecord
from ..settings import process
from ..specs import Spec
from ._memo import Place, key_at, memo_of_child, memo_of_root
from ._session import OWN, Session
from ._writer import Journals


def root_place(
    run: RunRecord, fn: Callable[..., Any], spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Place:
    """Give *run* a place of its own in the journal that its options or the settings name.

    Raises:
        InputError: its inputs can't be written.
        JournalError: the journal can't be opened.
    """
    settings = process.settings
    where = spec.run.journal if spec.run.journal is not None else settings.journal
    session = Session(run, process.of(Journals).of(where), spec.run.changed_code or settings.changed_code)
    return Place(session, OWN, memo_of_root(session, run, fn, args, kwargs))


def child_place(
    run: RunRecord,
    fn: Callable[..., Any],
    spec: Spec | None,
    frame: Frame,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Place:
    """Give the child *run* a place below *frame*; of one of a plain function no outcome is kept.

    Raises:
        InputError: the arguments don't tell it from others.
    """
    assert frame.run is not None
    assert frame.run.place is not None
    session = frame.run.place.session
    memo = None if spec is None else memo_of_child(run.workflow, fn, frame, args, kwargs)
    return Place(session, key_at(frame) if memo is None else memo.key, memo)
