"""Results that are kept across runs, by code, arguments and model; of equal calls at once one is made."""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from attrs import frozen

from .._arguments import bound, written
from .._codec import to_json
from .._constants import module_name
from .._fingerprint import digest, fingerprint, loose_of
from .._raised import describe
from .._scope import Scope
from .._signature import Signature, signature_of
from ..context import FullStepRecord, RunRecord, chosen
from ..errors import DefinitionError, InputError
from ..events import CacheFailed
from ..protocols import Journal
from ..settings import Settings, process
from ..specs import Spec
from ._memo import Found
from ._texts import canonical, given_back, text_of, value_of
from ._writer import Journals

_P = inspect.Parameter


class Flight:
    """A call that is being made: its scope, who waits for it, and which other keys calls within it wait for."""

    __slots__ = ("needs", "scope", "waiting")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.waiting: list[tuple[Callable[[], object], list[Flight]]] = []
        self.needs: set[str] = set()


class Flights:
    """The calls that are being made now, by key; who wants the same waits for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}
        self._by_scope: dict[Scope, Flight] = {}

    def board(self, key: str, who: Scope, wake: Callable[[], object]) -> bool:
        """Whether *who* is to make the call; else *wake* comes when that of another has ended.

        A call can't wait for one that it is within, nor for one that waits, by way of others, for such: it is
        made, too.
        """
        with self._lock:
            found = self._flights.get(key)
            if found is None:
                self._flights[key] = self._by_scope[who] = Flight(who)
                return True
            around = list(self._around(who))
            if self._needs_one_of(around, key):
                return True
            found.waiting.append((wake, around))
            for flight in around:
                flight.needs.add(key)
            return False

    def wait_no_more(self, key: str, wake: Callable[[], object]) -> None:
        """Forget that *wake* waits for the call of *key*, if that still goes on."""
        with self._lock:
            found = self._flights.get(key)
            if found is None:
                return
            given_up = [flight for other, around in found.waiting if other == wake for flight in around]
            found.waiting = [(other, around) for other, around in found.waiting if other != wake]
            for flight in given_up:
                if not any(flight in around for _, around in found.waiting):
                    flight.needs.discard(key)

    def _around(self, who: Scope) -> Iterator[Flight]:
        """The calls that *who* is within, in its run and the runs around it."""
        above: Scope | None = who
        while above is not None:
            if above in self._by_scope:
                yield self._by_scope[above]
            above = above.parent

    def _needs_one_of(self, flights: list[Flight], key: str) -> bool:
        """Whether the call of *key* is one of *flights*, or needs one to end."""
        seen, ahead = set[str](), [key] if flights else []
        while ahead:
            flight = self._flights.get(ahead.pop())
            if flight in flights:
                return True
            if flight is not None:
                ahead += flight.needs - seen
                seen |= flight.needs
        return False

    def land(self, key: str, who: Scope) -> None:
        """End the call of *who*, unless it has ended, and wake who waits."""
        with self._lock:
            found = self._flights.get(key)
            if found is None or found.scope is not who:
                return
            del self._flights[key], self._by_scope[who]
            for _, around in found.waiting:
                for flight in around:
                    flight.needs.discard(key)
        for wake, _ in found.waiting:
            wake()

    @contextmanager
    def landing(self, key: str, who: Scope) -> Generator[None]:
        """End the call of *who* with the block, or as *who* is stopped: its thread or task may not end."""
        land = partial(self.land, key, who)
        who.on_stop(land)
        try:
            yield
        finally:
            who.forget(land)
            land()


@frozen(eq=False)
class Slot:
    """Where the result of one call of a step is kept; *lasts* None is for good.

    What goes wrong with the store is told, and the run goes on without: its own outcome is not the cache's.
    """

    key: str
    journal: Journal
    run: RunRecord
    name: str
    returns: Any
    lasts: timedelta | None

    def look(self) -> Found | None:
        """What is kept, if it is there, whole, and fits the hint that the step has now."""
        try:
            text = self.journal.kept(self.key, time.time())
            return None if text is None else Found(value_of(text, self.returns))
        except InputError:
            return None  # the type has changed
        except Exception as exc:  # noqa: BLE001 -- a store of somebody else's may raise what it likes; told
            self._failed(exc)
            return None

    def keep(self, result: object) -> Any:
        """Keep *result*, and give what a hit will give: what is read back.

        Raises:
            InputError: it can't be written, or not be read back.
        """
        what = f"the result of step {self.name!r}"
        text = text_of(result, self.returns, what)
        given = given_back(text, self.returns, what)
        expires = None if self.lasts is None else time.time() + self.lasts.total_seconds()
        try:
            self.journal.keep(self.key, text, expires)
        except Exception as exc:  # noqa: BLE001 -- as above
            self._failed(exc)
        return given

    def _failed(self, exc: Exception) -> None:
        process.notice(CacheFailed(self.run.info, time.time(), self.name, describe(exc)))


def _asked(settings: Settings) -> str:
    """What the settings say of models, and where they are asked: the same name at another server is another model."""
    found = [(name, getattr(provider, "base_url", None)) for name, provider in settings.providers.items()]
    servers = sorted((name, url) for name, url in found if isinstance(url, str))
    return repr((sorted(settings.models.items()), settings.openai.base_url, servers))


def _key(rule: Callable[..., object], signature: Signature, values: Mapping[str, Any]) -> object:
    """What a key function makes of the arguments that it names, however the call passes them.

    Raises:
        DefinitionError: it takes something else.
    """
    taken = signature_of(rule, called=True).parameters
    strange = [p.name for p in taken if p.kind is _P.VAR_POSITIONAL or (p.required and p.name not in values)]
    if strange:
        raise DefinitionError(
            f"step {signature}: its cache key takes {', '.join(strange)}, but gets the arguments of the step by their "
            f"names; write those that count: @step(cache=lambda {', '.join(values)}: ...)"
        )
    first = [values.get(p.name, p.default) for p in taken if p.kind is _P.POSITIONAL_ONLY]
    if any(p.kind is _P.VAR_KEYWORD for p in taken):
        return rule(*first, **values)
    return rule(*first, **{p.name: values[p.name] for p in taken[len(first) :] if p.name in values})


def slot_of(
    spec: Spec,
    fn: Callable[..., Any],
    record: FullStepRecord,
    run: RunRecord,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Slot | None:
    """The slot of a call of a step; None where it is not to be cached, or Python will refuse the call.

    Raises:
        InputError: the arguments, or what the key function makes of them, can't be written.
        DefinitionError: what it takes from the functions around it can't be told, or its key function takes what
            it does not.
    """
    rule = spec.step.cache
    if rule is False:
        return None
    if not callable(rule) and (loose := loose_of(fn)):
        raise DefinitionError(
            f"step {spec.name}: the cache can't tell its results apart, since it takes {', '.join(loose)} from "
            "the function around it, which may change or is no data; make that an argument, or give the key: "
            "@step(cache=lambda ...: ...)"
        )
    signature = signature_of(fn, called=True)
    if callable(rule):
        values = bound(signature, args, kwargs)
        if values is None:
            return None
        arguments = json.dumps(to_json(_key(rule, signature, values), use="key"), sort_keys=True)
    else:
        data = written(signature, args, kwargs, exact=False)
        if data is None:
            return None
        arguments = canonical(data)
    settings = process.settings
    place = (module_name(fn.__module__), fn.__qualname__, fingerprint(fn), repr(signature.returns))
    models = (*record.models, settings.model)
    model = dict.fromkeys((models[0], chosen(models)))
    key = digest("cache", *place, *model, _asked(settings), arguments)
    lasts = rule if isinstance(rule, timedelta) else None
    where = settings.journal if run.place is None else run.place.session.journal
    return Slot(key, process.of(Journals).of(where).journal, run, spec.name, signature.returns, lasts)
