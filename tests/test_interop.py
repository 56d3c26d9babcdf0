"""Other libraries plug in: what each saw is what the envs counted, now (`--smoke`) and in docs/interop.csv."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def interop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("interop")


def test_the_record_holds_every_example_and_each_kept_the_invariant(interop: ModuleType) -> None:
    lines = interop.recorded()
    assert [line["example"] for line in lines] == list(interop.EXAMPLES)
    for line in lines:
        interop.check(line, reaches=interop.WANTED)


def test_the_readme_holds_what_the_record_gives(interop: ModuleType) -> None:
    readme = interop.README.read_text(encoding="utf-8")
    between = readme.partition(interop.BEGIN)[2].partition(interop.END)[0]
    assert between.strip() == interop.markdown(interop.recorded()), "run python benchmarks/interop.py --only NAME"
