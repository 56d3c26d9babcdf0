"""The task PythonFunction: right and wrong programs against the hidden cases, the splits, the data."""

from __future__ import annotations

import ast
import copy
import doctest
import json
import math
import subprocess
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import gymnasium as gym
import pytest
from sandboxed import bubblewrap

from textenvs import Problem
from textenvs.assets.functions import build, heldout, train, train_texts
from textenvs.rewards import programs as module
from textenvs.rewards.json_checks import same_json
from textenvs.rewards.programs import PythonProgram
from textenvs.tasks.code import PythonFunction
from textenvs.vocab import CharVocab

__all__ = ["bubblewrap"]


@pytest.mark.usefixtures("bubblewrap")
def test_every_reference_passes_and_no_constant_does() -> None:
    task = PythonFunction(split="all")
    assert len(task) >= 40
    problems = [task[k] for k in range(len(task))]
    references = [problem.references[0] for problem in problems]
    responses = SimpleNamespace(texts=references, finish_reasons=["eos"] * len(references))
    scores = PythonProgram()(problems, cast(Any, responses))
    assert scores.values.tolist() == [1.0] * len(task)
    assert task.optimal_return() == 1.0
    assert len(PythonFunction(split="heldout")) >= 10
    for problem in problems:
        cases = problem.metadata["cases"]
        name, expected = problem.metadata["entry_point"], [json.dumps(case["expected"]) for case in cases]
        assert len(cases) == build.NUM_CASES
        assert max(map(expected.count, expected)) <= 2 * len(cases) / 3, f"a constant is nearly right: {name}"
        assert sum(same_json(case["args"][0], case["expected"]) for case in cases) <= 2 * len(cases) / 3, name
        assert len(problem.references[0]) < task.max_new_tokens


def problems_by_name() -> dict[str, Problem]:
    task = PythonFunction(split="all")
    return {task[k].metadata["entry_point"]: task[k] for k in range(len(task))}


def share_here(program: str, problem: Problem) -> float:
    """Share of the cases that a program of ours passes in this process, which starts no sandbox for each."""
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    passed = []
    for case in problem.metadata["cases"]:
        try:
            value = namespace[problem.metadata["entry_point"]](*copy.deepcopy(case["args"]))
        except Exception:
            value = math.nan  # equals nothing
        passed.append(same_json(value, case["expected"]))
    return sum(passed) / len(passed)


def test_the_head_of_the_prompt_can_be_copied() -> None:
    """Its annotations are evaluated when the function is defined: `Any` would be a NameError."""
    for problem in problems_by_name().values():
        body = problem.references[0].partition("\n")[2]
        assert share_here(problem.prompt + body, problem) == 1.0, problem.prompt


def test_the_cases_tell_plausible_wrong_programs_from_right_ones() -> None:
    problems = problems_by_name()
    lines = (build.HERE / "wrong.txt").read_text(encoding="utf-8").splitlines()
    names = [line.partition(" = ")[0] for line in lines]
    assert min(map(names.count, problems)) >= 2
    passing = [line for name, line in zip(names, lines, strict=True) if share_here(line, problems[name]) == 1.0]
    assert passing == []


@pytest.mark.usefixtures("bubblewrap")
def test_a_wrong_program_scores_0_in_the_sandbox_too() -> None:
    problem = problems_by_name()["is_prime"]
    texts = ["is_prime = lambda n: n in (2, 3, 5, 7, 97)", "def is_prime(n):\n    return n > 1 and n % 2 == 1"]
    responses = SimpleNamespace(texts=texts, finish_reasons=["eos"] * 2)
    assert PythonProgram()([problem] * 2, cast(Any, responses)).values.tolist() == [0, 0]


def test_the_splits_share_no_function() -> None:
    splits = [PythonFunction(split=split) for split in ("train", "heldout")]
    for key in (lambda p: p.metadata["entry_point"], lambda p: p.prompt, lambda p: p.references[0].partition(":")[2]):
        first, second = ({key(task[k]) for k in range(len(task))} for task in splits)
        assert len(first) + len(second) == len(first | second) == sum(map(len, splits))


class Erased(ast.NodeTransformer):
    """What is left of a function without its names, its constants, its operators and the order of their operands."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = ""
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg("")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name("", node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant(0)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        left, right = sorted((self.visit(node.left), self.visit(node.right)), key=ast.dump)
        return ast.BinOp(left, ast.Add(), right)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        return self.generic_visit(ast.Compare(node.left, [ast.Eq() for _ in node.ops], node.comparators))


def test_no_held_out_function_is_nearly_another_one() -> None:
    """As tripling is doubling with another number, and the odd numbers are the even ones with another comparison."""

    def shape(program: str) -> str:
        return ast.dump(Erased().visit(ast.parse(program)))

    assert shape("def triple(n):\n  return 3 * n") == shape("def double(m):\n  return m + 2")
    assert shape("def f(n):\n  return 3 * n") != shape("def f(n):\n  return n")
    shapes: dict[str, set[str]] = {}
    for split in ("train", "heldout"):
        task = PythonFunction(split=split)
        for k in range(len(task)):
            shapes.setdefault(shape(task[k].references[0]), set()).add(f"{split}: {task[k].metadata['entry_point']}")
    near = [names for names in shapes.values() if len(names) > 1 and any(name.startswith("heldout") for name in names)]
    assert near == []


def test_the_data_rebuilds_and_the_examples_are_true() -> None:
    assert build.main(["--check"]) == 0
    for functions in (train, train_texts, heldout):
        finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
        for source in functions.SOURCES:
            for example in finder.find(source.function, globs={source.function.__name__: source.function}):
                assert runner.run(example) == (0, 1), source.function.__name__


def test_a_missing_file_is_stale(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert build.main(["--check"]) == 1
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0


def test_difficulty_and_prompts() -> None:
    short, long = PythonFunction(max_reference_tokens=60), PythonFunction()
    shortest = [len(PythonFunction(max_reference_tokens=40, split=split)) for split in ("train", "heldout")]
    assert min(shortest) >= 1
    assert shortest[0] < len(short) < len(long)
    assert short.max_prompt_tokens == long.max_prompt_tokens == PythonFunction(split="heldout").max_prompt_tokens
    assert long.problem(long[3].prompt) == long[3]
    with pytest.raises(ValueError, match='reward="python_program"'):
        long.problem("def mine():")
    with pytest.raises(ValueError, match="max_reference_tokens must be"):
        PythonFunction(max_reference_tokens=256)


def test_making_it_reads_a_problem_once_checks_two_and_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **named: calls.update([name]) or function(*given, **named))

    for owner, name in ((json, "loads"), (CharVocab, "encode"), (PythonProgram, "require"), (subprocess, "Popen")):
        count(owner, name)
    monkeypatch.setattr(module, "run_programs", lambda jobs, *rest: pytest.fail("started") if jobs else [])
    env = gym.make("textenvs/PythonFunction-v0")
    env.reset(seed=0)
    counted, num_problems = dict(calls), len(PythonFunction(split="all"))
    # A line a problem; every prompt for the longest, and the first episode's; the cases of problem 0 and of that one.
    assert counted == {"loads": num_problems, "encode": num_problems + 1, "require": 2}
    *_, info = env.step(env.action_space.n - 1)  # type: ignore[attr-defined]
    assert info["status"] == "model_fault"
    assert info["cases_passed"] == 0
