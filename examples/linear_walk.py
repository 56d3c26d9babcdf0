"""An ordinary Gymnasium env, trained by the same loop as the language models: walk along a line to a target.

    python examples/linear_walk.py [--seed 0] [--smoke]

Importing this file registers `LinearWalk-v0`, so `textenvs train examples.linear_walk:LinearWalk-v0 --model mlp ...`
works too. The optimum is known exactly, and the example ends with the distance to it from every start.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

SIZE = 11


class LinearWalk(gym.Env[np.ndarray, int]):
    """Cells 0 to 10; actions 0 (left) and 1 (right); every step costs 0.1 and the episode ends at the target.

    The observation is (position, target), each divided by 10. From distance d the best return is -0.1 d.
    """

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw two different cells; `options={"cells": (position, target)}` picks them."""
        super().reset(seed=seed)
        cells = (options or {}).get("cells")
        self.position, self.target = map(int, self.np_random.choice(SIZE, 2, replace=False) if cells is None else cells)
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move one cell; a wall leaves the position as it is."""
        self.position = min(max(self.position + (1 if action else -1), 0), SIZE - 1)
        return self._observe(), -0.1, self.position == self.target, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.position, self.target], np.float32) / (SIZE - 1)


gym.register("LinearWalk-v0", LinearWalk, max_episode_steps=50)


def main() -> None:
    """Train, then walk greedily from every start to every target."""
    import torch

    from agents.algorithms import Algorithm
    from agents.train import TrainConfig, make_envs, start_policy, train

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="two updates only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    algorithm = Algorithm(episodes_per_update=32, num_epochs=8, gamma=0.98, value_coef=0.5, learning_rate=3e-3)
    size = {"num_episodes": 64 if arguments.smoke else 1280, "seed": arguments.seed}
    config = TrainConfig("LinearWalk-v0", algorithm=algorithm, model="mlp", **size)
    with tempfile.TemporaryDirectory() as temporary:
        run_dir = train(config, arguments.run_dir or Path(temporary) / "run")
        policy = start_policy(config, make_envs("LinearWalk-v0", 1, {}))
        policy.load(run_dir / "final")
    env, lost = gym.make("LinearWalk-v0"), []
    for position, target in itertools.permutations(range(SIZE), 2):
        observation, _ = env.reset(options={"cells": (position, target)})
        total, done = 0.0, False
        while not done:
            rng = [np.random.default_rng(0)]
            action = policy.act(observation[None], np.zeros(1, np.int64), None, rng, greedy=True).actions[0]
            observation, reward, terminated, truncated, _ = env.step(int(action))
            total, done = total + float(reward), terminated or truncated
        lost.append(-0.1 * abs(position - target) - total)
    best = sum(loss < 1e-6 for loss in lost)
    print(f"shortest walk from {best} of {len(lost)} pairs of cells; mean return lost {np.mean(lost):.3f}")


if __name__ == "__main__":
    main()
