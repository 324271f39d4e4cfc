"""What settings there are: their values and defaults, and the rules that hold for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import frozen

from . import _rules as rules
from ._sections import Section, Table
from .messages import Parameters
from .pricing import Price
from .protocols import LLMProvider, Middleware, Observer
from .specs import Backend, Budget

__all__ = ["SECTION", "Budgets", "LogSettings", "OpenAISettings", "Settings"]


@frozen
class Budgets:
    """Limits on what model calls may use.

    Attributes:
        run: the limits of one run, with its child runs.
        process: the limits of all runs of the process together.
    """

    run: Budget | None = None
    process: Budget | None = None


@frozen
class LogSettings:
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


@frozen
class OpenAISettings:
    """Where the built-in provider ``openai`` sends requests; the key is ``OPENAI_API_KEY``, never a setting.

    Attributes:
        base_url: the address of a compatible server.
        organization: the organisation that pays.
        project: the project that pays.
    """

    base_url: str | None = None
    organization: str | None = None
    project: str | None = None


@frozen
class Settings:
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
        observers: called with every event.
        middleware: wraps the steps, model calls and runs of every run, the first one outermost.
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
    observers: tuple[Observer, ...] = ()
    middleware: tuple[Middleware, ...] = ()
    providers: Mapping[str, LLMProvider] = {}


_BUDGET = Section(Budget, {"calls": rules.whole(0), "tokens": rules.whole(0), "cost": rules.DOLLARS})
SECTION = Section(
    Settings,
    {
        "model": rules.MODEL,
        "backend": rules.one_of("asyncio", "trio"),
        "grace": rules.SECONDS,
        "max_threads": rules.whole(1),
        "attempts": rules.whole(1),
        "call_timeout": rules.SOME_SECONDS,
        "reasks": rules.whole(0),
        "models": Table(
            rules.MODEL_OR_DEFAULT,
            Section(
                Parameters,
                {
                    "temperature": rules.TEMPERATURE,
                    "max_tokens": rules.whole(1),
                    "top_p": rules.SHARE,
                    "seed": rules.WHOLE,
                },
            ),
        ),
        "prices": Table(
            rules.MODEL_OF_PROVIDER,
            Section(
                Price,
                {"input": rules.PRICE, "output": rules.PRICE, "cached_input": rules.PRICE},
            ),
        ),
        "budget": Section(Budgets, {"run": _BUDGET, "process": _BUDGET}),
        "log": Section(
            LogSettings,
            {
                "level": rules.one_of("DEBUG", "INFO", "WARNING", "ERROR"),
                "format": rules.one_of("json", "text"),
                "prompts": rules.TRUTH,
                "file": rules.PATH,
            },
        ),
        "openai": Section(
            OpenAISettings,
            {"base_url": rules.ADDRESS, "organization": rules.WORD, "project": rules.WORD},
            {
                "base_url": "OPENAI_BASE_URL",
                "organization": "OPENAI_ORG_ID",
                "project": "OPENAI_PROJECT_ID",
            },
        ),
        "observers": rules.FUNCTIONS,
        "middleware": rules.FUNCTIONS,
        "providers": rules.PROVIDERS,
    },
)
