"""Docstrings as Markdown, for the generated pages: sections, settings, code blocks, fences. No page is made here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import textenvs

#: The first line of a generated page.
GENERATED = "<!-- Written by docs/generate.py: change the docstring in {}, then run it. -->"
_GOOGLE = ("Args", "Attributes", "Raises", "Returns")


@dataclass(frozen=True)
class Docstring:
    """A docstring, taken apart.

    Attributes:
        summary: its first line.
        body: what stands before the first `##` heading, without the summary and Google's sections.
        headings: `##` heading -> text.
        args: name -> meaning, of the section "Args" or "Attributes".
    """

    summary: str
    body: str
    headings: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)


def parse(text: str | None) -> Docstring:
    """Take a Google docstring with `##` headings apart."""
    lines = inspect.cleandoc(text or "").split("\n")
    kept: list[str] = []
    google: dict[str, list[str]] = {}
    section: list[str] | None = None
    for line in lines[1:]:
        if line.rstrip(":") in _GOOGLE and line.endswith(":"):
            section = google.setdefault(line[:-1], [])
        elif section is not None and (not line or line.startswith("    ")):
            section.append(line)
        else:
            section = None
            kept.append(line)
    parts = re.split(r"^## (.+)$", "\n".join(kept), flags=re.MULTILINE)
    headings = {title: _markdown(body) for title, body in zip(parts[1::2], parts[2::2], strict=True)}
    args = _args(google.get("Args", google.get("Attributes", [])))
    return Docstring(lines[0], _markdown(parts[0]), headings, args)


def _args(lines: Sequence[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        match = re.match(r"^    (\w+): (.*)$", line)
        if match:
            name = match[1]
            found[name] = [match[2]]
        elif line.strip():
            found[name].append(line.strip())
    return {key: " ".join(texts) for key, texts in found.items()}


def _markdown(text: str) -> str:
    """Indented code as fences, and each paragraph on one line."""
    blocks = []
    for block in re.split(r"\n\s*\n(?!    )", text.strip("\n")):
        indented = [piece.startswith("    ") or not piece for piece in block.split("\n")]
        if any(indented) and not all(indented):  # an introduction, and code behind an empty line
            start = indented.index(True)
            pieces = block.split("\n")
            blocks += ["\n".join(pieces[:start]), _code(pieces[start:])]
        elif block.startswith("    "):
            blocks.append(_code(block.split("\n")))
        else:
            blocks.append(block.strip())
    return "\n\n".join(block for block in blocks if block)


def _code(lines: Sequence[str]) -> str:
    code = inspect.cleandoc("\n" + "\n".join(lines)).strip("\n")
    command = code.startswith("textenvs ")
    return fence(code, "sh" if command else "text")


def fence(text: str, language: str = "text") -> str:
    """A fenced block that no text of three backticks ends; control characters are escaped by `textenvs.printable`."""
    lines = [textenvs.printable(line) for line in text.split("\n")]
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return "\n".join([f"{ticks}{language}", *lines, ticks])


def code(text: str) -> str:
    """A span of code, safe in a table: control characters escaped, pipes as an entity outside of the backticks."""
    text = textenvs.printable(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{ticks}{pad}{text}{pad}{ticks}".replace("|", "\\|")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells hold no line breaks."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def escaped(text: str) -> str:
    """Prose of a docstring in a cell of a table."""
    return text.replace("|", "\\|")


def slug(env_id: str) -> str:
    """The file name of an id's page, without its end."""
    return env_id.removeprefix("textenvs/").removesuffix("-v0").lower()
