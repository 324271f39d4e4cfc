"""What finding personal data reaches: ``FLOWLET_PII_DATA=... python benchmarks/pii.py``.

The data are two files: ``pii_cases.jsonl`` says how many of an entity a text holds (``{"entity", "text", "count"}``),
``pii_texts.jsonl`` which spans are which (``{"text", "spans": [[start, end, entity], ...]}``). Without the variable they
are looked for in ``../shared/data`` beside the repository.

The two halves of the texts are told apart, so that rules which fit one of them only would be seen.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowlet.pii import find
from flowlet.pii.presidio import kind_of

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("FLOWLET_PII_DATA") or HERE.parent.parent / "shared" / "data")
ALSO = {"PhoneRecognizer": "phone", "PH_MOBILE_NUMBER": "phone", "TR_PHONE_NUMBER": "phone"}

BOUNDS = {  # precision and recall, at least
    "email": (0.98, 0.98),
    "ip": (0.98, 0.98),
    "us_ssn": (0.98, 0.98),
    "iban": (0.98, 0.98),
    "card": (0.98, 0.95),
    "phone": (0.85, 0.80),
}
SPEED = 5.0
"""Megabytes of text in a second, at least."""


class Score:
    """How many were expected, found, and right, by kind."""

    def __init__(self) -> None:
        self.expected, self.found, self.right = Counter[str](), Counter[str](), Counter[str]()

    def add(self, kind: str, expected: int, found: int, right: int) -> None:
        """Count one text."""
        self.expected[kind] += expected
        self.found[kind] += found
        self.right[kind] += right

    def of(self, kind: str) -> tuple[float, float]:
        """Precision and recall."""
        right = self.right[kind]
        return (
            right / self.found[kind] if self.found[kind] else 1.0,
            right / self.expected[kind] if self.expected[kind] else 1.0,
        )


def read(name: str) -> Iterator[Any]:
    """The lines of a file of the data."""
    with (FOLDER / name).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def kind_named(entity: str) -> str:
    """What flowlet calls an entity of the data."""
    return ALSO.get(entity) or kind_of(entity)


def of_cases() -> Score:
    """Score the cases: how many of the kind that a case is about."""
    score = Score()
    for case in read("pii_cases.jsonl"):
        kind = kind_named(case["entity"])
        found = sum(match.kind == kind for match in find(case["text"]))
        score.add(kind, case["count"], found, min(found, case["count"]))
    return score


def of_texts(half: int | None = None) -> Score:
    """Score the texts, all or every second one: spans must be the same to the character."""
    score = Score()
    for number, case in enumerate(read("pii_texts.jsonl")):
        if half is not None and number % 2 != half:
            continue
        expected = {(kind_named(entity), start, end) for start, end, entity in case["spans"]}
        found = {(match.kind, *match.span) for match in find(case["text"])}
        for kind in {kind for kind, _, _ in expected | found}:
            mine = [
                {span for span in spans if span[0] == kind} for spans in (expected, found, expected & found)
            ]
            score.add(kind, *map(len, mine))
    return score


def speed() -> float:
    """Megabytes of text in a second of this process, the best of some rounds."""
    text = "\n".join(case["text"] for case in read("pii_texts.jsonl"))
    best = float("inf")
    for _ in range(9):
        began = time.process_time()
        find(text)
        best = min(best, time.process_time() - began)
    return len(text.encode()) / best / 1e6


def main() -> int:
    """Print what is reached; 1 where a bound is missed."""
    if not FOLDER.is_dir():
        print(f"skipped: there is no {FOLDER}; set FLOWLET_PII_DATA to the folder with pii_texts.jsonl")
        return 0
    cases, texts, halves = of_cases(), of_texts(), [of_texts(0), of_texts(1)]
    missed = 0
    print("| kind | cases: precision, recall | texts: precision, recall | halves of the texts | at least |")
    print("|---|---|---|---|---|")
    for kind in sorted({*cases.expected, *texts.expected, *texts.found}):
        bound = BOUNDS.get(kind, (0.0, 0.0))
        reached = [score.of(kind) for score in (cases, texts, *halves)]
        missed += any(a < b for one in reached[:2] for a, b in zip(one, bound, strict=True))
        shown = ["{:.3f}, {:.3f}".format(*one) for one in reached]
        least = "{:.2f}, {:.2f}".format(*bound) if kind in BOUNDS else ""
        print(f"| {kind} | {shown[0]} | {shown[1]} | {shown[2]} and {shown[3]} | {least} |")
    reached_speed = speed()
    print(f"\n{reached_speed:.1f} MB of text in a second (at least {SPEED})")
    return int(missed > 0 or reached_speed < SPEED)


if __name__ == "__main__":
    sys.exit(main())
