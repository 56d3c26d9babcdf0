"""Earlier episodes that updates go on imitating, and their place in a checkpoint. What imitation is: `update`."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from agents.rollout import Rollout

MAX_EPISODES = 2**10  # remembered, the newest
_OF_DECISIONS = {"actions", "mask", "positions", "legal", "log_probs", "values", "rewards"}  # (B, T, ...)


class Replay:
    """Episodes in which some decision returned more than was expected of it.

    Attributes:
        rollout: the episodes, from the oldest on; None while there are none.
        returns: (B, T) what each decision returned, from it on: the critic's target, where there is one.
        gains: (B, T) by how much that was more than expected when it was played, at least 0.
    """

    def __init__(self) -> None:
        self.rollout: Rollout | None = None
        self.returns = self.gains = torch.zeros(0, 0)

    def __len__(self) -> int:
        return len(self.gains)

    def add(self, rollout: Rollout, returns: Tensor, expected: Tensor) -> None:
        """Remember the episodes (B) of which returns (B, T) exceed what was expected (B, T) somewhere."""
        gains = torch.where(torch.from_numpy(rollout.mask), (returns - expected).clamp(min=0), 0.0)
        rows = (gains > 0).any(1).numpy()
        if not rows.any():
            return
        # Nobody looks at their infos again, which hold whole texts.
        kept = replace(rollout.select(rows), infos=np.array([{}] * int(rows.sum()), object))
        if self.rollout is not None:
            kept = join(self.rollout, kept)
        width = kept.mask.shape[1]
        newest = slice(-MAX_EPISODES, None)
        self.gains = torch.cat([widen(self.gains, width), widen(gains[rows], width)])[newest]
        self.returns = torch.cat([widen(self.returns, width), widen(returns[rows], width)])[newest]
        self.rollout = kept.select(np.arange(len(kept))[newest])

    def draw(self, num_episodes: int, rng: Generator) -> NDArray[np.int64]:
        """Draw different episodes, at most all, each as likely as its gains are large: prioritised replay."""
        weights = self.gains.sum(1).double().numpy()
        number = min(num_episodes, len(weights))
        return np.asarray(rng.choice(len(weights), number, replace=False, p=weights / weights.sum()))

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `load` needs."""
        if self.rollout is None:
            return {}
        columns = {field.name: getattr(self.rollout, field.name) for field in fields(Rollout) if field.name != "infos"}
        tensors = {name: torch.from_numpy(column) for name, column in columns.items() if column is not None}
        return tensors | {"returns": self.returns, "gains": self.gains}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave.

        Raises:
            ValueError: for tensors of something else.
        """
        if not tensors:
            return
        columns: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        sizes = {name: column.shape[:1] for name, column in columns.items()}
        try:
            returns, gains = (torch.from_numpy(columns.pop(name)) for name in ("returns", "gains"))
            rollout = Rollout(**{"legal": None, **columns}, infos=np.array([{}] * len(gains), object))
            if len({*sizes.values()}) > 1:
                raise ValueError(f"numbers of episodes {sizes}")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"replay must hold columns of episodes, got {error}; restore the checkpoint") from None
        self.rollout, self.returns, self.gains = rollout, returns, gains


def widen(x: Tensor, width: int) -> Tensor:
    """Pad (B, T, ...) with zeros to (B, width, ...)."""
    out = x.new_zeros((len(x), width, *x.shape[2:]))
    out[:, : x.shape[1]] = x
    return out


def join(one: Rollout, other: Rollout) -> Rollout:
    """Put the episodes of two rollouts of a policy in one env one after another."""
    width = max(one.mask.shape[1], other.mask.shape[1])
    stacked = _OF_DECISIONS | ({"observations"} if one.starts is None else set())
    columns: dict[str, Any] = {}
    for field in fields(Rollout):
        pair = [getattr(rollout, field.name) for rollout in (one, other)]
        if field.name in stacked and pair[0] is not None:
            pair = [widen(torch.from_numpy(x), width).numpy() for x in pair]
        columns[field.name] = None if pair[0] is None else np.concatenate(pair)
    return Rollout(**columns)
