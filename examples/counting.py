"""What the envs of an example counted, to be held against what the library saw: `count(env)` and `report(...)`.

`count` wraps an env from the inside: whatever library steps it, and however it resets it, each episode that ends here
is noted with its steps and its return; one that a reset cuts short is none. Nothing else changes; info least of all,
where Gymnasium's own RecordEpisodeStatistics writes what libraries read as theirs. The lists are this module's, not an
object's, so that a library that copies what makes the env (RLlib does) writes to the same ones; in other processes they
stay empty, so let the envs run in the main one.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

lengths: list[int] = []
returns: list[float] = []
#: How the envs were used: the format of observations, the source of masks, and who starts the next episode.
used: dict[str, str] = {}
#: Keys of an observation with its mask -> `mask_keys`.
_MASK_KEYS = {
    ("action_mask", "observation"): "pettingzoo",
    ("action_mask", "observations"): "rllib",
    ("mask", "obs"): "tianshou",
}


def count(env: Any) -> Any:
    """The same env, counted; a single one or a batch."""
    batch = isinstance(env, gym.vector.VectorEnv)
    space = env.single_observation_space if batch else env.observation_space
    used.update(mask="none", autoreset=env.metadata["autoreset_mode"].value if batch else "library")
    if isinstance(space, gym.spaces.Dict):
        used["mask"] = _MASK_KEYS[tuple(sorted(space))]
        space = next(box for key, box in space.items() if "mask" not in key)
    used["observation"] = "onehot" if np.issubdtype(space.dtype, np.floating) else "tokens"
    return CountedBatch(env) if batch else Counted(env)


class Counted(gym.Wrapper[Any, Any, Any, Any]):
    """One env."""

    def reset(self, **kwargs: Any) -> Any:
        self._rewards: list[float] = []
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> Any:
        result = _, reward, terminated, truncated, _ = self.env.step(action)
        self._rewards.append(float(reward))
        if terminated or truncated:
            _note(self._rewards)
            self._rewards = []
        return result

    def action_masks(self) -> Any:
        used["mask"] = "action_masks()"
        return self.env.get_wrapper_attr("action_masks")()


class CountedBatch(gym.vector.VectorWrapper):
    """A batch; under NEXT_STEP the step after an end only resets, and is not counted."""

    @property
    def autoreset_mode(self) -> AutoresetMode:
        return self.metadata["autoreset_mode"]

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        starting = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        fresh = [[] for _ in range(self.num_envs)]
        old = getattr(self, "_rewards", fresh)
        self._rewards = [new if start else row for new, start, row in zip(fresh, starting, old, strict=True)]
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> Any:
        result = _, rewards, terminated, truncated, _ = self.env.step(actions)
        ended = terminated | truncated
        for i in np.flatnonzero(~self._resetting):
            self._rewards[i].append(float(rewards[i]))
            if ended[i]:
                _note(self._rewards[i])
                self._rewards[i] = []
        self._resetting = ended & (self.autoreset_mode == AutoresetMode.NEXT_STEP)
        return result

    def action_masks(self) -> Any:
        used["mask"] = "action_masks()"
        return self.env.unwrapped.action_masks()


def _note(rewards: list[float]) -> None:
    lengths.append(len(rewards))
    returns.append(sum(rewards))


def report(
    library: str, returns_library: Iterable[float], lengths_library: Iterable[int], autoreset: str | None = None
) -> None:
    """Print the example's one line of JSON.

    Args:
        library: the name it has on PyPI.
        returns_library: of every episode, as the library saw them, in the order in which they ended; `mean_return` is
            the mean of the last 100, which the agent in training sampled, exploration included.
        lengths_library: steps of every episode, as the library saw them.
        autoreset: the mode of the batch that the library made of single envs, where it made one.
    """
    seen, seen_lengths = [float(value) for value in returns_library], [int(value) for value in lengths_library]
    line = {
        "library": library,
        "version": importlib.metadata.version(library),
        "gymnasium": gym.__version__,
        **used,
        **({"autoreset": autoreset} if autoreset else {}),
        "episodes": len(seen),
        "mean_return": float(np.mean(seen[-100:])) if seen else None,
        "episodes_env": len(returns),
        "episodes_library": len(seen),
        "steps_env": sum(lengths),
        "steps_library": sum(seen_lengths),
        "return_env": sum(returns),
        "return_library": sum(seen),
    }
    print(json.dumps(line), flush=True)
