"""The pytest plugin, in sessions of its own."""

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest

from flowlet._live_calls import LIVE
from flowlet.errors import ConfigError
from flowlet.providers._openai_account import Account
from rig import ALL_MODULES

pytest_plugins = "pytester"
LOADED = [*map(import_module, (*ALL_MODULES, "hypothesis"))]  # what sessions forget, each would load anew

HEAD = """
import anyio, pytest
from flowlet import LLM, AsyncLLM, Budget, BudgetExceeded, TokenUsage, configure, register_provider, run, step
from flowlet.messages import Completion
from flowlet.testing import MockProvider, SyncMockProvider

USED = TokenUsage(10, 5, 15)

@step
def ask(question, llm=LLM("mock:any")):
    return llm.ask(question)

@step
async def aask(question, llm=AsyncLLM("mock:any")):
    return await llm.ask(question)

def live():
    mock = MockProvider(lambda request: request.messages[-1].content.upper(), usage=USED)
    register_provider("mock", mock)
    return mock
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run pytest on a file of tests; gives its result."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER_COUNT"):  # of the session that these tests are in
        monkeypatch.delenv(name, raising=False)

    def session(tests: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=HEAD + tests)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "error", *options)

    return session


# --- start-up --------------------------------------------------------------------------------------


def test_it_is_loaded_by_its_entry_point(pytester: pytest.Pytester) -> None:
    """Its options and markers are there."""
    told = pytester.runpytest_inprocess("--help").stdout.str()
    assert "--flowlet-live" in told
    assert "--flowlet-record" in told
    told = pytester.runpytest_inprocess("--markers").stdout.str()
    assert "flowlet_recording(file=None, mode=None)" in told
    assert "flowlet_budget(" in told


def test_nothing_heavy_is_loaded_with_it(pytester: pytest.Pytester) -> None:
    """A session that uses nothing of flowlet pays nothing for it."""
    pytester.makepyfile(
        """
        import sys
        def test_it(request):
            assert request.config.pluginmanager.hasplugin("flowlet")
            mine = {name for name in sys.modules if name.partition(".")[0] == "flowlet"}
            assert mine == {"flowlet", "flowlet.pytest_plugin"}
            assert not {"openai", "attrs", "greenlet", "loguru", "rich"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:anyio", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    assert "flowlet:" not in result.stdout.str()


# --- live calls ------------------------------------------------------------------------------------


def test_no_live_call_is_made_by_mistake(session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key alone does not allow it; the error says what does."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key-of-this-test")
    result = session("def test_it():\n    LLM('openai:gpt-5').ask('hi')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a live call of https://api.openai.com/v1 in a test was not asked for*"])
    result.stdout.fnmatch_lines(["*pytest --flowlet-live*"])


@pytest.mark.parametrize("way", ["registered", "installed"])
def test_no_provider_makes_a_live_call_by_mistake(session, pytester: pytest.Pytester, way: str) -> None:
    """Those of plugins and of one's own are not asked; the flag allows it, and a fake says that it is none."""
    provider = """
    from flowlet.messages import Completion
    from flowlet.metrics import TokenUsage

    class Acme:
        def complete(self, request):
            return Completion("from elsewhere", TokenUsage())
    """
    pytester.makepyfile(acme=provider)
    info = pytester.mkdir("acme-1.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[flowlet.providers]\nacme = acme:Acme\n")
    pytester.syspathinsert()
    known = "from flowlet.settings import process\nprocess.reset()\nimport acme\n"
    if way == "registered":
        known += "from flowlet import register_provider\nregister_provider('acme', acme.Acme())\n"
    test = f"{known}def test_it():\n    assert LLM('acme:1').ask('hi') == 'from elsewhere'\n"
    result = session(test)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a live call of provider acme in a test was not asked for*"])
    result.stdout.fnmatch_lines(["*run pytest --flowlet-live*", "*a fake of your own says live = False*"])
    session(test, "--flowlet-live").assert_outcomes(passed=1)
    session(test.replace("import acme\n", "import acme\nacme.Acme.live = False\n")).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("live", "key", "url", "allowed"),
    [
        (None, None, "https://models.example/v1", True),
        ("no", "a-key", "https://models.example/v1", False),
        ("yes", None, "https://models.example/v1", False),
        ("no", "a-key", "https://127.models.example/v1", False),
        ("yes", "a-key", "https://models.example/v1", True),
        ("no", None, "http://127.0.0.1:8000/v1", True),
        ("no", None, "http://localhost:8000/v1", True),
        ("no", None, "http://[::1]:8000/v1", True),
    ],
)
def test_live_calls_need_flag_and_key(
    monkeypatch: pytest.MonkeyPatch, live: str | None, key: str | None, url: str, allowed: bool
) -> None:
    """Servers on this machine need neither."""
    monkeypatch.delenv(LIVE, raising=False)
    if live is not None:
        monkeypatch.setenv(LIVE, live)
    account = Account.of(key, url)
    if allowed:
        account.check_live()
    else:
        with pytest.raises(ConfigError, match=r"models\.example"):
            account.check_live()


def test_the_flag_is_told_to_children_and_forgotten(session) -> None:
    """A subprocess of a test is not live either; after the session the environment is as it was."""
    before = os.environ.get(LIVE)
    test = f"def test_it():\n    import os\n    assert os.environ['{LIVE}'] == "
    session(test + "'no'").assert_outcomes(passed=1)
    session(test + "'yes'", "--flowlet-live").assert_outcomes(passed=1)
    assert os.environ.get(LIVE) == before


# --- recordings ------------------------------------------------------------------------------------

RECORDED = """
@pytest.fixture(autouse=True)
def model():
    if {live}:
        live()

@pytest.mark.flowlet_recording("talk.json")
def test_marked():
    assert run(ask, "a") == "A"

def test_fixture(flowlet_recording):
    assert ask("b") == "B"

class TestClass:
    @pytest.mark.parametrize("x", ["c d"])
    def test_method(self, flowlet_recording, x):
        assert ask(x) == "C D"

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture
async def early(anyio_backend):
    await anyio.lowlevel.checkpoint()
    yield

@pytest.mark.anyio
async def test_async(early, flowlet_recording):
    assert await aask("e") == "E"

@pytest.mark.anyio
@pytest.mark.flowlet_recording("talk.json")
async def test_async_of_a_sync_recording():
    assert await aask("a") == "A"
"""


def test_recordings_are_made_once_and_replayed(session, pytester: pytest.Pytester) -> None:
    """By fixture and by marker, in sync and async tests, in files beside the tests."""
    session(RECORDED.format(live=True), "--flowlet-record=once").assert_outcomes(passed=7)
    names = sorted(str(path.relative_to(pytester.path)) for path in pytester.path.rglob("*.json"))
    assert names == [
        "recordings/test_it/TestClass.test_method_c_d.json",
        "recordings/test_it/test_async_asyncio.json",
        "recordings/test_it/test_async_trio.json",
        "recordings/test_it/test_fixture.json",
        "talk.json",
    ]
    gone = "from flowlet.settings import process\nprocess.reset()\n"
    result = session(gone + RECORDED.format(live=False))
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["flowlet: 0 model calls (0 tokens, $0), 7 replayed"])


def test_a_call_that_was_not_recorded_fails(session, pytester: pytest.Pytester) -> None:
    """Without the flag nothing is recorded, and the message says how."""
    test = "def test_it(flowlet_recording):\n    live()\n    ask('a')"
    result = session(test)
    result.assert_outcomes(failed=1, errors=0)
    result.stdout.fnmatch_lines(["*there is no recording *test_it.json*", "*--flowlet-record=all*"])
    assert not list(pytester.path.rglob("*.json"))


def test_a_failed_test_keeps_what_it_recorded(session, pytester: pytest.Pytester) -> None:
    """The model was paid already; and unused calls of a failed replay are no news."""
    test = "def test_it(flowlet_recording):\n    live()\n    ask('a')\n    ask('b')\n    pytest.fail('on purpose')"
    session(test, "--flowlet-record=all").assert_outcomes(failed=1)
    (file,) = pytester.path.rglob("*.json")
    assert len(json.loads(file.read_text())["interactions"]) == 2
    session(test.replace("    ask('b')\n", "")).assert_outcomes(failed=1, errors=0)


def test_the_marker_may_say_the_mode(session, pytester: pytest.Pytester) -> None:
    """The option wins over it."""
    test = "@pytest.mark.flowlet_recording('a.json', mode='once')\ndef test_it():\n    live()\n    ask('a')"
    session(test, "--flowlet-record=off").assert_outcomes(passed=1)
    assert not (pytester.path / "a.json").exists()
    session(test).assert_outcomes(passed=1)
    assert (pytester.path / "a.json").exists()


# --- mocks -----------------------------------------------------------------------------------------


def test_a_mock_is_the_model_of_its_test(session) -> None:
    """As the default model, or in the place of one that is pinned; afterwards it is gone."""
    result = session(
        """
def test_default(flowlet_mock):
    mock = flowlet_mock(["Leaves."])
    assert LLM().ask("tea?") == "Leaves."
    assert mock.requests[0].messages[-1].content == "tea?"

def test_pinned(flowlet_mock):
    flowlet_mock(["Leaves."], name="openai")
    assert LLM("openai:gpt-5").ask("tea?") == "Leaves."

def test_afterwards():
    from flowlet.settings import process
    assert not process.settings.providers
"""
    )
    result.assert_outcomes(passed=3)


def test_a_marker_mocks_the_model(session) -> None:
    """Without the fixture; it takes what the fixture's function takes, and its answers are to be used up."""
    result = session(
        """
@pytest.mark.flowlet_mock(["Leaves."])
def test_default():
    assert LLM().ask("tea?") == "Leaves."

@pytest.mark.flowlet_mock(["Beans."], name="openai")
@pytest.mark.anyio
async def test_pinned():
    assert await AsyncLLM("openai:gpt-5").ask("coffee?") == "Beans."

@pytest.mark.flowlet_mock(["Leaves."])
def test_unused():
    pass
"""
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*1 of 1 answers were not used*"])


def test_an_unused_answer_fails_the_test(session) -> None:
    """The test itself, not its end."""
    result = session("def test_it(flowlet_mock):\n    flowlet_mock(['Leaves.'])")
    result.assert_outcomes(failed=1, errors=0)
    result.stdout.fnmatch_lines(["*1 of 1 answers were not used*"])


# --- budgets ---------------------------------------------------------------------------------------


def test_a_test_is_held_to_its_budget(session) -> None:
    """The call beyond it is refused, and one that went beyond it fails the test."""
    result = session(
        """
@pytest.mark.flowlet_budget(calls=2)
def test_within():
    live()
    ask("a"), ask("b")

@pytest.mark.flowlet_budget(calls=1)
def test_refused():
    live()
    ask("a")
    with pytest.raises(BudgetExceeded):
        ask("b")

@pytest.mark.flowlet_budget(tokens=10)
def test_passed_by_one_call():
    live()
    ask("a")

def test_without():
    live()
    for _ in range(5):
        ask("a")
"""
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*more than its flowlet_budget (tokens: 15 of 10)*"])
    result.stdout.fnmatch_lines(["flowlet: 9 model calls (135 tokens, $0), 0 replayed"])


def test_replayed_calls_use_no_budget(session) -> None:
    """They were paid when they were recorded."""
    test = """
@pytest.mark.flowlet_budget(calls=0)
def test_it(flowlet_recording):
    ask("a")
"""
    session("def test_it(flowlet_recording):\n    live()\n    ask('a')", "--flowlet-record=once")
    session(test).assert_outcomes(passed=1)


def test_the_session_has_a_budget(session) -> None:
    """When it is used up, the calls of further tests are refused; the summary tells it."""
    result = session(
        """
from decimal import Decimal

class Dear(SyncMockProvider):
    def price(self, model, usage):
        return Decimal("0.4") if usage == USED else Decimal("0.1")

@pytest.mark.parametrize("number", range(5))
def test_it(number):
    register_provider("mock", Dear(lambda request: "yes", usage=USED))
    ask("a")
""",
        "--flowlet-budget=1",
    )
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(["flowlet: 3 model calls (45 tokens, $1.2 of $1), 0 replayed"])


def test_workers_of_xdist_are_summed_up(session, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they used is in the summary, and each has its share of the session's budget."""
    pytest.importorskip("xdist")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    test = """
@pytest.mark.parametrize("number", range(6))
def test_it(number):
    live()
    ask("a")
"""
    result = session(test, "-p", "xdist", "-n", "2", "--flowlet-budget=1")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["flowlet: 6 model calls (90 tokens, $0 of $1), 0 replayed"])


@pytest.mark.parametrize("wrong", ["much", "-1", "nan"])
def test_a_wrong_budget_is_told(session, wrong: str) -> None:
    """Before any test runs."""
    result = session("def test_it():\n    pass", f"--flowlet-budget={wrong}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_the_plugin_alone_is_quick() -> None:
    """It imports pytest, the package root, and nothing else that is not Python's own."""
    code = (
        "import sys, pytest; before = set(sys.modules); import flowlet.pytest_plugin\n"
        "print(*sorted({n.partition('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["flowlet"]
