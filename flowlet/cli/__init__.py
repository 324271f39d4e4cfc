"""The command line as a whole: arguments in, an exit code out."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import _codes

__all__ = ["main", "program"]


def program() -> NoReturn:
    """Execute the command line of this process and end it."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    gc.disable()  # nothing of what is imported can go; looking for it takes a tenth of the start
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Execute the command line *argv* (``sys.argv`` without its first) and give the exit code."""
    from ._app import execute

    try:
        code = execute(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("flowlet: interrupted", file=sys.stderr)
        return _codes.INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return _codes.BROKEN_PIPE
    return code


def _drop_stdout() -> None:
    """Let the interpreter flush what is left into nothing: nobody reads it."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
