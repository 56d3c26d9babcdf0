"""Rebuilds the problems of PythonFunction: `python -m textenvs.assets.functions.build [--check]`.

A problem is a function in `train.py`, `train_texts.py` or `heldout.py`, as `sources.py` describes. Its prompt is the
signature and the docstring, its reference the function without docstring and annotations, and its hidden
cases are what the function returns for the edge cases and for drawn arguments, `NUM_CASES` together.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textenvs.assets.functions import heldout, train, train_texts
from textenvs.assets.functions.sources import Source

HERE = Path(__file__).parent
#: Hidden cases of a problem, edge cases included.
NUM_CASES = 40


def row(source: Source) -> dict[str, Any]:
    """The problem as it is stored."""
    name = source.function.__name__
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    inputs = [list(edge) for edge in source.edges]
    while len(inputs) < NUM_CASES:
        drawn = source.arguments(rng)
        if drawn not in inputs:
            inputs.append(drawn)
    cases = [{"args": args, "expected": source.function(*copy.deepcopy(args))} for args in inputs]
    tree = ast.parse(textwrap.dedent(inspect.getsource(source.function)))
    return {
        "prompt": _prompt(tree),
        "references": [_reference(tree)],
        "metadata": {"entry_point": name, "cases": cases},
    }


def _function(tree: ast.Module) -> ast.FunctionDef:
    function = copy.deepcopy(tree.body[0])
    assert isinstance(function, ast.FunctionDef)
    function.decorator_list = []
    return function


def _prompt(tree: ast.Module) -> str:
    """The head and the docstring as they are written, and a newline."""
    function = _function(tree)
    function.body = function.body[:1]
    return ast.unparse(function) + "\n"


def _reference(tree: ast.Module) -> str:
    """The function as a small model has to write it."""
    function = _function(tree)
    function.body, function.returns = function.body[1:], None
    return ast.unparse(ast.fix_missing_locations(_Unannotated().visit(function)))


class _Unannotated(ast.NodeTransformer):
    """Leaves annotations out."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign:
        assert node.value is not None
        return ast.Assign([node.target], node.value)


def build() -> dict[str, bytes]:
    """File name -> content."""
    splits = {"train": [*train.SOURCES, *train_texts.SOURCES], "heldout": heldout.SOURCES}
    return {
        f"python_{split}.jsonl": "".join(
            json.dumps(row(source), ensure_ascii=False) + "\n" for source in sources
        ).encode()
        for split, sources in splits.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Rebuild the problems of PythonFunction.")
    parser.add_argument("--check", action="store_true", help="compare a fresh build with the files, write nothing")
    check = parser.parse_args(argv).check
    stale = [
        name for name, content in build().items() if not (HERE / name).exists() or (HERE / name).read_bytes() != content
    ]
    for name in stale:
        print(f"{name} differs" if check else f"{name} written")
        if not check:
            (HERE / name).write_bytes(build()[name])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
