"""Fail when a page of the built site would ask anything of a network, or run what is not the theme's.

    python docs/check_site.py site

Links that a reader may follow are free; what a browser loads by itself is not.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

#: Attributes that a browser loads without being asked; of `link` only some relations.
LOADS = {"src", "srcset", "poster", "data", "background", "action", "formaction"}
RELATIONS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
REMOTE = re.compile(r"^\s*(?:\w+:)?//")


class Loads(HTMLParser):
    """What a page loads from elsewhere, and handlers in its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is remote."""
        given = {name: value or "" for name, value in attrs}
        names = set(LOADS)
        if tag == "link" and RELATIONS & set(given.get("rel", "").split()):
            names.add("href")
        self.found += [f"<{tag} {name}={given[name]}>" for name in names & set(given) if REMOTE.match(given[name])]
        self.found += [f"<{tag} {name}=...>" for name in given if name.startswith("on")]


def remote_loads(site: Path) -> list[str]:
    """Every remote load of every page and stylesheet, as "file: what"."""
    found = []
    for path in sorted(site.glob("**/*.html")):
        parser = Loads()
        parser.feed(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)}: {what}" for what in parser.found]
    for path in sorted(site.glob("**/*.css")):
        for url in re.findall(r"url\(\s*['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)", path.read_text(encoding="utf-8")):
            if REMOTE.match("".join(url)):
                found.append(f"{path.relative_to(site)}: {''.join(url)}")
    return found


def main() -> None:
    """Check the site in the directory named on the command line."""
    site = Path(sys.argv[1])
    num_pages = len(list(site.glob("**/*.html")))
    if not num_pages:
        raise SystemExit(f"{site} must be a built site, got no page; run mkdocs build")
    if found := remote_loads(site):
        raise SystemExit("\n".join([f"{len(found)} loads from elsewhere:", *found]))
    print(f"{num_pages} pages, 0 loads from elsewhere")


if __name__ == "__main__":
    main()
