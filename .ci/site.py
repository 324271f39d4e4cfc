"""Builds the site into ``site/``, strictly, and checks what was built.

Every local link leads to a file and an anchor, and no page loads anything from elsewhere. The pages go along as Markdown,
since ``llms.txt`` names those; the reference has its text in the built pages only.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
SITE = ROOT / "site"
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
NOT_LOADED = {"canonical", "next", "prev"}


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in the attributes of *tag*."""
        given = {name: value or "" for name, value in attrs}
        self.anchors.add(given.get("id", ""))
        for name in given.keys() & {"href", "src"}:
            loaded = (tag, name) in LOADS and given.get("rel") not in NOT_LOADED
            (self.loads if loaded else self.links).add(given[name])


def faults(pages: dict[Path, Page]) -> Iterator[str]:
    """What is wrong with the built pages."""
    for path, page in pages.items():
        yield from (f"{path}: loads {url}" for url in page.loads if urlsplit(url).netloc)
        for url in page.links | page.loads:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not (target.is_file() and target.is_relative_to(SITE)):
                yield f"{path}: {url} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path}: {url} names no anchor"


def main() -> int:
    """Build, check, and tell the faults."""
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT)
    if built.returncode:
        return built.returncode
    for page in (ROOT / "docs").glob("**/*.md"):
        if "\n::: " not in page.read_text(encoding="utf-8"):
            shutil.copy(page, SITE / page.relative_to(ROOT / "docs"))
    found = sorted(faults({path: Page(path) for path in SITE.glob("**/*.html")}))
    print(*found, sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
