"""The pytest plugin: no live calls by mistake, recordings, mocks, and budgets of tests.

pytest loads it at every start, so it imports nothing but pytest until a test asks for something. State: what
the session used, and for each test its recording and its mocks, in pytest's own stashes.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from .messages import Request
    from .specs import Budget
    from .testing import MockProvider, Recording

__all__ = ["flowlet_mock", "flowlet_recording"]

_LIVE = "PYTEST_FLOWLET_LIVE"
_MODES = ("none", "once", "all", "off")


class Used(NamedTuple):
    """What model calls used. *tokens* and *cost* are those of live calls."""

    calls: int = 0
    replayed: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0

    @property
    def live(self) -> int:
        """How many calls were live."""
        return self.calls - self.replayed

    def plus(self, other: Used) -> Used:
        """Add *other*."""
        pairs: Any = zip(self, other, strict=True)
        return Used(*[mine + more for mine, more in pairs])

    def minus(self, other: Used) -> Used:
        """Take *other* away."""
        return self.plus(Used(*[-one for one in other]))  # type: ignore[arg-type]


_SESSION = pytest.StashKey[Used]()
_TEST = pytest.StashKey[Used]()
_BEFORE = pytest.StashKey["str | None"]()
_TAPE = pytest.StashKey["Recording"]()
_MOCKS = pytest.StashKey["list[MockProvider]"]()
_FAILED = pytest.StashKey[BaseException]()


# --- options ---------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("flowlet", "flowlet: model calls in tests")
    group.addoption(
        "--flowlet-live",
        action="store_true",
        help="allow calls of OpenAI and other servers elsewhere; a key is needed too",
    )
    group.addoption(
        "--flowlet-record",
        choices=_MODES,
        help="what the recordings of tests do: none only replays (default), once records where there is no file, "
        "all records anew, off asks the models",
    )
    group.addoption(
        "--flowlet-budget",
        type=_dollars,
        metavar="DOLLARS",
        help="what the model calls of the whole session may cost",
    )


def _dollars(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or found < 0:
        raise ValueError(f"{text!r} is no sum of US dollars")
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and say to this process and its children whether calls may be live."""
    for marker in (
        "flowlet_recording(file=None, mode=None): answer model calls from this file, relative to the test's own",
        "flowlet_mock(answers=None, name='mock', ...): a mock is the model of the test, as the fixture makes it",
        "flowlet_budget(calls=None, tokens=None, cost=None): what live model calls of the test may use",
    ):
        config.addinivalue_line("markers", marker)
    config.stash[_SESSION] = Used()
    config.stash[_BEFORE] = os.environ.get(_LIVE)
    os.environ[_LIVE] = "yes" if config.getoption("--flowlet-live") else "no"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the environment as it was."""
    before = config.stash.get(_BEFORE, None)
    if before is None:
        os.environ.pop(_LIVE, None)
    else:
        os.environ[_LIVE] = before


# --- recordings and mocks --------------------------------------------------------------------------


@pytest.fixture
def flowlet_recording(request: pytest.FixtureRequest) -> Generator[Recording]:
    """The recording that answers the model calls of this test.

    Its file is what ``@pytest.mark.flowlet_recording("file")`` says, relative to the test's file, or else
    ``recordings/<module>/<test>.json``. ``--flowlet-record`` says whether it is replayed or recorded.
    """
    from .testing import recording

    node: pytest.Item = request.node
    file, mode = _named(node.get_closest_marker("flowlet_recording"))
    path = request.path.parent / (file or _default_file(node))
    tape = recording(path, request.config.getoption("--flowlet-record") or mode or "none")
    tape.__enter__()
    node.stash[_TAPE] = tape
    yield tape
    failure = node.stash.get(_FAILED, None)
    if isinstance(failure, pytest.fail.Exception | pytest.skip.Exception):
        failure = AssertionError()  # theirs is a BaseException, as if the test had been interrupted
    tape.__exit__(None if failure is None else type(failure), failure, None)


def _named(marker: pytest.Mark | None) -> tuple[str | None, Any]:
    def of(file: str | None = None, mode: str | None = None) -> tuple[str | None, Any]:
        return file, mode

    return of() if marker is None else of(*marker.args, **marker.kwargs)


def _default_file(node: pytest.Item) -> Path:
    name = node.name if node.parent is None or node.cls is None else f"{node.cls.__name__}.{node.name}"  # type: ignore[attr-defined]
    return Path("recordings", node.path.stem, re.sub(r"[^\w.=-]+", "_", name).strip("_") + ".json")


@pytest.fixture
def flowlet_mock(request: pytest.FixtureRequest) -> Generator[Callable[..., MockProvider]]:
    """Give a function that makes a mock the model of this test: ``flowlet_mock(["an answer"])``.

    It takes what :class:`flowlet.testing.MockProvider` takes, registers it under *name* and makes it the default
    model; ``name="openai"`` answers for models that the code pins. A script that was not used up fails the test.
    """
    from .settings import process
    from .testing import MockProvider

    before = process.settings
    mocks: list[MockProvider] = request.node.stash.setdefault(_MOCKS, [])

    def mock(
        answers: Sequence[object] | Callable[[Request], object] | None = None,
        *,
        name: str = "mock",
        **options: Any,
    ) -> MockProvider:
        made = MockProvider(answers, name=name, **options)
        mocks.append(made)
        providers = {**process.settings.providers, name: made}
        process.change({"providers": providers, "model": f"{name}:mock"})
        return made

    yield mock
    process.change({"providers": before.providers, "model": before.model})


@pytest.fixture(autouse=True)
def _flowlet_marks(request: pytest.FixtureRequest) -> None:  # pyright: ignore[reportUnusedFunction]
    """Use the recording and the mock of a test that has only their markers."""
    if request.node.get_closest_marker("flowlet_recording") is not None:
        request.getfixturevalue("flowlet_recording")
    mocked = request.node.get_closest_marker("flowlet_mock")
    if mocked is not None:
        request.getfixturevalue("flowlet_mock")(*mocked.args, **mocked.kwargs)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let the recording hold in an async test too, whose task may be older than the recording."""
    tape = pyfuncitem.stash.get(_TAPE, None)
    if tape is not None and inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _held(tape, pyfuncitem.obj)
    return (yield)


def _held(tape: Recording, test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def held(*args: Any, **kwargs: Any) -> Any:
        end = tape.hold()
        try:
            return await test(*args, **kwargs)
        finally:
            end()

    return held


# --- budgets ---------------------------------------------------------------------------------------


def _now() -> tuple[object, Used]:
    """What was used since the process state is as it is; a test may reset that, then it is another object."""
    if "flowlet._engine._ledger" not in sys.modules:
        return None, Used()
    from ._engine._ledger import Ledger
    from .settings import process
    from .totals import usage

    ledger = process.existing(Ledger)
    if ledger is None:
        return None, Used()
    whole = usage()
    calls, tokens = _replays()
    used = Used(whole.calls, calls, whole.total_tokens - tokens, whole.cost, whole.unpriced)
    return ledger, used


def _replays() -> tuple[int, int]:
    if "flowlet.testing" not in sys.modules:
        return 0, 0
    from .settings import process
    from .testing._recording import Replays

    found = process.existing(Replays)
    return (0, 0) if found is None else (found.calls, found.tokens)


@contextmanager
def _counted(item: pytest.Item) -> Generator[None]:
    """Count what *item* uses here."""
    ledger, before = _now()
    try:
        yield
    finally:
        now, used = _now()
        more = used.minus(before) if now is ledger else used
        item.stash[_TEST] = item.stash.get(_TEST, Used()).plus(more)
        item.config.stash[_SESSION] = item.config.stash[_SESSION].plus(more)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Count what fixtures use."""
    item.stash[_TEST] = Used()
    with _counted(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Count what fixtures use at their end."""
    with _counted(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Hold the test to its budget and to the session's, and check that its mocks were used up."""
    try:
        with _limited(_limits(item)), _counted(item):
            result = yield
        for mock in item.stash.get(_MOCKS, ()):
            mock.verify()
        _check_budget(item)
    except BaseException as exc:
        item.stash[_FAILED] = exc
        raise
    return result


def _limits(item: pytest.Item) -> Budget | None:
    """What the call of *item* may use: its own budget, and what is left of the session's.

    None where all is replayed: that costs nothing, and a budget that is used up would refuse it.
    """
    tape = item.stash.get(_TAPE, None)
    if tape is not None and tape.replaying:
        return None
    budget = _own_budget(item)
    whole: Decimal | None = item.config.getoption("--flowlet-budget")
    if whole is None:
        return budget
    from .specs import Budget

    whole /= int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    left = max(Decimal(0), whole - item.config.stash[_SESSION].cost)
    if budget is None:
        return Budget(cost=left)
    return Budget(budget.calls, budget.tokens, left if budget.cost is None else min(left, budget.cost))


def _own_budget(item: pytest.Item) -> Budget | None:
    marker = item.get_closest_marker("flowlet_budget")
    if marker is None:
        return None
    from .specs import Budget

    return Budget(*marker.args, **marker.kwargs)


@contextmanager
def _limited(budget: Budget | None) -> Generator[None]:
    """Let the engine refuse calls beyond *budget* here."""
    if budget is None:
        yield
        return
    from attrs import evolve

    from .settings import process

    before = process.settings.budget
    process.change({"budget": evolve(before, process=budget)})
    try:
        yield
    finally:
        process.change({"budget": before})


def _check_budget(item: pytest.Item) -> None:
    """Fail a test that used more: by its last call, or in its fixtures."""
    budget = _own_budget(item)
    if budget is None:
        return
    used = item.stash[_TEST]
    pairs = (
        ("calls", used.live, budget.calls),
        ("tokens", used.tokens, budget.tokens),
        ("cost in $", used.cost, budget.cost),
    )
    over = [
        f"{name}: {spent} of {limit}" for name, spent, limit in pairs if limit is not None and spent > limit
    ]
    if over:
        pytest.fail(f"the test used more than its flowlet_budget ({', '.join(over)})", pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist, hand on what it used."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["flowlet"] = [str(one) for one in session.config.stash[_SESSION]]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker of pytest-xdist used."""
    told: list[str] = getattr(node, "workeroutput", {}).get("flowlet", ())
    if told:
        stash: pytest.Stash = node.config.stash
        calls, replayed, tokens, cost, unpriced = map(Decimal, told)
        used = Used(int(calls), int(replayed), int(tokens), cost, int(unpriced))
        stash[_SESSION] = stash[_SESSION].plus(used)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the session used, if it used anything."""
    used = config.stash[_SESSION]
    if not used.calls:
        return
    whole: Decimal | None = config.getoption("--flowlet-budget")
    of = "" if whole is None else f" of ${whole:f}"
    unpriced = f", {used.unpriced} without a known price" if used.unpriced else ""
    terminalreporter.write_line(
        f"flowlet: {used.live} model calls ({used.tokens} tokens, ${used.cost:f}{of}{unpriced}), "
        f"{used.replayed} replayed"
    )
