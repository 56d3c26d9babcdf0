"""Every way to use the envs in sb3-contrib, 1,024 steps each; run by fits.py."""

from __future__ import annotations

import itertools
from typing import Any

from fits import tell
from fits_sb3 import learn, make
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO, RecurrentPPO


def use(envs: str, settings: dict[str, Any], autoreset: str) -> tuple[list[float], list[int]]:
    """MaskablePPO where the mask is a method, RecurrentPPO where there is none."""
    if settings["mask_keys"] == "action_masks()":
        return learn(MaskablePPO, "MlpPolicy", make(envs, settings | {"mask_keys": None}, autoreset), n_steps=64)
    return learn(RecurrentPPO, "MlpLstmPolicy", make(envs, settings, autoreset), n_steps=64)


if __name__ == "__main__":
    masks = ["action_masks()", None]
    batch = itertools.product(["batch"], ["onehot"], masks, [mode.value for mode in AutoresetMode])
    single = itertools.product(["single"], ["onehot"], masks, ["library"])
    tokens = [("single", "tokens", "action_masks()", "library"), ("batch", "tokens", "action_masks()", "SameStep")]
    tell(use, [*single, *batch, *tokens, ("single", "onehot", "pettingzoo", "library")])
