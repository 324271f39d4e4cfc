"""What settings there are: their values and defaults. The rules that hold for them are in ``_settings_rules``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from ._value import Value, address

if TYPE_CHECKING:
    from .entries import ChangedCode
    from .messages import Parameters
    from .pii import Guard
    from .pricing import Price
    from .protocols import Journal, LLMProvider, Middleware, Observer
    from .specs import Backend, Budget

__all__ = ["OPENAI_VARIABLES", "Budgets", "InputLimits", "LogSettings", "OpenAISettings", "Settings"]

OPENAI_VARIABLES: Mapping[str, str] = {
    "base_url": "OPENAI_BASE_URL",
    "organization": "OPENAI_ORG_ID",
    "project": "OPENAI_PROJECT_ID",
}
"""The settings that other programs know too, by the variables that they know them by."""


@frozen(eq=False, repr=False)
class Budgets(Value):
    """Limits on what model calls may use.

    Attributes:
        run: the limits of one run, with its child runs.
        process: the limits of all runs of the process together.
    """

    run: Budget | None = None
    process: Budget | None = None


@frozen(eq=False, repr=False)
class LogSettings(Value):
    """What is logged, and how.

    Attributes:
        level: the least that is logged; without it there is no log.
        format: one JSON object a line, or text for people; without it text in a terminal, JSON elsewhere.
        prompts: whether prompts and answers are logged too, with secrets redacted.
        file: the path of the file that is appended to; without it the log goes to stderr.
    """

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = None
    format: Literal["json", "text"] | None = None
    prompts: bool = False
    file: str | None = None


@frozen(eq=False, repr=False)
class OpenAISettings(Value):
    """Where the built-in provider ``openai`` sends requests; the key is ``OPENAI_API_KEY``, never a setting.

    Attributes:
        base_url: the address of a compatible server.
        organization: the organisation that pays.
        project: the project that pays.
    """

    base_url: str | None = field(default=None, repr=address)
    organization: str | None = None
    project: str | None = None


@frozen(eq=False, repr=False)
class InputLimits(Value):
    """What the inputs of workflows may hold, beside what their hints say.

    Attributes:
        size: how many characters (of bytes, how many) the inputs of a run may have in all.
        depth: how deep lists, mappings and records may be nested.
        control: whether texts may hold control characters, such as NUL or escape sequences of terminals.
    """

    size: int = 100_000_000
    depth: int = 100
    control: bool = False


@frozen(eq=False, repr=False)
class Settings(Value):
    """The settings of a process.

    Attributes:
        model: what ``LLM()`` leaves open, as ``provider:name``; ``offline`` holds for pinned models too.
        backend: the event loop of background runs.
        grace: seconds that model calls in flight may take to finish when their run is cancelled.
        max_threads: how many worker threads may be runnable at once.
        attempts: how often a model call is tried, the first time included.
        call_timeout: seconds that one attempt of a model call may take, body included.
        reasks: how often a model is told the faults of its typed answer and asked again.
        models: what an ``LLM`` leaves open of its parameters, by ``provider:name``; then ``default``.
        prices: what models cost, by ``provider:name``, in place of the price list.
        budget: limits on what model calls may use.
        log: what is logged, and how.
        openai: where the built-in provider sends requests.
        journal: where runs are recorded, a file or a store; without it they are not.
        changed_code: what becomes of a recorded result when the code of its step has changed since.
        inputs: what the inputs of workflows may hold.
        pii: what becomes of personal data in model calls.
        observers: called with every event.
        middleware: wraps the steps, model calls and runs of every run, the first one outermost; functions, or names of plugins.
        providers: providers by name, beside the built-in ones.
    """

    model: str = "openai:gpt-5-mini"
    backend: Backend = "asyncio"
    grace: float = 30.0
    max_threads: int = 64
    attempts: int = 3
    call_timeout: float = 600.0
    reasks: int = 1
    models: Mapping[str, Parameters] = {}
    prices: Mapping[str, Price] = {}
    budget: Budgets = Budgets()
    log: LogSettings = LogSettings()
    openai: OpenAISettings = OpenAISettings()
    journal: str | Journal | None = None
    changed_code: ChangedCode = "error"
    inputs: InputLimits = InputLimits()
    pii: Guard | None = None
    observers: tuple[Observer, ...] = ()
    middleware: tuple[Middleware | str, ...] = ()
    providers: Mapping[str, LLMProvider] = {}
