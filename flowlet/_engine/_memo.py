"""One call whose outcome is kept in a journal: which one it is, and what is known or written of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, evolve, field

from .._arguments import read_back, written
from .._codec import to_json
from .._data.writing import is_plain
from .._fingerprint import CODE_ATTRIBUTE, FILE_ATTRIBUTE, constants_of, fingerprint
from .._raised import describe
from .._signature import Signature, signature_of
from ..context import Frame, FullStepRecord, Lane, RunRecord, StepRecord, chosen
from ..entries import Entry
from ..errors import InputError, JournalError
from ..messages import Completion, Request
from ..metrics import RunState
from ..settings import process
from ._session import OWN, Session
from ._texts import canonical, encoded, given_back, text_of, value_of, without_secret

if TYPE_CHECKING:
    from ..specs import Spec

SHOWN = 2000
"""How many characters of a step's arguments are kept, for people to read."""


class Found:
    """A result that is known; it may be None."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@define(eq=False)
class Memo:
    """A call, told from all others by its key: what is called, by what, with what; *fn* tells its code."""

    session: Session
    kind: Literal["run", "step", "call"]
    name: str
    key: str
    parent: str = ""
    inputs: str = ""
    """Its arguments, as JSON."""
    code: str = ""
    info: str = ""
    returns: Any = None
    as_is: frozenset[type] = frozenset()
    fn: Callable[..., Any] | None = None
    began: float = field(factory=time.perf_counter)

    def opening(self) -> Entry:
        """Say that the call has begun."""
        return evolve(self._told("running", info=self.info), duration=0.0)

    def completed(self, result: object, attempts: int = 1) -> Entry:
        """Say that the call gave *result*.

        Raises:
            InputError: it can't be written, or holds a secret; every fault is listed.
        """
        if type(result) in self.as_is and is_plain(result):
            text = without_secret(str(result) if type(result) is int else encoded(result), self._what)
        else:
            text = text_of(result, self.returns, self._what())
        return self._told("completed", text, attempts=attempts)

    def given(self, entry: Entry, result: object) -> Any:
        """What the call gives, as *entry* tells *result*: what is read back, as when the run is resumed.

        Raises:
            InputError: it can't be read back; every fault is listed.
        """
        if type(result) in self.as_is or not entry.value:
            return result
        return given_back(entry.value, self.returns, self._what())

    def answered(self, completion: Completion, cost: object) -> Entry:
        """Say what a model answered, and what that cost."""
        info = json.dumps({"cost": None if cost is None else str(cost)})
        return self._told("completed", text_of(completion, Completion, self._what()), info=info)

    def failed(self, exc: BaseException, attempts: int = 1) -> Entry:
        """Say that the call failed with *exc*; the text is for people."""
        error = process.redactor.redact(describe(exc, with_faults=True))
        return self._told("failed", error=error, attempts=attempts)

    def unfinished(self, state: RunState) -> Entry:
        """Say that the call was ended from outside."""
        return self._told(state)

    @property
    def may_write(self) -> bool:
        """Whether the run is ours, and not suspended."""
        return self.session.is_open and self.session.fault is None

    def _told(
        self, state: RunState, value: str = "", error: str = "", attempts: int = 1, info: str = ""
    ) -> Entry:
        known = self.session.run_id, self.key, self.kind, self.name, state, self.parent, self.inputs
        took = time.perf_counter() - self.began
        return Entry(*known, value, error, self.code, time.time(), took, attempts, info)

    def _what(self) -> str:
        return f"the result of {self._whose()}"

    def known(self, run: RunRecord) -> Found | None:
        """What the call gave before, if that is recorded and may be taken.

        Raises:
            JournalError: as for :meth:`taken`.
        """
        found = self.session.find(self.key, self.parent, self.name)
        return None if found is None else self.taken(found, run)

    def taken(self, found: Entry, run: RunRecord) -> Found | None:
        """What the call gave before; None says to make it again, by the policy for code that has changed since.

        The result of a run that has completed is a fact, which other code does not put in question.

        Raises:
            JournalError: the policy is to say so, or it does not fit the hint any more; the run is suspended.
        """
        run_id, session = self.session.run_id, self.session
        policy = "reuse" if self.key == OWN and session.policy == "error" else session.policy
        if found.code != self.code:
            session.tell_changed(run, self.kind, self.name, policy)
            if policy == "error":
                raise self._refused(
                    f"the code of {self._whose()}{self._outside()} has changed since run "
                    f'{run_id!r} recorded its result; resume with changed_code="reuse" to take that result, or '
                    '"rerun" to run it again'
                )
            if policy == "rerun":
                return None
        try:
            return Found(self.value(found))
        except InputError as exc:
            if policy == "rerun":
                session.tell_changed(run, self.kind, self.name, policy)
                return None
            raise self._refused(
                f"run {run_id!r}: the recorded result of {self._whose()} does not fit the hint that it has now: "
                f'{"; ".join(exc.faults)}; resume with changed_code="rerun" to make it again'
                + (f", or:  flowlet rerun {run_id} --from {self.name}" if self.key != OWN else "")
            ) from exc

    def _refused(self, message: str) -> JournalError:
        fault = JournalError(message)
        self.session.refuse(fault)
        return fault

    def _outside(self) -> str:
        names = () if self.fn is None else constants_of(self.fn)
        return f", or what it takes from outside ({', '.join(names)})," if names else ""

    def _whose(self) -> str:
        return f"{_KINDS[self.kind]} {self.name!r}"

    def check_same(self, first: Entry) -> None:
        """Refuse to go on with a run that was asked for otherwise.

        Raises:
            JournalError: another workflow, or other inputs, have this run id.
        """
        if first.name != self.name or not (first.inputs == self.inputs or self._takes(first.inputs)):
            raise JournalError(
                f"run {first.run_id!r} is in the journal already, as {first.name} with {_cut(first.inputs)}, "
                f"not {self.name} with {_cut(self.inputs)}; choose another run_id"
            )

    def _takes(self, recorded: str) -> bool:
        """Whether the *recorded* inputs are these, as the signature has them now: what is new in it has its default."""
        assert self.fn is not None
        signature = signature_of(self.fn, called=True)
        keyed = evolve(signature, parameters=tuple(p for p in signature.parameters if p.keyed))
        try:
            args, kwargs = read_back(keyed, json.loads(recorded))
            found = written(keyed, args, kwargs, exact=True)
        except InputError:
            return False
        return found is not None and canonical(found) == canonical(json.loads(self.inputs))

    def value(self, found: Entry) -> Any:
        """Read what the call gave before.

        Raises:
            InputError: it does not fit the hint any more.
        """
        return value_of(found.value, self.returns)


@define(eq=False)
class Place:
    """Where a run is in its journal.

    *key* is that of the innermost kept call around its body, *path* what keys of calls in its body begin with;
    *memo* is of its outcome, where that is kept; *inputs* are the arguments of its body as they are read back.
    """

    session: Session
    key: str
    path: str
    memo: Memo | None = None
    inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def forget(self) -> None:
        """Let go of the inputs, which may be large: the run is over, and its record may be there for long."""
        self.memo = self.inputs = None
        if self.path == OWN:  # of the outermost run alone
            self.session.forget()


_KINDS: Mapping[str, str] = {"run": "workflow", "step": "step", "call": "model"}


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def parent_at(frame: Frame) -> str:
    """The key of the innermost kept call around *frame*."""
    assert frame.run is not None
    place: Place | None = frame.run.place
    assert place is not None
    return _step_at(frame) or place.key


def path_at(frame: Frame) -> str:
    """What the keys of calls at *frame* begin with."""
    assert frame.run is not None
    place: Place | None = frame.run.place
    assert place is not None
    return frame.key if isinstance(frame, Lane) else _step_at(frame) or place.path


def _step_at(frame: Frame) -> str:
    """The key of the innermost kept step around *frame*, in its run; empty without one."""
    run, index = frame.run, frame.index
    assert run is not None
    while index is not None:
        step: StepRecord = run.steps[index]
        if isinstance(step, FullStepRecord) and step.key:
            return step.key
        index = step.parent
    return ""


def memo_of_step(
    spec: Spec,
    fn: Callable[..., Any],
    frame: Frame,
    session: Session,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Memo | None:
    """The memo of a call of a step in *frame*; None for a call that Python will refuse.

    Raises:
        InputError: the arguments don't tell it from others.
    """
    return _memo(session, "step", spec.name, fn, frame, args, kwargs)


def memo_of_child(
    name: str, fn: Callable[..., Any], frame: Frame, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Memo | None:
    """The memo of a child run; None for a call that Python will refuse.

    Raises:
        InputError: the arguments don't tell it from others.
    """
    assert frame.run is not None
    assert frame.run.place is not None
    return _memo(frame.run.place.session, "run", name, fn, frame, args, kwargs)


def _memo(
    session: Session,
    kind: Literal["run", "step"],
    name: str,
    fn: Callable[..., Any],
    frame: Frame,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Memo | None:
    signature = signature_of(fn, called=True)
    data = written(signature, args, kwargs, exact=False)
    if data is None:
        return None
    text = canonical(data)
    shown = process.redactor.redact(text if len(text) <= SHOWN else text[:SHOWN] + "…")
    key = session.key_of(path_at(frame), name, text)
    how = signature.returns, signature.returned_as_is, fn
    return Memo(session, kind, name, key, parent_at(frame), shown, fingerprint(fn), "", *how)


def memo_of_root(
    session: Session, run: RunRecord, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Memo:
    """The memo of a run that is the outermost in its journal.

    Raises:
        InputError: its inputs can't be written, so that it could not be resumed, or what names it holds a secret.
    """
    signature: Signature = signature_of(fn, called=True)
    what = f"the inputs of workflow {run.workflow!r}"
    names = encoded([run.id, run.tags, run.correlation_id])
    without_secret(names, lambda: f"the run_id, tags or correlation_id of workflow {run.workflow!r}")
    try:
        inputs = encoded(written(signature, args, kwargs, exact=True) or {})
    except InputError as exc:
        raise InputError(f"{what} can't be kept", exc.faults) from None
    info = {
        **_home(fn),
        "model": chosen(run.models) if run.models else None,
        "backend": run.backend,
        "tags": list(run.tags),
        "correlation_id": run.correlation_id,
    }
    return Memo(
        session,
        "run",
        run.workflow,
        OWN,
        inputs=without_secret(inputs, lambda: what),
        code=fingerprint(fn),
        info=canonical(info),
        returns=signature.returns,
        as_is=signature.returned_as_is,
        fn=fn,
    )


def _home(fn: Callable[..., Any]) -> dict[str, str | None]:
    """Where another process finds *fn*: its name in a module or a file; no name where it has none."""
    name, module = getattr(fn, "__qualname__", "<unknown>"), getattr(fn, "__module__", None)
    file = getattr(fn, FILE_ATTRIBUTE, None) or getattr(fn, "__globals__", {}).get("__file__")
    described = hasattr(fn, FILE_ATTRIBUTE)
    module = None if module == "__main__" or described else module
    ours = not described and hasattr(fn, CODE_ATTRIBUTE)  # a chain, which has the name of no variable
    found = not ours and "<" not in name and (module or file) is not None
    return {"name": name if found else None, "module": module, "file": file and str(Path(file).absolute())}


def memo_of_call(frame: Frame, session: Session, provider: str, request: Request) -> Memo:
    """The memo of a model call."""
    name = f"{provider}:{request.model}"
    data = to_json(evolve(request, timeout=0.0), Request)
    key = session.key_of(path_at(frame), name, json.dumps(data, sort_keys=True))
    return Memo(session, "call", name, key, parent_at(frame), returns=Completion)
