"""What people see of runs: the view, plain lines, the live tree, HTML in notebooks and reports."""

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from rich.cells import cell_len

from flowlet import (
    CallRecord,
    DefinitionError,
    ExecutionMetrics,
    StepMetrics,
    TokenUsage,
    Usage,
    configure,
    live,
    pmap,
    report,
    run,
    start,
    step,
    workflow,
)
from flowlet.display._live import Display
from flowlet.display._notebook import mimebundle, register
from flowlet.display._plain import Lines
from flowlet.display._report import page_of
from flowlet.display._text import ASCII, lines_of, text_of
from flowlet.display._tracker import Tracker
from flowlet.display._view import FOLD, view_of
from flowlet.display._words import clean_for, cost_of, money, time_of, tokens_of, visible
from flowlet.events import (
    Event,
    ModelCalled,
    ModelRetried,
    RunFinished,
    RunInfo,
    RunStarted,
    StepFinished,
    StepRetried,
    StepStarted,
)
from flowlet.settings import process
from rig import Trap

EVIL = """"><script>alert('x')</script><img src=x onerror=y>\x1b[2J\u202e[bold]"""


def call(step_index: int | None = None, tokens: int = 100, cost: str | None = "0.002") -> CallRecord:
    return CallRecord(
        provider="openai",
        model="gpt-5-mini",
        usage=TokenUsage(tokens - 10, 10, tokens),
        cost=None if cost is None else Decimal(cost),
        duration=0.5,
        at=1001.0,
        step="ask",
        step_index=step_index,
    )


def steps(*names: str, **facts: object) -> tuple[StepMetrics, ...]:
    return tuple(
        evolve(StepMetrics(index, name, "completed", float(index), 1.0), **facts)
        for index, name in enumerate(names)
    )


def metrics(*parts: StepMetrics, **facts: object) -> ExecutionMetrics:
    made = ExecutionMetrics("r1", "talk", "completed", 1000.0, 8.0, steps=parts)
    return evolve(made, **facts)


# The view


def test_steps_hang_below_the_step_that_called_them() -> None:
    """The tree is that of the calls, and a child run stands among the steps by its start."""
    outer, inner, last = steps("outer", "inner", "last")
    child = metrics(*steps("deep"), workflow="child", started_at=1001.5)
    root = view_of(metrics(outer, evolve(inner, parent=0), last, children=(child,))).root
    assert [node.name for node in root.children] == ["outer", "child", "last"]
    assert [node.name for node in root.children[0].children] == ["inner"]
    assert root.children[1].children[0].started == 1.5


def test_many_calls_of_one_name_are_one_node() -> None:
    """From four on they are folded, with what is below them; three stay apart."""
    assert len(view_of(metrics(*steps(*["few"] * (FOLD - 1)))).root.children) == FOLD - 1
    many = [evolve(one, attempts=2) for one in steps(*["many"] * 40)]
    many[7] = evolve(many[7], state="running")
    inner = [StepMetrics(40 + i, "inner", "completed", i + 0.5, 0.1, parent=i) for i in range(40)]
    (fold,) = view_of(metrics(*many, *inner)).root.children
    assert (fold.name, len(fold.members), fold.state, fold.retries) == ("many", 40, "running", 40)
    assert fold.counts == {"completed": 39, "running": 1}
    assert [(node.name, len(node.members)) for node in fold.children] == [("inner", 40)]


def test_an_error_stands_only_where_it_arose() -> None:
    """The failure names the path to it; those above do not repeat it."""
    outer, inner = steps("outer", "inner", state="failed", error="ValueError: no")
    view = view_of(metrics(outer, evolve(inner, parent=0), state="failed", error="ValueError: no"))
    assert view.failure is not None
    assert view.failure.path == ("talk", "outer", "inner")
    (node,) = view.root.children
    assert (view.root.error, node.error, node.children[0].error) == (None, None, "ValueError: no")


def test_a_deadline_is_placed_in_the_step_that_was_running() -> None:
    """What ended by the deadline has no error of its own, but it is where the time went."""
    done, late = steps("done", "late")
    timed_out = metrics(done, evolve(late, state="timeout"), state="timeout", error="WorkflowTimeout: 8 s")
    failure = view_of(timed_out).failure
    assert failure is not None
    assert failure.path == ("talk", "late")


def test_a_step_counts_the_usage_of_the_steps_below() -> None:
    """So that the figures of a row are those of its whole subtree."""
    outer, inner = steps("outer", "inner")
    used = Usage.of([call()])
    (node,) = view_of(metrics(outer, evolve(inner, parent=0, usage=used))).root.children
    assert node.usage == used


def test_the_view_is_as_deep_as_it_is_drawn() -> None:
    """A step that calls itself a thousand times is no reason to fail."""
    deep = [StepMetrics(i, f"s{i}", "completed", i, 1, parent=i - 1 if i else None) for i in range(1000)]
    view = view_of(metrics(*deep))
    assert len(view.steps) == 1000
    assert len(text_of(view).splitlines()) == 1001


def test_a_step_whose_caller_is_not_known_yet_is_drawn() -> None:
    """Events of two threads may come in any order."""
    assert view_of(metrics(StepMetrics(3, "early", "running", 0, 1, parent=2))).root.children


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0001, "<1 ms"), (0.042, "42 ms"), (0.9996, "1.00 s"), (3.214, "3.21 s"),
     (12.34, "12.3 s"), (59.96, "1 min 00 s"), (125, "2 min 05 s"), (7500, "2 h 05 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """Two or three digits and a unit."""
    assert time_of(seconds) == text


@pytest.mark.parametrize(
    ("dollars", "text"),
    [("0", "$0"), ("0.0000001", "<$0.000001"), ("0.0021", "$0.0021"), ("0.021", "$0.021"), ("1234.5", "$1,234.50")],
)  # fmt: skip
def test_money(dollars: str, text: str) -> None:
    """Cents, or two digits."""
    assert money(Decimal(dollars)) == text


def test_what_is_not_known_is_said() -> None:
    """A price or a number of tokens that nobody knows is no zero."""
    unpriced = Usage.of([call(cost=None)])
    assert (cost_of(unpriced), tokens_of(unpriced)) == ("?", "100")
    assert cost_of(unpriced + Usage.of([call()])) == "$0.0020+"
    silent = Usage.of([evolve(call(cost=None), usage=TokenUsage(source="unknown"))])
    assert (cost_of(silent), tokens_of(silent)) == ("?", "?")
    assert (cost_of(Usage()), tokens_of(Usage())) == ("", "")


def test_texts_are_made_harmless() -> None:
    """Control characters become visible, secrets go, and what a stream can't write is escaped."""
    process.redactor.register("hunter2-hunter2")
    assert visible("a\x1b[2J\n\u202eb") == r"a\x1b[2J\n\u202eb"
    assert clean_for("ascii")("clé hunter2-hunter2 \udc80") == r"cl\xe9 [redacted] \udc80"


# The tree as text


def test_the_tree_as_text() -> None:
    """Steps with their state, fan-outs folded, figures in columns, the error below its step."""
    ask, *many = steps("ask", *["sum"] * 5)
    many[4] = evolve(many[4], state="running")
    bad = StepMetrics(6, "check", "failed", 7.0, 1.0, attempts=3, error="ValueError: no")
    used = Usage.of([call(0)])
    run_ = metrics(evolve(ask, usage=used), *many, bad, usage=used, state="failed", error="ValueError: no")
    assert text_of(view_of(run_)).splitlines() == [
        "✗ talk  failed                 8.00 s  100 tok  $0.0020",
        "├─ ✓ ask                       1.00 s  100 tok  $0.0020",
        "├─ ● sum ×5  4 done 1 running  5.00 s",
        "└─ ✗ check  failed  2 retries  1.00 s",
        "      ValueError: no",
    ]


@pytest.mark.parametrize("width", [10, 24, 40, 80])
def test_lines_fit_their_width(width: int) -> None:
    """Whatever the names are, and however deep the tree is."""
    names = ["日本語の名前" * 9, "[bold]x[/bold]", EVIL, *["s"] * 20]
    parts = [
        StepMetrics(
            i, name, "failed", i, 1, parent=i - 1 if i else None, error=name * 9, usage=Usage.of([call()])
        )
        for i, name in enumerate(names)
    ]
    lines = lines_of(view_of(metrics(*parts, error="x" * 200, state="failed")), width)
    assert max(cell_len("".join(text for text, _ in line)) for line in lines) <= width
    assert all(text.isprintable() for line in lines for text, _ in line)


def test_the_tree_in_ascii() -> None:
    """Where a stream can't write more, nothing more is written."""
    lines = lines_of(view_of(metrics(*steps("a", "b"))), 60, ASCII, frame=3)
    assert "".join(text for line in lines for text, _ in line).isascii()


def test_what_goes_on_turns() -> None:
    """A spinner for what runs, the attempt it is in, and one word for a fan-out of one state."""
    retried = StepMetrics(0, "ask", "running", 0.0, 1.0, attempts=2)
    many = [StepMetrics(i, "sum", "running", 1.0, 1.0) for i in range(1, 6)]
    lines = lines_of(view_of(metrics(retried, *many, state="running")), 60, ASCII, frame=1)
    texts = ["".join(text for text, _ in line).rstrip() for line in lines]
    assert [text.partition("   ")[0] for text in texts] == [
        "/ talk  running",
        "|- / ask  attempt 2",
        "`- / sum x5  running  1.00 s",
    ]


def test_a_tree_that_does_not_fit_shows_its_head_and_its_newest_lines() -> None:
    """Cut in the middle, with a note."""
    from flowlet.display._tree import _shortened

    lines = lines_of(view_of(metrics(*steps(*map(str, range(30))))))
    shown = ["".join(text for text, _ in line) for line in _shortened(lines, 10)]
    assert len(shown) == 10
    assert "talk" in shown[0]
    assert shown[1] == "   and 22 lines before"
    assert "29" in shown[-1]
    assert _shortened(lines, 31) == lines


# Plain lines


def info(run_id: str = "r1", parent: str | None = None, workflow: str = "talk") -> RunInfo:
    return RunInfo(run_id, workflow, "r1", parent)


def written(events: Iterable[Event], encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, newline="\n")
    Lines(stream).show(events)
    return raw.getvalue().decode(encoding)


def test_plain_lines() -> None:
    """One for every change of state, with what it took, and why it was not the last."""
    retried = StepRetried(info(), 1001.2, "ask", 0, 1, 0.5, "OSError: busy")
    model = ModelRetried(info(), 1001.3, "ask", "openai:gpt-5-mini", 1, 0.2, "rate_limit")
    finished = StepFinished(info(), 1002.0, "ask", 0, "completed", 1.0, 2)
    events = [
        RunStarted(info(), 1000.0),
        StepStarted(info(), 1001.0, "ask", 0),
        retried,
        model,
        ModelCalled(info(), 1001.9, call(0)),
        finished,
        RunStarted(info("r2", "r1", "child"), 1002.0),
        RunFinished(info("r2", "r1", "child"), 1002.5, "cancelled", 0.5),
        RunFinished(info(), 1003.0, "failed", 3.0, "ValueError: no"),
    ]
    assert written(events).splitlines() == [
        "talk r1  running",
        "talk r1  ask #0  running",
        "talk r1  ask #0  attempt 1 failed, the next in 500 ms: OSError: busy",
        "talk r1  ask openai:gpt-5-mini  attempt 1 failed, the next in 200 ms: rate_limit",
        "talk r1  ask #0  done in 1.00 s, 2 attempts, 100 tokens, $0.0020",
        "child r2  running",
        "child r2  cancelled in 500 ms",
        "talk r1  failed in 3.00 s, 100 tokens, $0.0020: ValueError: no",
    ]


def test_plain_lines_have_no_control_codes() -> None:
    """A name can't move the cursor, break the line, or be more than the stream can write."""
    events = [RunStarted(info(workflow=EVIL + "\nclé"), 0.0)]
    text = written(events, "ascii")
    assert text.count("\n") == 1
    assert text[:-1].isprintable()


def test_a_run_that_was_cancelled_before_it_began_is_told() -> None:
    """Its end is the first that is heard of it; what comes late from a run that is over is not told."""
    events = [
        RunFinished(info(), 1000.0, "cancelled", 0.5),
        StepFinished(info(), 1001.0, "late", 0, "cancelled", 1.0),
        RunFinished(info("r2", "r1"), 1001.0, "cancelled", 0.5),
    ]
    assert written(events) == "talk r1  cancelled in 500 ms\n"


def test_the_tracker_knows_what_the_events_told() -> None:
    """The same figures as those of the run itself, child runs and cut-off steps included."""
    tracker = Tracker()
    for event in (
        RunStarted(info(), 1000.0),
        StepStarted(info(), 1001.0, "ask", 0),
        StepRetried(info(), 1001.5, "ask", 0, 1, 0.5, "busy"),
        RunStarted(info("r2", "r1", "child"), 1002.0),
        ModelCalled(info("r2", "r1"), 1002.5, call()),
    ):
        tracker.apply(event)
    going = tracker.roots["r1"].metrics(1004.0)
    assert (going.duration, going.steps[0].duration, going.steps[0].attempts) == (4.0, 3.0, 2)
    assert (going.usage.calls, going.children[0].workflow) == (1, "child")
    tracker.apply(RunFinished(info(), 1005.0, "timeout", 5.0, "WorkflowTimeout: 5 s"))
    over = tracker.roots["r1"].metrics(1009.0)
    assert (over.steps[0].state, over.steps[0].duration) == ("timeout", 4.0)
    tracker.forget(tracker.roots["r1"])
    assert not tracker.runs


# Live


@step
def double(x: int) -> int:
    return 2 * x


@step
async def triple(x: int) -> int:
    return 3 * x


@workflow
def talk(n: int) -> int:
    """Count *n* up."""
    return sum(pmap(double, range(n)))


@workflow
async def atalk(n: int) -> int:
    return sum([await triple(i) for i in range(n)])


@workflow
def broken() -> None:
    double(1)
    raise ValueError(EVIL)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def seen(terminal: Terminal) -> str:
    """What was written, without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", terminal.getvalue())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    return Terminal()


@pytest.mark.parametrize("body", [talk, atalk])
def test_a_run_is_shown_as_lines_where_there_is_no_terminal(
    background: str, body: Callable[[int], int]
) -> None:
    """Of both kinds of workflow, on both backends; afterwards nobody listens any more."""
    stream = io.StringIO()
    with live(stream=stream):
        handle = start(body, 5)
        handle.result()
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("talk " + handle.id + "  running")
    assert re.search(r" done in [\d.<]+ m?s$", lines[-1])
    assert len(lines) == 2 + 2 * 5
    assert not process.settings.observers


@pytest.mark.parametrize("body", [talk, atalk])
def test_a_run_is_shown_as_a_tree_in_a_terminal(
    background: str, body: Callable[[int], int], terminal: Terminal
) -> None:
    """It stays on the screen when the run has ended, with its fan-out folded."""
    with live(stream=terminal):
        start(body, 5).result()
    assert "talk  done" in seen(terminal)
    assert " ×5" in seen(terminal)
    shown, hidden = (terminal.getvalue().rindex(f"\x1b[?25{code}") for code in "hl")
    assert shown > hidden, "the cursor is back"


def test_a_failure_is_shown_with_its_text_as_text(terminal: Terminal) -> None:
    """Markup and control characters in it do nothing."""
    with live(stream=terminal), pytest.raises(ValueError, match="script"):
        run(broken)
    assert "[bold]" in seen(terminal).replace("\n", "").replace(" ", "")
    assert "\x1b[2J" not in terminal.getvalue()


def test_many_runs_at_once(background: str, terminal: Terminal) -> None:
    """Each has its tree at the end."""
    with live(stream=terminal):
        for handle in [start(talk, 3) for _ in range(50)]:
            handle.result()
    assert seen(terminal).count("talk  done") >= 50


def test_what_goes_on_when_the_display_ends_is_shown_as_it_is(
    background: str, terminal: Terminal, trap: Trap
) -> None:
    """And the run does not notice."""

    @workflow
    def stuck() -> int:
        trap.sleep()
        return 1

    with live(stream=terminal):
        handle = start(stuck)
        trap.wait_entered()
    assert "stuck  running" in seen(terminal)
    trap.open.set()
    assert handle.result() == 1


def test_quiet_shows_nothing() -> None:
    """No display is made at all."""
    stream = io.StringIO()
    with live(quiet=True, stream=stream):
        run(talk, 2)
    assert stream.getvalue() == ""


def test_a_stream_has_one_display() -> None:
    """A program shows its runs, and a library that it calls does so too: they are told once."""
    stream = io.StringIO()
    with live(stream=stream), live(stream=stream):
        run(talk, 1)
    assert len(stream.getvalue().splitlines()) == 4


def test_a_display_needs_no_block(background: str) -> None:
    """It shows all runs from then on, until it is closed."""
    stream = io.StringIO()
    shown = live(stream=stream)
    run(talk, 1)
    shown.close()
    run(talk, 1)
    assert len(stream.getvalue().splitlines()) == 4
    assert not process.settings.observers


def test_a_display_without_a_block_ends_with_the_program() -> None:
    """All that happened is told, though the program ends at once."""
    code = "import flowlet; flowlet.live(); flowlet.run(flowlet.workflow(lambda: None, name='tiny'))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert [line.split()[2] for line in ended.stderr.splitlines()] == ["running", "done"]


@pytest.mark.parametrize("wrong", [None, talk])
def test_a_report_of_what_is_no_run_says_what_it_takes(wrong: Any, tmp_path: Path) -> None:
    """Such as the result in place of the run, or the workflow."""
    with pytest.raises(DefinitionError, match=f"takes a handle.* not {type(wrong).__name__}"):
        report(wrong, tmp_path / "run.html")
    assert not list(tmp_path.iterdir())


def test_other_observers_stay() -> None:
    """Those that were there before, and those that came meanwhile."""
    heard: list[Event] = []
    later: list[Event] = []
    configure(observers=[heard.append])
    with live(stream=io.StringIO()):
        configure(observers=[*process.settings.observers, later.append])
    assert process.settings.observers == (heard.append, later.append)


def test_a_stream_that_nobody_reads_does_no_harm() -> None:
    """A closed pipe ends the display, not the run."""
    stream = io.StringIO()
    stream.close()

    class Closed(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    with live(stream=Closed()):
        assert run(talk, 2) == 2


def test_a_display_that_fails_is_reported() -> None:
    """Once, to the other observers, and without a traceback on the terminal."""
    heard: list[Event] = []
    configure(observers=[heard.append])

    def broken_painter(stream: object) -> Lines:
        raise KeyError("painter")

    Display(io.StringIO(), broken_painter).close()
    (event,) = heard
    assert "KeyError" in str(event)


# HTML


class Checked(HTMLParser):
    """Fails unless every element is closed in its order; collects elements and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def evil() -> ExecutionMetrics:
    """A run whose every text tries to be more than text."""
    record = evolve(call(0), model=EVIL, step=EVIL, error=EVIL, ok=False, finish_reason=EVIL)
    parts = [evolve(one, error=EVIL, state="failed") for one in steps(EVIL, *[EVIL + "x"] * 5)]
    child = metrics(*steps(EVIL), workflow=EVIL, tags=(EVIL,))
    return metrics(
        *parts, workflow=EVIL, run_id=EVIL, state="failed", error=f"E: {EVIL}", tags=(EVIL,),
        calls=(record,), children=(child,), parent_id=EVIL,
    )  # fmt: skip


ATTRIBUTES = {"class", "style", "title", "scope", "colspan", "charset", "content", "name", "lang"}
ATTRIBUTES |= {"aria-label", "aria-hidden", "role", "tabindex"}


def harmless(text: str) -> Checked:
    page = Checked(text)
    assert not page.elements & {"script", "img", "link", "iframe", "object"}
    assert page.attributes <= ATTRIBUTES
    assert not re.search(r"https?:|//|url\(|@import|javascript:", text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    return page


def test_a_report_is_well_formed_and_needs_nothing_else(evil: ExecutionMetrics) -> None:
    """Every text is escaped, and nothing is loaded from anywhere."""
    page = harmless(page_of(view_of(evil)))
    assert {"title", "h1", "table", "dl", "footer"} <= page.elements
    assert any("<script>" in text for text in page.text)


def test_a_page_without_steps_and_time() -> None:
    """A run that has not begun has a page too."""
    harmless(page_of(view_of(metrics(state="pending", duration=0.0))))


def test_a_fan_out_of_thousands_stays_readable() -> None:
    """Bars that can't be told apart are one; the page does not grow with them."""
    many = [StepMetrics(i, "s", "completed", i * 0.001, 0.001) for i in range(5000)]
    page = page_of(view_of(metrics(*many, duration=5.0)))
    timeline = page[page.index("<h2>Timeline") : page.index("<h2>Steps")]
    assert 1 <= timeline.count("<i ") < 700


def test_the_report_is_written_as_a_whole(tmp_path: Path) -> None:
    """From a handle or from metrics, and nothing else is left behind."""
    path = tmp_path / "run.html"
    path.write_text("old")
    handle = start(talk, 5)
    handle.result()
    assert report(handle, path) == path
    harmless(path.read_text("utf-8"))
    assert report(handle.metrics, str(path)) == path
    assert [file.name for file in tmp_path.iterdir()] == ["run.html"]


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no reason to lose what was there."""
    path = tmp_path / "run.html"
    path.write_text("old")

    def full(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        report(metrics(), path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("run.html", "old")]


def test_a_failure_has_its_line(background: str, tmp_path: Path) -> None:
    """A handle knows the error itself, and so where it was raised."""
    handle = start(broken)
    with pytest.raises(ValueError, match="script"):
        handle.result()
    text = report(handle, tmp_path / "run.html").read_text("utf-8")
    assert re.search(r"test_display\.py:\d+ in broken", text)


# Notebooks


@pytest.mark.parametrize("body", [talk, atalk])
def test_runs_metrics_and_workflows_show_themselves(background: str, body: Callable[[int], int]) -> None:
    """As text and as static HTML."""
    handle = start(body, 5)
    handle.result()
    for value in (handle, handle.metrics, body, double):
        bundle = mimebundle(value)
        assert bundle is not None
        assert set(bundle) == {"text/plain", "text/html"}
        harmless(bundle["text/html"])
    assert mimebundle(print) is None


def test_a_workflow_shows_signature_and_docstring() -> None:
    """What one wants to know before calling it."""
    bundle = mimebundle(talk)
    assert bundle is not None
    assert bundle["text/plain"] == "workflow\ndef talk(n: int) -> int\nCount *n* up."


def test_ipython_is_told_what_is_ours() -> None:
    """Other functions stay as they were."""
    formatters = pytest.importorskip("IPython.core.formatters")
    shell = SimpleNamespace(display_formatter=formatters.DisplayFormatter())
    register(shell)
    assert "text/html" in shell.display_formatter.format(talk)[0]
    assert "text/html" in shell.display_formatter.format(metrics())[0]
    assert "text/html" not in shell.display_formatter.format(test_quiet_shows_nothing)[0]


def test_importing_flowlet_in_ipython_is_enough() -> None:
    """No extension to load."""
    pytest.importorskip("IPython")
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(history_manager=None)
import flowlet
@flowlet.workflow
def talk() -> int: return 1
flowlet.run(talk)
print(shell.display_formatter.format(flowlet.last_run())[0]["text/plain"])
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert re.fullmatch(r"✓ talk  done  \S+ m?s", ran.stdout.strip()), ran.stderr
