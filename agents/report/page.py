"""Turns gathered data into one HTML file that needs nothing else and trusts nothing that it shows.

What is shown comes from models, users and files, so it is hostile: Jinja escapes what stands in the page, the rest is
JSON in a data block that the script writes as text nodes, and a Content-Security-Policy lets this one script and this
one style through, by their hashes, and no request of any kind.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import textenvs
from agents.report.records import visible

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("dom.js", "chart.js", "table.js", "tokens.js", "gallery.js", "main.js")
_IN_MARKUP = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def embedded_json(value: Any) -> str:
    """Spell a JSON value so that it can stand in a script element: in ASCII, without a character that ends one.

    Raises:
        ValueError: for a number that JSON does not have.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_IN_MARKUP)


def policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy under which only this script and this style act, and nothing is loaded."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def render(data: Mapping[str, Any]) -> str:
    """Render a page.

    Args:
        data: from `run_data.run_page` or `benchmark_data.benchmark_page`.

    Returns:
        The HTML. Everything invisible in the data is spelt out in it.

    Raises:
        ImportError: without jinja2.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise ImportError(f'a report needs {error.name}; pip install "textenvs[report]"') from None
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    script = "(() => {\n" + "".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS) + "})();\n"
    style = (ASSETS / "style.css").read_text(encoding="utf-8")
    shown = visible(data)
    return environment.get_template("page.html").render(
        page=shown,
        # Of our own files, and escaped for a script element: the only text that is not escaped as markup.
        data=Markup(embedded_json(shown)),
        script=Markup(script),
        style=Markup(style),
        policy=policy(script, style),
        version=textenvs.__version__,
    )


def number(value: float | None, digits: int = 3, fixed: bool = False) -> str:
    """Spell a number for a reader; an en dash for none. With fixed, as many digits as the others of its column."""
    if value is None:
        return "–"
    if fixed and abs(value) < 1000:
        return f"{value:z.{digits}f}".replace("-", "−")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−") if abs(value) < 1e9 else f"{value:.2g}"
    text = f"{value:.{digits}f}" if abs(value) >= 10**-digits else f"{value:.2g}"
    return text.replace("-", "−")
