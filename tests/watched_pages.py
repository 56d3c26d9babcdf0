"""A page in a headless browser, and all that it did beside showing itself, for the tests of the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_runs import chromium

# All that the page may consist of: a browser that took hostile text for markup would have made something else.
TAGS = (
    "html head meta title style body a header p h1 ul li nav main section h2 h3 strong div label select option figure "
    "button i svg desc clipPath rect line text g path circle input output b span details summary table caption thead "
    "tr th td tbody br code fieldset legend article footer script noscript"
)
# Everything that is made only when somebody asks for it.
OPEN_ALL = """() => {
  for (let k = 0; k < 200; k += 1) document.querySelectorAll("button.more:not([hidden])").forEach((b) => b.click());
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  for (const tokens of document.querySelectorAll(".tokens")) {
    tokens.dispatchEvent(new KeyboardEvent("keydown", { key: "End" }));
    tokens.children[0]?.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  }
}"""


class Watched:
    """A page, and all that it did beside showing itself."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.page = browser.new_page(**context)
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("popup", lambda popup: self.requests.append(popup.url))

    def open(self, path: Path) -> Any:
        """Open a file, and let what starts by itself start."""
        self.page.goto(path.as_uri())
        self.page.wait_for_timeout(200)
        return self.page

    def texts(self, selector: str) -> list[str]:
        """What stands in all elements of a kind."""
        found: list[str] = self.page.eval_on_selector_all(selector, "(all) => all.map((one) => one.textContent)")
        return found

    def assert_quiet(self, path: Path) -> None:
        """Nothing was run, loaded, asked or refused."""
        assert self.dialogs == []
        assert [url for url in self.requests if url != path.as_uri()] == []
        assert self.messages == []
        tags = self.page.evaluate("[...document.querySelectorAll('*')].map((e) => e.localName)")
        assert set(tags) <= set(TAGS.split())
        assert self.page.evaluate("document.scripts.length") == 2
        assert self.page.evaluate("Object.keys(Object.prototype)") == []
        attributes = "[...document.querySelectorAll('*')].flatMap((e) => [...e.attributes].map((a) => a.name))"
        names = set(self.page.evaluate(attributes))
        assert not names & {"src", "srcdoc", "action", "formaction"}
        assert not {name for name in names if name.startswith("on")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found
