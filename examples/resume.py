"""A run that is killed in the middle, and goes on in another process: no step is done twice.

The file runs itself: once to be killed, then again to resume.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from flowlet import LLM, last_run, recorded, resume, run, step, with_options, workflow

JOURNAL, RUN = "runs.db", "tea-1"


@step
def ask(question: str, llm: LLM = LLM()) -> str:
    print("asking:", question)
    return llm.ask(question)


@step
def lose_power() -> None:
    if sys.argv[1:] == ["to be killed"]:
        sys.stdout.flush()
        os._exit(1)  # as after kill -9: nothing is cleaned up


@workflow
def talk(topic: str) -> list[str]:
    outline = ask(f"List three points on {topic}.")
    lose_power()
    return [outline, ask(f"Write a title for this:\n{outline}")]


if __name__ == "__main__":
    if sys.argv[1:]:
        run(with_options(talk, journal=JOURNAL, run_id=RUN), "tea")
    with tempfile.TemporaryDirectory() as folder:
        this = Path(__file__).absolute()
        os.chdir(folder)
        subprocess.run([sys.executable, this, "to be killed"], check=False)
        print("killed:", [(call.name, call.state) for call in recorded(RUN, JOURNAL).calls])
        resume(RUN, journal=JOURNAL)
        print("resumed:", [(found.name, found.reused) for found in last_run().metrics.steps])
        os.chdir(this.parent)
