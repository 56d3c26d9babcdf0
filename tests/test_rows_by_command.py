"""The command's --algorithm picks the row, however it is spelt."""

import json
from pathlib import Path

import pytest

from agents.algorithms import ALGORITHMS
from agents.cli import main
from agents.train import TrainConfig

FAST = ["--episodes", "8", "--num-envs", "8", "--env-kwargs", '{"length": 2, "alphabet": "ab", "split": "all"}']


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_is_the_one_that_trains(tmp_path: Path, name: str) -> None:
    for spelling in (["--algorithm", name], [f"--algorithm={name}"], ["--algorithm", "a2c", "--algorithm", name]):
        run_dir = tmp_path / str(len(list(tmp_path.iterdir())))
        main(["train", "textenvs/Copy-v0", "--run-dir", str(run_dir), *spelling, *FAST])
        config = TrainConfig.from_json(json.loads((run_dir / "config.json").read_text(encoding="utf-8")))
        assert config.algorithm == ALGORITHMS[name]


def test_what_a_perceptron_cannot_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        main(["train", "textenvs/Copy-v0", "--run-dir", str(tmp_path / "run"), "--model", "mlp", *FAST])
    assert status.value.code == 2
    assert "observation_space must be a Box of one axis of floats" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [{"num_episodes": 1.5}, {"num_envs": True}, {"seed": "0"}, {"temperature": "1"}],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_of_another_type_are_refused(changes: dict[str, object]) -> None:
    (name,) = changes
    with pytest.raises(ValueError, match=f"{name} must be"):
        TrainConfig("textenvs/Copy-v0", **changes)  # type: ignore[arg-type]
