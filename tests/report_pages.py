"""The page of a report, read by a parser, and the command that writes it, for the tests of the report."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any


class Reader(HTMLParser):
    """What a parser of HTML finds in the page: elements with their attributes, and the text of each kind."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.tags[-1][0] if self.tags else "", []).append(data)


def data_of(html: str) -> dict[str, Any]:
    """The data block of a page, as the browser would read it."""
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    data: dict[str, Any] = json.loads(block)
    return data
