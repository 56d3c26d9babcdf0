"""docs/fits.csv, which `python benchmarks/fits.py` writes: it agrees with itself, and the guides hold it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return import_module("fits")


def test_every_outcome_is_what_the_counts_say(fits: ModuleType) -> None:
    counted = [row for row in fits.recorded() if row["episodes_env"]]
    assert {row["library"] for row in counted} == {*fits.LIBRARIES}
    assert len(counted) >= 30
    for row in counted:
        numbers = {key: float(row[key]) for key in row if key.endswith(("_env", "_library"))}
        assert row["outcome"].replace(",", "") == fits.outcome(numbers).replace(",", "").replace(".0", "")


def test_the_modes_that_the_guides_promise_fit_and_those_they_warn_of_do_not(fits: ModuleType) -> None:
    keys = ("library", "envs", "observation", "mask", "autoreset")
    outcomes = {tuple(row[key] for key in keys): row["outcome"] for row in fits.recorded()}
    for envs in ("single", "batch"):
        for mask in ("none", "rllib"):
            assert outcomes["rllib", envs, "onehot", mask, "NextStep"] == "fits"
            assert outcomes["rllib", envs, "onehot", mask, "SameStep"].startswith("sees ")
            assert outcomes["rllib", envs, "onehot", mask, "Disabled"].startswith("refused: ")
    for mask in ("none", "pettingzoo"):
        assert outcomes["torchrl", "single", "onehot", mask, "library"] == "fits"
        assert outcomes["torchrl", "batch", "onehot", mask, "Disabled"] == "fits"
        assert outcomes["torchrl", "batch", "onehot", mask, "NextStep"].startswith("refused: ")
        assert outcomes["torchrl", "batch", "onehot", mask, "SameStep"].startswith("refused: ")
    for library, mask in (("sb3", "none"), ("sb3_contrib", "none"), ("sb3_contrib", "action_masks()")):
        assert outcomes[library, "single", "onehot", mask, "library"] == "fits"
        assert outcomes[library, "batch", "onehot", mask, "SameStep"] == "fits"
        assert outcomes[library, "batch", "onehot", mask, "NextStep"].startswith("refused: ")
        assert outcomes[library, "batch", "onehot", mask, "Disabled"].startswith("refused: ")
    assert outcomes["cleanrl", "batch", "onehot", "none", "NextStep"] == "fits"
    assert outcomes["cleanrl", "batch", "onehot", "none", "SameStep"].startswith("sees ")
    assert outcomes["cleanrl", "batch", "onehot", "none", "Disabled"].startswith("refused: ")
    assert outcomes["tianshou", "PPO", "onehot", "none", "library"] == "fits"
    assert outcomes["tianshou", "DQN", "onehot", "tianshou", "library"] == "fits"


def test_the_guides_tables_are_of_the_record(fits: ModuleType) -> None:
    for library in fits.LIBRARIES:
        page = (ROOT / "docs" / "plug_in" / f"{library}.md").read_text(encoding="utf-8")
        between = page.partition(fits.BEGIN)[2].partition(fits.END)[0]
        rows = [row for row in fits.recorded() if row["library"] == library]
        assert between.strip() == fits.markdown(rows), f"run python benchmarks/fits.py --only {library}"


def test_the_readmes_table_is_of_the_record(fits: ModuleType) -> None:
    between = fits.README.read_text(encoding="utf-8").partition(fits.BEGIN)[2].partition(fits.END)[0]
    assert between.strip() == fits.summary(fits.recorded()), "run python benchmarks/fits.py"


def test_the_summary_names_what_fits_and_each_mode(fits: ModuleType) -> None:
    def row(envs: str, observation: str, mask: str, autoreset: str, outcome: str) -> dict[str, str]:
        names = {"library": "rllib", "envs": envs, "observation": observation, "mask": mask}
        return {**names, "autoreset": autoreset, "outcome": outcome}

    lines = fits.summary(
        [
            row("batch", "onehot", "none", "NextStep", "fits"),
            row("batch", "onehot", "none", "SameStep", "sees 1 of 2 steps"),
            row("batch", "onehot", "rllib", "NextStep", "fits"),
            row("batch", "tokens", "none", "NextStep", "refused: RuntimeError: no"),
            row("bare", "onehot", "none", "Disabled", "refused: ValueError: no"),
        ]
    ).splitlines()
    assert lines[0] == "| library | envs | observation | mask | library | NextStep | SameStep | Disabled |"
    assert lines[1] == "|---|---|---|---|---|---|---|---|"
    assert lines[2:] == [
        "| [rllib](docs/plug_in/rllib.md) | batch | onehot | none, rllib | - | fits | sees 1 of 2 steps | - |",
        "| [rllib](docs/plug_in/rllib.md) | bare | - | - | - | - | - | refused |",
    ]


def test_a_library_that_loses_steps_or_returns_does_not_fit(
    fits: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    counting = import_module("counting")

    def use(envs: str, settings: dict[str, object], autoreset: str) -> tuple[list[float], list[int]]:
        counting.lengths += [4, 2]
        counting.returns += [1.0, 0.5]
        if envs == "refuses":
            raise TypeError("no masks here")
        return {"all": ([1.0, 0.5], [4, 2]), "short": ([1.0, 0.5], [4, 1]), "poor": ([1.0, 0.4], [4, 2])}[envs]

    fits.tell(use, [(envs, "onehot", None, "NextStep") for envs in ("all", "short", "poor", "refuses")])
    said = [line.partition('"outcome": "')[2].rstrip('"}') for line in capsys.readouterr().out.splitlines()]
    assert said == ["fits", "sees 5 of 6 steps", "other returns: 1.40 for 1.50", "refused: TypeError: no masks here"]
