"""flowlet: LLM workflows made of plain functions.

Mark functions with ``@step``, compose them with ``@workflow``, run them with ``run`` (sync),
``arun`` (in your event loop) or ``start`` (in the background).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._fence import untrusted
    from .concurrency import agather, apmap, gather, pmap
    from .declarative import load_workflow
    from .display import live, report
    from .errors import (
        BridgeError,
        BudgetExceeded,
        ConfigError,
        DamagedRuns,
        DefinitionError,
        Failure,
        FlowletError,
        InputError,
        JournalError,
        OutputError,
        PIIRefused,
        PluginError,
        ProviderError,
        Refused,
        ResultNotReady,
        RunCancelled,
        RunStopped,
        StepTimeout,
        Truncated,
        WorkflowTimeout,
        failure_of,
    )
    from .llm import LLM, AsyncLLM, register_provider
    from .messages import Completion, Message, Parameters
    from .metrics import CallRecord, ExecutionMetrics, StepMetrics, TokenUsage, Usage
    from .observers.logs import log_to
    from .plugins import get_step, register_middleware, register_step
    from .pricing import Price
    from .prompts import chain, prompt
    from .protocols import ModelCall, RunCall, StepCall, StepPlugin
    from .resuming import RecordedRun, aresume, forget_runs, recorded, recorded_runs, resume, rewind
    from .settings import Budgets, InputLimits, LogSettings, Settings, configure
    from .specs import Budget, ExcludeFromKey
    from .steps import is_step, step
    from .totals import usage
    from .workflows import Run, arun, is_workflow, last_run, run, runs, start, with_options, workflow

__all__ = [
    "AsyncLLM",
    "BridgeError",
    "Budget",
    "BudgetExceeded",
    "Budgets",
    "CallRecord",
    "Completion",
    "ConfigError",
    "DamagedRuns",
    "DefinitionError",
    "ExcludeFromKey",
    "ExecutionMetrics",
    "Failure",
    "FlowletError",
    "InputError",
    "InputLimits",
    "JournalError",
    "LLM",
    "LogSettings",
    "Message",
    "ModelCall",
    "OutputError",
    "PIIRefused",
    "Parameters",
    "PluginError",
    "Price",
    "ProviderError",
    "RecordedRun",
    "Refused",
    "ResultNotReady",
    "Run",
    "RunCall",
    "RunCancelled",
    "RunStopped",
    "Settings",
    "StepCall",
    "StepMetrics",
    "StepPlugin",
    "StepTimeout",
    "TokenUsage",
    "Truncated",
    "Usage",
    "WorkflowTimeout",
    "agather",
    "apmap",
    "aresume",
    "arun",
    "chain",
    "configure",
    "failure_of",
    "forget_runs",
    "gather",
    "get_step",
    "is_step",
    "is_workflow",
    "last_run",
    "live",
    "load_workflow",
    "log_to",
    "pmap",
    "prompt",
    "recorded",
    "recorded_runs",
    "register_middleware",
    "register_provider",
    "register_step",
    "report",
    "resume",
    "rewind",
    "run",
    "runs",
    "start",
    "step",
    "untrusted",
    "usage",
    "with_options",
    "workflow",
]

_HOMES = {
    "_fence": "untrusted",
    "concurrency": "agather apmap gather pmap",
    "declarative": "load_workflow",
    "display": "live report",
    "errors": "BridgeError BudgetExceeded ConfigError DamagedRuns DefinitionError Failure FlowletError InputError JournalError OutputError PIIRefused PluginError ProviderError Refused ResultNotReady RunCancelled RunStopped StepTimeout Truncated WorkflowTimeout failure_of",
    "llm": "LLM AsyncLLM register_provider",
    "messages": "Completion Message Parameters",
    "observers.logs": "log_to",
    "plugins": "get_step register_middleware register_step",
    "prompts": "chain prompt",
    "protocols": "ModelCall RunCall StepCall StepPlugin",
    "pricing": "Price",
    "resuming": "RecordedRun aresume forget_runs recorded recorded_runs resume rewind",
    "settings": "Budgets InputLimits LogSettings Settings configure",
    "steps": "is_step step",
    "metrics": "CallRecord ExecutionMetrics StepMetrics TokenUsage Usage",
    "specs": "Budget ExcludeFromKey",
    "totals": "usage",
    "workflows": "Run arun is_workflow last_run run runs start with_options workflow",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is first asked for, so that ``import flowlet`` costs little."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _show_in_ipython() -> None:
    """Let runs and workflows show themselves in IPython, when it is where we are imported."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)  # another thread may be importing it
    shell = None if get is None else get()
    if shell is not None:
        import_module(".display._notebook", __name__).register(shell)


_show_in_ipython()
