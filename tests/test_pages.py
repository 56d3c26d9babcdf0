"""The documentation is true: generated pages are fresh, all code runs, every command parses, the site asks nobody.

A block of code belongs to its file: all Python blocks of a file run in one namespace, in order. Guides for libraries
with a venv of their own run there (benchmarks/fits.py), and here where the library happens to be.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache, wraps
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from sandboxed import refuse, why_not

from agents import cli
from agents.algorithms import ALGORITHMS
from agents.train import TrainConfig, train

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))]
#: Pages whose scores need programs to run.
SANDBOXED = ("envs/pythonfunction.md", "rewards/python_program.md")
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: Guides whose library has a venv of its own -> what it is imported as.
ELSEWHERE = {"rllib": "ray", "tianshou": "tianshou", "torchrl": "torchrl"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def generated() -> dict[Path, Callable[[], str]]:
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        pages: dict[Path, Callable[[], str]] = module.pages()
        return pages
    finally:
        sys.path.remove(str(DOCS))


@pytest.mark.parametrize("folder", ["envs", "rewards", "."])
def test_generated_pages_are_fresh(folder: str) -> None:
    stale = []
    for path, make in generated().items():
        inside = path.parent.name if path.parent.name in ("envs", "rewards") else "."
        if inside != folder or (name_of(path).removeprefix("docs/") in SANDBOXED and why_not()):
            continue
        if not path.exists() or path.read_text(encoding="utf-8") != make():
            stale.append(name_of(path))
    assert not stale, f"run python docs/generate.py, and look at the difference: {', '.join(stale)}"


@pytest.mark.parametrize("page", SANDBOXED)
def test_pages_of_programs_are_fresh(page: str) -> None:
    if why_not():
        refuse(why_not())
    assert (DOCS / page).read_text(encoding="utf-8") == generated()[DOCS / page]()


def test_every_generated_page_is_of_something() -> None:
    written = {path for folder in ("envs", "rewards") for path in (DOCS / folder).glob("*.md")}
    assert written <= set(generated())


def test_no_two_envs_share_a_description() -> None:
    found: dict[str, str] = {}
    for path in sorted((DOCS / "envs").glob("*.md")):
        if path.name != "index.md":
            text = (
                path.read_text(encoding="utf-8").split("## Description\n")[1].split("\n```python")[0].split("\n## ")[0]
            )
            assert len(text.split()) >= 25, f"{path.name}: a description of {len(text.split())} words"
            assert text not in found, f"{path.name} and {found[text]}"
            found[text] = path.name
    assert len(found) == 29


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithms_page_has_what_a_run_logs(name: str, tmp_path: Path) -> None:
    row = replace(ALGORITHMS[name], episodes_per_update=16, num_epochs=1, num_minibatches=1)
    settings = {"length": 2, "alphabet": "abcd"}
    train(TrainConfig("textenvs/Copy-v0", settings, row, num_episodes=16, num_envs=16), tmp_path / "run", quiet=True)
    logged = json.loads((tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    named = {re.sub(r"^part/.+", "part/<name>", key) for key in logged}
    page = (DOCS / f"algorithms/{name}.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[`([^`]+)`\]\(\.\./metrics\.md", page, re.MULTILINE))
    # With a KL penalty or with imitation there is more.
    assert named <= listed
    assert listed - named <= {"loss/kl", "loss/imitation", "kl_per_episode", "kl_coef"}
    flags = set(re.findall(r"^\| `--([\w-]+)` \|", page, re.MULTILINE))
    assert flags == {field.name.replace("_", "-") for field in fields(row)}


def test_what_a_random_policy_wrote_cannot_drive_a_terminal_or_a_page() -> None:
    """Transcripts and scores hold no control or bidirectional character, and no fence that they could close."""
    for path in [*(DOCS / "envs").glob("*.md"), *(DOCS / "rewards").glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        assert all(c.isprintable() or c == "\n" for c in text), path.name
        outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
        fences = re.findall(r"^`{3,}(\w*)$", text, re.MULTILINE)
        assert all(fences[::2]), path.name
        assert not any(fences[1::2]), path.name
        assert "<script" not in re.sub(r"(`+).+?\1", "", outside), path.name


# ------------------------------------------------------------------------------------------------------------ code


def run_blocks(path: Path) -> int:
    """Run a page's Python blocks; how many."""
    if path.parent.name == "plug_in" and path.stem in ELSEWHERE:
        pytest.importorskip(ELSEWHERE[path.stem], reason="benchmarks/fits.py runs this page in a venv of its own")
    blocks = [code for language, code in BLOCK.findall(path.read_text(encoding="utf-8")) if language == "python"]
    namespace: dict[str, Any] = {"__name__": "page"}
    for code in blocks:
        exec(compile(code, name_of(path), "exec"), namespace)
    return len(blocks)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory of its own, and no id left behind."""
    monkeypatch.chdir(tmp_path)
    known = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(known)


#: The README's code is run by tests/test_docs.py.
HAND_WRITTEN = [path for path in PAGES[1:] if path.parent.name not in ("envs", "rewards")]


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("path", HAND_WRITTEN, ids=name_of)
def test_code_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every block that a reader can copy, none passed over."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert run_blocks(path) == sum(line.strip() == "```python" for line in lines)
    capsys.readouterr()


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("folder", ["envs", "rewards"])
def test_code_of_generated_pages_runs(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(run_blocks(path) for path in sorted((DOCS / folder).glob("*.md"))) >= 27
    capsys.readouterr()


@pytest.mark.usefixtures("scratch")
def test_what_the_code_says_it_prints_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """A line `print(...)  # text` says what comes out, unless the remark is a sentence about it."""
    for page in ("contract.md", "faq.md", "index.md"):
        run_blocks(DOCS / page)
        printed = capsys.readouterr().out
        for said in re.findall(
            r"^ *print\(.*\)  # ([\[({\d]\S.*|True .*|abc 1.0|What is .*|Discrete.*)$",
            (DOCS / page).read_text(),
            re.MULTILINE,
        ):
            assert said in printed, f"{page}: {said}"


# -------------------------------------------------------------------------------------------------------- commands


def commands(path: Path) -> Iterator[list[str]]:
    """The commands in a page's blocks of shell, as words; lines that go on with a backslash are one."""
    for language, code in BLOCK.findall(path.read_text(encoding="utf-8")):
        if language in ("", "sh", "bash", "shell", "console"):
            for line in code.replace("\\\n", " ").splitlines():
                if re.match(r"(textenvs|make|python|pip) ", line):
                    yield shlex.split(line, comments=True)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Verbs that the real parser understood; none of them runs."""
    seen: list[str] = []

    def silent(verb: str, function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def note(*_: Any, **__: Any) -> None:
            seen.append(verb)

        return note

    quiet = {verb: silent(verb, function) for verb, function in cli.VERBS.items()}
    monkeypatch.setattr(cli, "VERBS", quiet)
    monkeypatch.setattr(cli, "train", quiet["train"])
    return seen


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_parse(path: Path, parsed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in commands(path):
        if words[0] == "textenvs":
            parsed.clear()
            with contextlib.suppress(SystemExit):
                cli.main(words[1:])
            assert parsed == [words[1]], f"{words}: {capsys.readouterr().err}"
        elif words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(targets), words
        elif words[0] == "python" and words[1] != "-m":
            source = (ROOT / words[1]).read_text(encoding="utf-8")
            assert all(word.split("=")[0] in source for word in words if word.startswith("--")), words
        elif words[0] == "pip":
            named = re.findall(r"\[([\w,]+)\]", " ".join(words))
            assert {extra for group in named for extra in group.split(",")} <= set(extras), words


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index.md", "add_a_task.md"])
def test_what_a_newcomer_pastes_works(page: str, tmp_path: Path) -> None:
    """The commands of the first pages, as they stand there, one after the other."""
    first = next(
        code for language, code in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")) if language == "python"
    )
    (tmp_path / "vowels.py").write_text(first, encoding="utf-8")
    pasted = [words[1:] for words in commands(DOCS / page) if words[0] == "textenvs"]
    assert len(pasted) >= 4
    for words in pasted:
        command = [sys.executable, "-m", "agents.cli", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert result.returncode == 0, f"{words}: {result.stderr}"


@cache
def help_of(verb: str) -> str:
    """What a verb's `--help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([verb, "--help"])
    return printed.getvalue()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_in_sentences_name_verbs_and_flags_that_exist(path: Path) -> None:
    text = re.sub(r"^(`{3,}).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for verb, rest in re.findall(r"`textenvs (\w+)([^`]*)`", text):
        assert verb in cli.VERBS, f"textenvs {verb}"
        for flag in re.findall(r"(?<= )--[\w-]+", rest):
            assert f"{flag} " in help_of(verb) or f"{flag}," in help_of(verb), f"textenvs {verb} {flag}"


# ------------------------------------------------------------------------------------------------------------ site


def test_the_navigation_has_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    for path in DOCS.glob("**/*.md"):
        assert re.search(rf"^ +- (?:[^:]+: )?{re.escape(str(path.relative_to(DOCS)))}$", navigation, re.MULTILINE), path


def test_links_between_pages_resolve() -> None:
    """`mkdocs build --strict` checks anchors as well."""
    for path in PAGES:
        text = re.sub(r"^(`{3,}).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", re.sub(r"`[^`]*`", "", text)):
            assert (path.parent / target).exists(), f"{name_of(path)}: {target}"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("material", reason='needs pip install "textenvs[docs]"')
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    subprocess.run([sys.executable, str(DOCS / "check_site.py"), str(site)], check=True, timeout=60)
