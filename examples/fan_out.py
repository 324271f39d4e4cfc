"""Many calls at once: the results come in order, and the first failure ends the rest."""

from flowlet import gather, last_run, pmap, prompt, run, start, step, workflow

summarise = prompt("Summarise in one sentence:\n{text}", name="summarise")


@step
def shorter(summary: str) -> str:
    return summary.splitlines()[-1]


@workflow
def digest(texts: list[str]) -> list[str]:
    summaries = pmap(summarise, texts, max_concurrency=4)
    return [shorter(summary) for summary in summaries]


TEXTS = ["Tea is a leaf.", "Coffee is a bean.", "Cocoa is a seed.", "Mate is a leaf, too."]

print(run(digest, TEXTS))
metrics = last_run().metrics
print(metrics.usage.calls, "calls,", metrics.usage.total_tokens, "tokens,", f"{metrics.duration:.3f} s")

first, second = gather(start(digest, TEXTS[:2]), start(digest, TEXTS[2:]))
print(first + second == run(digest, TEXTS))
