"""The rules that hold for settings, by name. Only settings that somebody wrote are held against them."""

from __future__ import annotations

from . import _rules as rules
from ._catalogue import OPENAI_VARIABLES, Budgets, InputLimits, LogSettings, OpenAISettings, Settings
from ._sections import Section, Table
from .messages import Parameters
from .pii import Guard
from .pricing import Price
from .specs import Budget

__all__ = ["SECTION"]

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
            OPENAI_VARIABLES,
        ),
        "inputs": Section(
            InputLimits,
            {"size": rules.whole(1), "depth": rules.whole(1), "control": rules.TRUTH},
        ),
        "pii": Section(
            Guard,
            {
                "action": rules.one_of("mask", "refuse", "warn"),
                "restore": rules.TRUTH,
                "kinds": rules.PII_KINDS,
                "detectors": rules.FUNCTIONS,
            },
        ),
        "journal": rules.JOURNAL,
        "changed_code": rules.one_of("error", "reuse", "rerun"),
        "observers": rules.FUNCTIONS,
        "middleware": rules.MIDDLEWARE,
        "providers": rules.PROVIDERS,
    },
)
