"""flowlet: LLM workflows made of plain functions.

Mark functions with ``@step``, compose them with ``@workflow``, run them with ``run`` (sync),
``arun`` (in your event loop) or ``start`` (in the background).
"""

from .concurrency import agather, apmap, gather, pmap
from .errors import (
    BridgeError,
    BudgetExceeded,
    ConfigError,
    DefinitionError,
    Failure,
    FlowletError,
    InputError,
    OutputError,
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
from .messages import Completion, Message
from .prompts import chain, prompt
from .protocols import ModelCall, RunCall, StepCall
from .settings import Settings, configure
from .steps import is_step, step
from .usage import CallRecord, ExecutionMetrics, StepMetrics, TokenUsage, Usage
from .workflows import Run, arun, is_workflow, last_run, run, runs, start, usage, with_options, workflow

__all__ = [
    "AsyncLLM",
    "BridgeError",
    "BudgetExceeded",
    "CallRecord",
    "Completion",
    "ConfigError",
    "DefinitionError",
    "ExecutionMetrics",
    "Failure",
    "FlowletError",
    "InputError",
    "LLM",
    "Message",
    "ModelCall",
    "OutputError",
    "PluginError",
    "ProviderError",
    "Refused",
    "ResultNotReady",
    "Run",
    "RunCall",
    "RunCancelled",
    "RunStopped",
    "Settings",
    "StepCall",
    "StepMetrics",
    "StepTimeout",
    "TokenUsage",
    "Truncated",
    "Usage",
    "WorkflowTimeout",
    "agather",
    "apmap",
    "arun",
    "chain",
    "configure",
    "failure_of",
    "gather",
    "is_step",
    "is_workflow",
    "last_run",
    "pmap",
    "prompt",
    "register_provider",
    "run",
    "runs",
    "start",
    "step",
    "usage",
    "with_options",
    "workflow",
]
