"""flowlet: LLM workflows made of plain functions."""

from .concurrency import agather, apmap, gather, pmap
from .settings import Settings, configure
from .steps import is_step, step
from .workflows import Run, arun, is_workflow, last_run, run, runs, start, with_options, workflow

__all__ = ["Run", "Settings", "agather", "apmap", "arun", "configure", "gather", "is_step", "is_workflow", "last_run", "pmap", "run", "runs", "start", "step", "with_options", "workflow"]
