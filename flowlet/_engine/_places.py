"""Where runs are in journals: below a run that is journalled, or as the outermost one of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .._arguments import bound, read_back
from .._codec import to_json
from .._signature import signature_of
from ..context import Frame, Lane, RunRecord
from ..errors import DefinitionError, InputError
from ..protocols import Journal
from ..settings import process
from ..specs import Spec
from ._memo import Memo, Place, memo_of_child, memo_of_root, parent_at, path_at
from ._session import OWN, Session
from ._texts import canonical
from ._writer import Journals


def root_place(
    run: RunRecord, fn: Callable[..., Any], spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Place:
    """Give *run* a place of its own in the journal that its options or the settings name.

    Raises:
        InputError: its inputs can't be written, or not be read back.
        JournalError: the journal can't be opened.
    """
    settings = process.settings
    where = spec.run.journal if spec.run.journal is not None else settings.journal
    session = Session(run, process.of(Journals).of(where), spec.run.changed_code or settings.changed_code)
    memo = memo_of_root(session, run, fn, args, kwargs)
    return Place(session, OWN, OWN, memo, _inputs(memo, fn, args, kwargs))


def _inputs(
    memo: Memo, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of a body as they are read back; None for those that Python will refuse."""
    signature = signature_of(fn, called=True)
    values = bound(signature, args, kwargs)
    try:
        return None if values is None else read_back(signature, json.loads(memo.inputs), values)
    except InputError as exc:
        raise InputError(f"the inputs of workflow {memo.name!r} can't be read back", exc.faults) from None


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
        DefinitionError: it has options of its own that hold for the outermost run.
    """
    assert frame.run is not None
    assert frame.run.place is not None
    session = frame.run.place.session
    if spec is not None and not session.resumed:  # which may have been asked for with other options
        _check_own(spec, session)
    memo = None if spec is None else memo_of_child(run.workflow, fn, frame, args, kwargs)
    if memo is None:
        return Place(session, parent_at(frame), _lane(frame, [*args, kwargs]))
    return Place(session, memo.key, memo.key, memo)


def _check_own(spec: Spec, session: Session) -> None:
    where, policy = spec.run.journal, spec.run.changed_code
    found = "" if policy in (None, session.policy) else f"changed_code={policy!r}"
    if where is not None and not _same(process.of(Journals).of(where).journal, session.journal):
        found = f"journal={where!r}"
    if found:
        raise DefinitionError(
            f"{spec.kind} {spec.name}: {found} can't hold for a child run, which is recorded with the run around it; "
            f"give that to the outermost run, or take it away: with_options(..., {found.partition('=')[0]}=None)"
        )


def _same(one: Journal, other: Journal) -> bool:
    """Whether both are the same store; several may have one file."""
    return bool(getattr(one, "path", one) == getattr(other, "path", other))


def lane_of(frame: Frame, item: object) -> Frame:
    """Give one of several calls below *frame* a place of its own; asked for in the order of the items."""
    return Lane(frame, frame.scope, _lane(frame, item))


def _lane(frame: Frame, item: object) -> str:
    """The key of a call with *item*, which is no step: the next of its equals. What is no data is like any other."""
    assert frame.run is not None
    assert frame.run.place is not None
    stands_for = getattr(type(item), "__flowlet_key__", None)
    try:
        told = canonical({"": to_json(item, use="key") if stands_for is None else stands_for(item)})
    except Exception:  # noqa: BLE001 -- an object of the user's, which may raise what it likes; it is no data
        told = ""
    key: str = frame.run.place.session.key_of(path_at(frame), "", told)
    return key
