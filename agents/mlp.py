"""MLPPolicy: a perceptron for ordinary Gymnasium envs with flat observations and discrete actions.

It is trained by the same loop as a language model, on tasks whose right answer the world knows.
"""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agents.losses import token_scores
from agents.policy import Decisions
from agents.rollout import Rollout


class MLPPolicy(nn.Module):
    """Two tanh networks, one for the policy and one for the value (37 details, details 2 and 13)."""

    prefix_observations = False

    def __init__(self, num_features: int, num_actions: int, hidden_sizes: Sequence[int]) -> None:
        """Make the networks with orthogonal weights from torch's global generator; see `from_spaces`."""
        super().__init__()
        self.actor = _network(num_features, hidden_sizes, num_actions, last_gain=0.01)
        self.critic = _network(num_features, hidden_sizes, 1, last_gain=1.0)

    @classmethod
    def from_spaces(
        cls,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        seed: int,
    ) -> "MLPPolicy":
        """Make a randomly initialised policy for an env's single spaces.

        Args:
            observation_space: a Box of one axis, of floats.
            action_space: a Discrete that starts at 0.
            hidden_sizes: widths of the hidden layers of both networks.
            seed: of the initial weights; the global generator is left as it was.

        Raises:
            ValueError: for other spaces.
        """
        box = observation_space if isinstance(observation_space, gym.spaces.Box) else None
        # Integers, such as token ids, are names: their size means nothing.
        if box is None or len(box.shape) != 1 or not np.issubdtype(box.dtype, np.floating):
            raise ValueError(
                f"observation_space must be a Box of one axis of floats, got {observation_space}; "
                "use gymnasium.wrappers.FlattenObservation, or observation='onehot' for a text env"
            )
        if not isinstance(action_space, gym.spaces.Discrete) or action_space.start != 0:
            raise ValueError(f"action_space must be Discrete and start at 0, got {action_space}; wrap the env")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(box.shape[0], int(action_space.n), hidden_sizes)

    @torch.no_grad()
    def act(
        self,
        observations: NDArray[Any],
        rows: NDArray[np.int64],
        legal: NDArray[np.bool_] | None,
        rngs: Sequence[Generator],
        *,
        greedy: bool = False,
    ) -> Decisions:
        """Choose an action for each row by inverse CDF; see `Policy.act`."""
        features = torch.from_numpy(np.asarray(observations[rows], np.float32))
        logits, values = self._forward(features, None if legal is None else torch.from_numpy(legal))
        log_probs = torch.log_softmax(logits, -1)
        if greedy:
            actions = log_probs.argmax(-1)
        else:
            cdf = log_probs.double().exp().cumsum(-1)
            uniforms = torch.tensor([rng.random() for rng in rngs], dtype=torch.float64)
            # Weights that are not finite have no CDF; whoever steps the env refuses their log-probability.
            actions = torch.searchsorted(cdf, uniforms[:, None] * cdf[:, -1:], right=True)[:, 0]
            actions = actions.clamp(max=log_probs.shape[-1] - 1)
        chosen = log_probs.gather(-1, actions[:, None])[:, 0]
        return Decisions(actions.numpy(), chosen.numpy(), values.numpy())

    def evaluate(self, rollout: Rollout, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute log-probabilities, values and entropies of whole episodes, (n, T) each, 0 outside the mask."""
        mask = rollout.mask[rows]
        features = torch.from_numpy(np.asarray(rollout.observations[rows][mask], np.float32))
        legal = None if rollout.legal is None else torch.from_numpy(rollout.legal[rows][mask])
        logits, values = self._forward(features, legal)
        actions = torch.from_numpy(rollout.actions[rows][mask])
        chosen, entropies = token_scores(logits, actions)
        index = tuple(torch.from_numpy(axis) for axis in np.nonzero(mask))
        zeros = torch.zeros(mask.shape)
        scattered = (zeros.index_put(index, x) for x in (chosen, values, entropies))
        return tuple(scattered)  # type: ignore[return-value]

    def _forward(self, features: Tensor, legal: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return logits (M, A), -inf where an action is not legal, and values (M,)."""
        logits = self.actor(features)
        if legal is not None:
            logits = logits.masked_fill(~legal, -torch.inf)
        values: Tensor = self.critic(features)[:, 0]
        return logits, values

    @property
    def value_bias(self) -> Tensor:
        """The (1,) parameter that is added to every value."""
        return self.critic[-1].bias  # type: ignore[return-value]

    def frozen_copy(self) -> "MLPPolicy":
        """Return a copy without gradients: the reference of a KL penalty."""
        return copy.deepcopy(self).requires_grad_(False)

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), Path(folder) / "model.safetensors")

    def load(self, folder: Path) -> None:
        """Take over the weights that `save` wrote for a policy of the same shape.

        Raises:
            ValueError: for weights of another shape, or not finite.
        """
        tensors = load_file(folder / "model.safetensors")
        if any(not torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError(f"weights must be finite, got NaN or infinity in {folder}; use an earlier checkpoint")
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"weights must fit the env and hidden_sizes, got {folder}: {error}") from None


def _network(num_inputs: int, hidden_sizes: Sequence[int], num_outputs: int, *, last_gain: float) -> nn.Sequential:
    sizes = [num_inputs, *hidden_sizes]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [_linear(before, after, math.sqrt(2)), nn.Tanh()]
    return nn.Sequential(*layers, _linear(sizes[-1], num_outputs, last_gain))


def _linear(num_inputs: int, num_outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(num_inputs, num_outputs)
    # In double precision, so that the number of threads does not show in the float32 weights.
    weight = nn.init.orthogonal_(torch.empty(layer.weight.shape, dtype=torch.float64), gain)
    layer.weight.data.copy_(weight)
    nn.init.zeros_(layer.bias)
    return layer
