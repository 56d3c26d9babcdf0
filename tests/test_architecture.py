"""What imports what, what is public, and what never stands in the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import textenvs
from textenvs import rewards

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("textenvs/**/*.py"), *ROOT.glob("agents/**/*.py")])
# The learning path reaches envs through Gymnasium alone.
LEARNING = (
    "agents.lm",
    "agents.mlp",
    "agents.pretrained",
    "agents.cache",
    "agents.kernels",
    "agents.sampler",
    "agents.rollout",
    "agents.train",
    "agents.returns",
    "agents.losses",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Modules that a file imports, with the name where `from package import module` names a module."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = {module_name(source) for source in SOURCES}
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else node.module


def test_importing_textenvs_loads_no_torch_and_nothing_optional() -> None:
    heavy = ("torch", "transformers", "sklearn", "agents", "rich", "scipy", "tokenizers")
    code = f"import sys, textenvs; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    name, used = module_name(path), set(imports(path))
    package = name.split(".")[0]
    assert not any(name.startswith(f"{m}.") for m in used), f"{name} imports the root of a package that it is in"
    if package == "textenvs":
        assert not any(m.split(".")[0] in ("agents", "torch") for m in used), f"{name} reaches up or for torch"
    if name in LEARNING:
        assert not any(m.split(".")[0] == "textenvs" for m in used), f"{name} must reach envs through Gymnasium"
    if package == "agents" and not name.startswith("agents.assets"):
        assert not any(m.startswith("textenvs.") for m in used), f"{name} may import the root textenvs only"
    if name.startswith("textenvs.tasks."):
        assert not any(m.startswith("textenvs.tasks.") for m in used), f"{name} knows another task"


def test_there_are_no_import_cycles() -> None:
    graph = {module_name(path): set(imports(path)) for path in SOURCES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for other in graph.get(name, set()) & set(graph):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_public_names_are_exactly_all() -> None:
    ours = {n for n, v in vars(textenvs).items() if not n.startswith("_") and not isinstance(v, type(sys))}
    lazy = {"JsonMatch", "JsonSchema", "Language", "MathAnswer", "PythonProgram", "Regex", "ValidJson", "Words"}
    assert len(set(textenvs.__all__)) == len(textenvs.__all__)
    assert ours | lazy == set(textenvs.__all__)


def test_every_reward_is_public_and_those_that_start_processes_are_loaded_when_asked_for() -> None:
    named = {path.split(":")[1] for path in textenvs.REWARDS.values()}
    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    named |= set(re.findall(r"^\| (?:`\w+` \| )?`([A-Z]\w+)", page, re.MULTILINE))
    assert {"MathAnswer", "PythonProgram", "LengthRange", "SklearnReward"} <= named
    for package in (textenvs, rewards):
        for name in named:
            assert issubclass(getattr(package, name), textenvs.Reward), name
        assert named <= set(package.__all__)
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'MathsAnswer'"):
            package.MathsAnswer  # type: ignore[attr-defined]
    code = "import sys, textenvs; print([m for m in sys.modules if m.startswith('textenvs.rewards.')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {
        name for name in ("checkers", "json_checks", "maths", "programs", "worker") if f".{name}'" in result.stdout
    }


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_hostile_input_is_never_executed(path: Path) -> None:
    """No eval, exec or pickle; torch.load and trust_remote_code never appear."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__"), f"{path}:{node.lineno}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
            assert not {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} & set(names), (
                f"{path}:{node.lineno}"
            )
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("torch", "load"), f"{path}:{node.lineno}"
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            assert isinstance(node.value, ast.Constant), f"{path}:{node.value.lineno}"
            assert node.value.value is False, f"{path}:{node.value.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_stay_readable(path: Path) -> None:
    assert path.read_text().count("\n") <= 400
