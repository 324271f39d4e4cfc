"""Parts of a run that can be stopped, and the lock that guards their records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

from ._forks import at_fork
from .errors import RunStopped

guard = threading.RLock()
"""Guards what several threads change in records: held for a few instructions, never across a call out."""

at_fork(before=guard.acquire, after_in_parent=guard.release, after_in_child=guard.release)


def call_all(calls: Iterable[Callable[[], object]]) -> None:
    """Make all *calls*, whatever they raise; the first failure is told as that of a thread. Ctrl-C goes on."""
    failure: BaseException | None = None
    for call in calls:
        try:
            call()
        except BaseException as exc:  # noqa: BLE001 -- told below
            failure = failure or exc
    if failure is None:
        return
    thread = threading.current_thread()
    try:
        if isinstance(failure, KeyboardInterrupt) and thread is threading.main_thread():
            raise failure
        threading.excepthook(
            threading.ExceptHookArgs((type(failure), failure, failure.__traceback__, thread))
        )
    finally:
        failure = None


class Executed(Protocol):
    """What goes on in a scope, in a task."""

    def cancel_task(self) -> object:
        """Cancel that."""
        ...


class Scope:
    """A part of a run that can be stopped: the run, a thread of it, a fan-out, a step with a limit.

    Stopping is one way. It reaches every scope below, wakes what waits there through *hooks*, and cancels the task of
    what is *executed* there. That is no hook, since a method that is kept is one more object for the garbage
    collector, which many runs at once would feel; who sets it looks for a stop afterwards.
    """

    __slots__ = ("_children", "_hooks", "deadline", "executed", "parent", "reason", "run_id")

    def __init__(self, run_id: str, parent: Scope | None = None, deadline: float | None = None) -> None:
        self.run_id = run_id
        self.parent = parent
        self.deadline = deadline
        self.reason: str | None = None
        self._children: set[Scope] | None = None
        self.executed: Executed | None = None
        self._hooks: Callable[[], object] | list[Callable[[], object]] | None = None  # mostly one
        if parent is not None:
            parent._adopt(self)

    def _adopt(self, child: Scope) -> None:
        with guard:
            child.reason = self.reason
            if self._children is None:
                self._children = set()
            self._children.add(child)

    def end(self, reason: str) -> None:
        """Stop what is left below, for *reason*, and forget this scope: what it covered has ended."""
        with guard:
            if self.reason is None:
                self.reason = reason
            self._hooks = self.executed = None
            children, self._children = self._children, None
            if self.parent is not None and self.parent._children is not None:
                self.parent._children.discard(self)
        for child in children or ():
            child.stop(reason)

    def leave(self) -> None:
        """Forget this scope: what it covered has ended. What goes on below belongs to the scope around it."""
        parent = self.parent
        with guard:
            self._hooks = self.executed = None
            if parent is None:
                return
            if parent._children is not None:
                parent._children.discard(self)
            if not self._children:
                return
            children, self._children = self._children, None
            reason = self.reason or parent.reason
            for child in children:
                child.parent = parent
            if reason is None:
                parent._children = children | (parent._children or set())
                return
        for child in children:
            child.stop(reason)

    def fence(self, reason: str) -> None:
        """Let nothing begin below any more, for *reason*, and leave it to :meth:`stop` to end what goes on."""
        with guard:
            if self.reason is None:
                self.reason = reason
            for child in self._children or ():
                child.fence(reason)

    def stop(self, reason: str) -> None:
        """Stop everything below, for *reason*: ``cancelled``, ``timeout``, ``failed`` or ``over``."""
        hooks = self._close(reason, [])
        if hooks:
            call_all(hooks)

    def _close(self, reason: str, hooks: list[Callable[[], object]]) -> list[Callable[[], object]]:
        with guard:
            if self.reason is None:
                self.reason = reason
            hooks.extend(self._listed())
            if self.executed is not None:
                hooks.append(self.executed.cancel_task)
            self._hooks = self.executed = None
            children, self._children = self._children, None
        for child in children or ():
            child._close(reason, hooks)
        return hooks

    def on_stop(self, hook: Callable[[], object]) -> None:
        """Call *hook* when this scope is stopped, at once if it is."""
        with guard:
            if self.reason is None:
                self._hooks = hook if self._hooks is None else [*self._listed(), hook]
                return
        hook()

    def _listed(self) -> list[Callable[[], object]]:
        hooks = self._hooks
        if hooks is None or isinstance(hooks, list):
            return hooks or []  # pyright: ignore[reportUnknownVariableType] -- a list that is callable, too
        return [hooks]

    @property
    def root(self) -> Scope:
        """The outermost scope around this one."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def forget(self, hook: Callable[[], object]) -> None:
        """Take *hook* back."""
        with guard:
            left = [other for other in self._listed() if other != hook]
            self._hooks = left or None

    def check(self) -> None:
        """Go on, or end the body.

        Raises:
            RunStopped: this scope was stopped.
        """
        if self.reason is not None:
            raise RunStopped(self.run_id, self.reason)

    @property
    def left(self) -> float:
        """Seconds until the nearest deadline around this; none when a time limit has ended it."""
        nearest = inf
        scope: Scope | None = self
        while scope is not None:
            if scope.reason == "timeout":
                return 0.0
            if scope.deadline is not None:
                nearest = min(nearest, scope.deadline)
            scope = scope.parent
        return max(0.0, nearest - time.monotonic())

    @property
    def timed_out(self) -> bool:
        """Whether a time limit ended this, so that nobody waits for what is in flight."""
        return not self.left
