"""A workflow in YAML, which uses a function of this file. Or run it with: flowlet run brief.yaml topic=tea"""

from pathlib import Path

from flowlet import last_run, load_workflow, run, start


def page(title: str, sections: list[str], glossary: str) -> str:
    return "\n\n".join(filter(None, [f"# {title}", *sections, glossary]))


if __name__ == "__main__":
    brief = load_workflow(Path(__file__).with_name("brief.yaml"))
    print(run(brief, "tea", audience="experts"))
    print(len(last_run().metrics.steps), "steps,", last_run().metrics.usage.calls, "model calls")

    handle = start(brief, topic="coffee")
    print(len(handle.result(timeout=60)), "characters on coffee")
