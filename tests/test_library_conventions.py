"""What libraries take for granted of an env, stated without them; `make interop` runs the real ones.

First what samplers that know one autoreset mode make of our batch in each: which steps they see, and what is refused.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv

from textenvs.tasks import make_task


def batch(mode: AutoresetMode, num_envs: int = 8) -> VectorEnv:
    return gym.make_vec(
        "textenvs/Copy-v0", num_envs=num_envs, length=3, alphabet="abcd", dense=True, autoreset_mode=mode
    )


def rllib(envs: VectorEnv, num_steps: int) -> tuple[int, int]:
    """Steps of ended episodes, as RLlib 2.60's SingleAgentEnvRunner sees them, and as the responses in the infos say.

    After an episode's end its next `step` result is taken for the reset, whatever the mode.
    """
    envs.reset(seed=0)
    envs.action_space.seed(0)
    fresh = np.zeros(envs.num_envs, dtype=bool)
    running = np.zeros(envs.num_envs, dtype=int)
    seen = true = 0
    for _ in range(num_steps):
        _, _, terminated, _, infos = envs.step(envs.action_space.sample())
        final = infos.get("final_info", infos)
        for row in np.flatnonzero(terminated):
            true += len(final["response"][row]) + (final["finish_reason"][row] == "eos")
        running += ~fresh
        fresh = terminated & ~fresh
        seen += int(running[fresh].sum())
        running[fresh] = 0
    return seen, true


def test_rllibs_sampler_sees_every_step_under_next_step() -> None:
    seen, true = rllib(batch(AutoresetMode.NEXT_STEP), 200)
    assert seen == true > 800


def test_rllibs_sampler_loses_the_first_step_of_every_episode_under_same_step() -> None:
    seen, true = rllib(batch(AutoresetMode.SAME_STEP), 200)
    assert true > 1_500
    assert 0.6 < seen / true < 0.8  # 3.1 steps an episode, of which one is lost; of one-step episodes all


def test_a_sampler_that_does_not_reset_is_refused_under_disabled() -> None:
    with pytest.raises(ResetNeeded, match=r"have ended; call reset\(options="):
        rllib(batch(AutoresetMode.DISABLED), 200)


@pytest.mark.parametrize("task", ["copy", make_task("copy")], ids=["name", "Task"])
def test_an_unknown_setting_is_refused_in_pythons_own_words_too(task: object) -> None:
    # TorchRL's GymEnv makes every id with `frameskip` first, and goes on without only where these words say so.
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        gym.make("TextGen-v0", task=task, frameskip=1)
