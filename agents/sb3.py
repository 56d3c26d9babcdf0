"""What Stable-Baselines3 needs to learn from text envs: a `VecEnv`, features from token ids, a watch on episodes.

Needs stable-baselines3; `agents.baselines` imports this module where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor, nn

try:
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor
except ImportError as error:
    raise ImportError('the baselines need stable-baselines3; pip install "textenvs[sb3]"') from error

#: Methods of a batch env that answer for all rows at once, one entry a row.
ROW_METHODS = ("action_masks", "demonstration")
#: Attributes that a single env has under another name in a batch env.
SINGLE = {"observation_space": "single_observation_space", "action_space": "single_action_space"}


class SB3VecEnv(VecEnv):  # type: ignore[misc]
    """SB3's `VecEnv` over a Gymnasium batch env: one array operation a step instead of N Python envs.

    Seeded the same it equals a `DummyVecEnv` over N envs of `gym.make`: an ended row is reset within the step, its last
    observation stands in `info["terminal_observation"]`, and `info["TimeLimit.truncated"]` says that something outside
    cut the episode. Rewards are float32, as SB3 stores them. Wrap it in `VecMonitor` for `info["episode"]`.

    The rows share one env, so that `get_attr` gives each of them the same object, except for what has an entry a row
    (`action_masks`, `demonstration`, `np_random`), and `set_attr` sets all rows at once.

    Args:
        envs: a `gym.vector.VectorEnv` in SAME_STEP mode.

    Raises:
        ValueError: another autoreset mode, under which SB3 would learn from steps that only reset.
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ValueError(f"autoreset_mode must be SameStep for SB3, got {mode}; pass it to gym.make_vec")
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata = envs.metadata

    def reset(self) -> Any:
        """Start an episode in every row, with the seeds and options of `seed` and `set_options`, used once."""
        options = [dict(row or {}) for row in self._options]
        if all(row == options[0] for row in options):
            observations, infos = self.envs.reset(seed=self._seeds, options=options[0])
            self.reset_infos = [row_info(infos, i) for i in range(self.num_envs)]
        else:
            for i, row in enumerate(options):
                mask = np.arange(self.num_envs) == i
                observations, infos = self.envs.reset(seed=self._seeds, options={**row, "reset_mask": mask})
                self.reset_infos[i] = row_info(infos, i)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Take note of the actions (N,)."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every row: observations (N, ...), rewards (N,), dones (N,), and N infos."""
        observations, rewards, terminated, truncated, columns = self.envs.step(self._actions)
        dones = terminated | truncated
        final = columns.pop("final_info", {})
        last = columns.pop("final_obs", None)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i, done in enumerate(dones.tolist()):
            if done:
                self.reset_infos[i] = row_info(columns, i)
                infos[i] = {**row_info(final, i), "terminal_observation": last[i]}
            elif columns:
                infos[i] = row_info(columns, i)
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the batch env."""
        self.envs.close()

    def get_images(self) -> Sequence[None]:
        """No pictures: text is rendered by the env of `gym.make`."""
        return [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of each row; a row method comes back as a function of no arguments.

        Raises:
            AttributeError: the batch env has none of that name.
        """
        rows = list(self._get_indices(indices))
        if attr_name in ROW_METHODS:
            method = self._attribute(attr_name)
            return [lambda i=i: method()[i] for i in rows]
        value = self._attribute(SINGLE.get(attr_name, attr_name))
        return [value[i] for i in rows] if attr_name == "np_random" else [value] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the batch env, which all rows share.

        Raises:
            ValueError: for some of the rows only, or for what has an entry a row.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"indices must be None or all rows, got {indices!r}; the rows share one env")
        if attr_name in (*ROW_METHODS, *SINGLE, "np_random"):
            raise ValueError(f"attr_name must be an attribute that rows share, got {attr_name!r}; make the env anew")
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a row method, `action_masks` or `demonstration`, once for all rows.

        Raises:
            AttributeError: no row method of that name, such as `step`, which rows cannot do alone.
        """
        if method_name not in ROW_METHODS:
            raise AttributeError(
                f"env_method must be {' or '.join(ROW_METHODS)} in a batch, got {method_name!r}; "
                "use a DummyVecEnv of gym.make for other methods"
            )
        answers = self._attribute(method_name)(*method_args, **method_kwargs)
        return [answers[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Whether the batch env stands in such a (vector) wrapper."""
        env, found = self.envs, False
        while isinstance(env, gym.vector.VectorWrapper):
            found |= isinstance(env, wrapper_class)
            env = env.env
        return [found for _ in self._get_indices(indices)]

    def _attribute(self, name: str) -> Any:
        """Of the outermost wrapper that has it; a name of the batch env alone is none of a row's."""
        return getattr(self.envs if hasattr(self.envs, name) else self.envs.unwrapped, name)


def row_info(columns: dict[str, Any], i: int) -> dict[str, Any]:
    """Row i's own info from Gymnasium's columns: the entries whose `_key` mask holds it, as plain Python scalars."""
    info = {}
    for key, column in columns.items():
        if f"_{key}" in columns and columns[f"_{key}"][i]:
            value = row_info(column, i) if isinstance(column, dict) else column[i]
            info[key] = value.item() if isinstance(value, np.generic) else value
    return info


class TokenEmbeddingExtractor(BaseFeaturesExtractor):  # type: ignore[misc]
    """Embeddings of tokens and slots, pooled by attention: (B, L) token ids -> (B, 2 * embedding_dim) features.

    Every slot is the sum of the embeddings of its token (the empty slot, V, has one of its own) and of its place. The
    slot written last asks: a learned query of that slot attends over all slots, and the features are what it found
    beside the query itself. SB3 alone would read ids as magnitudes, and an MLP on one-hot prefixes must learn for each
    place apart what a token means.

    Args:
        observation_space: the default token observation, `Box(0, V, (L,), int64)`.
        embedding_dim: width of an embedding, a multiple of num_heads.
        num_heads: attention heads.
        twice_differentiable: attend without PyTorch's fused kernel, through which TRPO's Fisher products do not pass.

    Raises:
        ValueError: not a row of token ids, or an embedding that the heads cannot share.

    Source: Vaswani et al., "Attention Is All You Need", 2017.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        embedding_dim: int = 32,
        num_heads: int = 4,
        twice_differentiable: bool = False,
    ) -> None:
        space = observation_space
        if not (isinstance(space, spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.integer)):
            raise ValueError(
                f"observation_space must be a Box of (L,) token ids, got {space}; use observation='tokens'"
            )
        if embedding_dim % num_heads:
            raise ValueError(f"embedding_dim must be a multiple of num_heads={num_heads}, got {embedding_dim}")
        super().__init__(space, 2 * embedding_dim)
        self.twice_differentiable = twice_differentiable
        length, self.empty = space.shape[0], int(space.high.max())
        self.tokens = nn.Embedding(self.empty + 1, embedding_dim)
        self.slots = nn.Embedding(length, embedding_dim)
        self.queries = nn.Embedding(length, embedding_dim)
        self.attention = nn.MultiheadAttention(embedding_dim, num_heads, batch_first=True)

    def forward(self, observations: Tensor) -> Tensor:
        """Features (B, 2 * embedding_dim) of ids (B, L), which SB3 hands over as floats."""
        ids = observations.long()
        places = torch.arange(ids.shape[1], device=ids.device)
        last = torch.where(ids == self.empty, 0, places).amax(1)  # (B,)
        slots = self.tokens(ids) + self.slots(places)  # (B, L, D)
        query = self.queries(last)  # (B, D)
        # Asked for its weights as well, the module attends by plain products.
        found, _ = self.attention(query[:, None], slots, slots, need_weights=self.twice_differentiable)  # (B, 1, D)
        return torch.cat([found[:, 0], query], dim=1)


class TrainingEnded(Exception):
    """Whoever watches the episodes wants no more of them."""


class EpisodeMonitor(VecMonitor):  # type: ignore[misc]
    """Hands the return of every episode that ends to a function, which ends the training by saying False.

    An env sees every episode of every agent; a callback of SB3 does not see those that ARS plays, nor can it stop it.

    Args:
        envs: the VecEnv to watch.
        on_episode: called with the undiscounted return of each episode, in the order of rows.

    Raises:
        TrainingEnded: from the step with the episode that was the last.
    """

    def __init__(self, envs: VecEnv, on_episode: Callable[[float], bool]) -> None:
        super().__init__(envs)
        self.on_episode = on_episode

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every row, as `SB3VecEnv.step_wait` does."""
        observations, rewards, dones, infos = super().step_wait()
        for info in infos:
            if "episode" in info and not self.on_episode(float(info["episode"]["r"])):
                raise TrainingEnded
        return observations, rewards, dones, infos
