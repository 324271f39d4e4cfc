"""What nobody may miss, said where no log is asked for: through the stdlib's ``logging``, logger ``flowlet``.

Without any configuration of ``logging`` a warning is a line on stderr.
"""

from __future__ import annotations

import logging

from ..events import (
    BodyDiverged,
    CacheFailed,
    CodeChanged,
    Event,
    FailureUnfetched,
    LoopRetired,
    PIIFound,
    PluginFailed,
    RunsCancelledAtExit,
    ThreadAbandoned,
)
from ..settings import process
from ._lines import sentence_of

__all__ = ["diagnose"]

_TOLD = (
    BodyDiverged,
    CacheFailed,
    CodeChanged,
    FailureUnfetched,
    LoopRetired,
    PIIFound,
    PluginFailed,
    RunsCancelledAtExit,
    ThreadAbandoned,
)


def diagnose(event: Event) -> None:
    """Warn of *event*, in one line, if it is one that nobody may miss."""
    if not isinstance(event, _TOLD):
        return
    run = None if isinstance(event, RunsCancelledAtExit) else event.run
    place = "" if run is None else f" [{run.workflow} {run.id}]"
    said = sentence_of(event, process.redactor.redact) + process.redactor.redact(place)
    logging.getLogger("flowlet").warning("flowlet: %s", said)
