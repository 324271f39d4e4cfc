"""What tells people and machines about runs."""

from __future__ import annotations

from ..events import Event
from ..settings import LogSettings, process


def follow(settings: LogSettings) -> None:
    """Log as *settings* say; what that needs is imported when a log is asked for.

    Raises:
        ConfigError: the file can't be opened.
    """
    if settings.level is not None or process.logs:
        from .logs import follow

        follow(settings)


def diagnose(event: Event) -> None:
    """Say through ``logging`` what nobody may miss; what that needs is imported with the first such event."""
    from .diagnostics import diagnose

    diagnose(event)
