"""Plugins: found by name when they are asked for, guarded when they are used."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from attrs import define

from flowlet import (
    DefinitionError,
    PluginError,
    _plugins,
    arun,
    configure,
    get_step,
    is_step,
    prompt,
    register_step,
    run,
    step,
    workflow,
)
from flowlet._entry_points import Entry, entries
from flowlet.cli import main
from flowlet.events import PluginFailed
from rig import Heard


def install(folder: Path, name: str, code: str, points: str, version: str = "1.2", needs: str = "") -> None:
    """Put a distribution *name* on *folder*, with one module of *code* and the entry points *points*."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed packages."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", "").startswith(str(tmp_path)):
            del sys.modules[name]


def brew(leaf: str) -> str:
    """Brew tea."""
    return f"tea of {leaf}"


async def abrew(leaf: str) -> str:
    return f"tea of {leaf}"


def test_a_registered_function_is_a_step(backend: str) -> None:
    """By its name, of either colour, recorded as that."""
    register_step("brew-tea", brew)
    register_step("abrew", abrew)
    names = []

    @workflow
    def tea(leaf: str) -> list[str]:
        return [get_step("brew-tea")(leaf), run(get_step("abrew"), leaf)]

    def told(call, next):
        names.append(getattr(call, "step", None))
        return next(call)

    configure(backend=backend, middleware=[told])
    assert run(tea, "mint") == ["tea of mint"] * 2
    assert names == [None, "brew-tea", "abrew"]
    assert is_step(get_step("brew-tea"))
    assert get_step("brew-tea").__doc__ == "Brew tea."


@pytest.mark.anyio
async def test_registered_steps_serve_async_code() -> None:
    """A sync one moves to a thread."""
    register_step("brew", brew)
    register_step("abrew", abrew)

    @workflow
    async def tea(leaf: str) -> list[str]:
        return [get_step("brew")(leaf), await get_step("abrew")(leaf)]

    assert await arun(tea, "mint") == ["tea of mint"] * 2


def test_a_step_keeps_its_options() -> None:
    """A function that is a step already stays what it is."""
    marked = step(timeout=7)(brew)
    register_step("brew", marked)
    assert get_step("brew").__flowlet__.step.timeout == 7


def test_a_later_registration_counts() -> None:
    """Cells of a notebook are run again."""
    register_step("brew", brew)
    assert get_step("brew") is get_step("brew")
    register_step("brew", lambda leaf: "coffee")
    assert get_step("brew")("mint") == "coffee"


def test_an_unknown_step_names_the_nearest() -> None:
    """And says how to make one known."""
    register_step("brew", brew)
    with pytest.raises(
        PluginError, match=r"no step 'brw'; did you mean 'brew'\?.*register_step\('brw', fn\)"
    ):
        get_step("brw")


@pytest.mark.parametrize("name", ["", " ", "a:b", 3])
def test_names_are_checked(name: object) -> None:
    """A colon would make it a place in code."""
    with pytest.raises(DefinitionError, match="can't name a step"):
        register_step(name, brew)  # type: ignore[arg-type]


def test_what_can_not_be_called_is_no_step() -> None:
    """Said when it is registered."""
    with pytest.raises(DefinitionError, match="expected a function or a StepPlugin, found str"):
        register_step("brew", "brew")  # type: ignore[arg-type]


def test_an_installed_step_is_found_by_its_name(site: Path) -> None:
    """Through its entry point."""
    install(
        site,
        "tea-steps",
        "def brew(leaf):\n    return leaf.upper()\n",
        "[flowlet.steps]\nbrew = tea_steps:brew\n",
    )
    assert run(get_step("brew"), "mint") == "MINT"


def test_what_is_registered_wins_over_what_is_installed(site: Path) -> None:
    """The own code has the last word."""
    install(
        site,
        "tea-steps",
        "def brew(leaf):\n    return 'installed'\n",
        "[flowlet.steps]\nbrew = tea_steps:brew\n",
    )
    register_step("brew", brew)
    assert get_step("brew")("mint") == "tea of mint"


def test_what_is_installed_meanwhile_is_found(site: Path) -> None:
    """A miss is remembered until a directory changes."""
    with pytest.raises(PluginError, match="no step 'brew'"):
        get_step("brew")
    install(
        site,
        "tea-steps",
        "def brew(leaf):\n    return 'installed'\n",
        "[flowlet.steps]\nbrew = tea_steps:brew\n",
    )
    assert get_step("brew")("mint") == "installed"


def test_what_is_not_there_is_looked_for_once(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a directory of the path changes, which costs a look at each."""
    scans = []

    def counted() -> list[Entry]:
        scans.append(1)
        return list(entries())

    monkeypatch.setattr(_plugins, "entries", counted)
    for name in ("brew", "brew", "other"):
        with pytest.raises(PluginError, match="there is no step"):
            get_step(name)
    assert len(scans) == 1
    install(site, "tea-steps", "def brew(leaf):\n    return leaf\n", BREW)
    assert get_step("brew")("mint") == "mint"
    assert len(scans) == 2


def test_import_scans_nothing() -> None:
    """Only a name that is not known makes flowlet look at what is installed."""
    code = (
        "import sys; from flowlet import *; "
        "print('importlib.metadata' in sys.modules, 'packaging' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


# --- what there is -------------------------------------------------------------------------------

BREW = "[flowlet.steps]\nbrew = tea_steps:brew\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import kettle", "tea_steps:brew can't be imported: ModuleNotFoundError: No module named 'kettle'"),
        ("import sys; sys.exit(3)", "can't be imported: SystemExit: 3"),
        ("raise KeyboardInterrupt", "can't be imported: KeyboardInterrupt"),
        ("class Odd(BaseException): pass\nraise Odd", "can't be imported: Odd"),
        ("tea = 1", "can't be imported: AttributeError"),
        ("brew = 3", "expected a function or a StepPlugin, found int"),
        ("class brew:\n    def __call__(self): ...\n    def open(self): ...", "brew has no close"),
    ],
)
def test_a_broken_step_says_why(code: str, reason: str, site: Path, heard: Heard) -> None:
    """Each time that it is asked for; and it is told once, with its distribution."""
    install(site, "tea-steps", code, BREW)
    for _ in range(2):
        with pytest.raises(PluginError, match="step 'brew' of tea-steps 1.2 can't be used: ") as caught:
            get_step("brew")
        assert reason in str(caught.value)
    (event,) = heard.of(PluginFailed)
    assert (event.plugin, event.distribution, event.version) == ("step brew", "tea-steps", "1.2")


def test_the_command_lists_what_there_is(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its source."""
    install(site, "tea-steps", "def brew(): ...\n", BREW)
    register_step("own", brew)
    assert main(["plugins"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["provider", "openai", "built", "in", "flowlet"] in lines
    assert ["step", "brew", "tea-steps", "1.2", "tea_steps:brew"] in lines
    assert ["step", "own", "registered", "test_plugins:brew"] in lines


def test_the_command_tells_what_is_broken(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And why; its code says so."""
    install(site, "tea-steps", "import kettle", BREW)
    install(site, "odd", "", "[flowlet.providers]\nno equals sign\n")
    install(site, "late", "", "[flowlet.middleware]\nguard = late:guard\n", needs="Requires-Python: >=4\n")
    install(site, "shadow", "x = 1", "[flowlet.providers]\nopenai = shadow:x\n")
    assert main(["plugins", "--json"]) == 2
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert not told["ok"]
    assert err == ""
    broken = {(p["kind"], p["name"], p["from"]): p["error"] for p in told["plugins"] if not p["ok"]}
    assert set(broken) == {
        ("provider", "?", "odd ?"),
        ("provider", "openai", "shadow 1.2"),
        ("step", "brew", "tea-steps 1.2"),
        ("middleware", "guard", "late 1.2"),
    }
    assert "No module named 'kettle'" in broken["step", "brew", "tea-steps 1.2"]
    assert "entry points can't be read" in broken["provider", "?", "odd ?"]
    assert "needs Python >=4" in broken["middleware", "guard", "late 1.2"]
    assert main(["plugins"]) == 2
    assert "  broken: tea_steps:brew can't be imported" in capsys.readouterr().out


def test_check_notes_middleware_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code may still register it, so it is no fault."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowlet.yaml").write_text("model: offline\nmiddleware: [gard]\n", encoding="utf-8")
    assert main(["check"]) == 0
    assert "there is no middleware 'gard'" in capsys.readouterr().out


# --- what may be registered ----------------------------------------------------------------------


@define
class Suffixed:
    """No hash, as it can be compared."""

    suffix: str

    def __call__(self, leaf: str) -> str:
        return leaf + self.suffix


class Pot:
    def brew(self, leaf: str) -> str:
        return brew(leaf)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (str.upper, "MINT"),
        (partial(brew), "tea of mint"),
        (Suffixed("!"), "mint!"),
        (Pot().brew, "tea of mint"),
        (lambda leaf: leaf, "mint"),
        (str, "mint"),
        (workflow(lambda leaf: get_step("brew-inside")(leaf)), "tea of mint"),
        (prompt("Say {leaf}"), "[offline] No model was asked. The prompt began:\nSay mint"),
    ],
    ids=["builtin", "partial", "object", "method", "lambda", "class", "workflow", "prompt"],
)
def test_whatever_can_be_called_is_a_step(value: object, result: str) -> None:
    """And works in a run."""
    configure(model="offline")
    register_step("brew-inside", brew)
    register_step("any", value)  # type: ignore[arg-type]
    assert run(get_step("any"), "mint") == result
