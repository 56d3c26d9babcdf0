"""The single file in CleanRL's style in every autoreset mode, two updates each; run by fits.py.

It is `examples/cleanrl_ppo.py` itself, written for NEXT_STEP; only what it asks of `gym.make_vec` is changed.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
from fits import tell
from gymnasium.vector import AutoresetMode

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "cleanrl_ppo.py"
make_vec = gym.make_vec


def use(envs: str, settings: dict[str, Any], autoreset: str) -> tuple[list[float], list[int]]:
    """Two updates of the example."""

    def make(*args: Any, **kwargs: Any) -> Any:
        return make_vec(*args, **kwargs | settings | {"autoreset_mode": autoreset})

    with patch.object(gym, "make_vec", make), patch("sys.argv", [EXAMPLE.name, "--smoke"]):
        names = runpy.run_path(str(EXAMPLE), run_name="__main__")
    return names["returns"], names["lengths"]


if __name__ == "__main__":
    modes = (("batch", "onehot", None, mode.value) for mode in AutoresetMode)
    tell(use, [*modes, ("batch", "tokens", None, "NextStep"), ("batch", "onehot", "pettingzoo", "NextStep")])
