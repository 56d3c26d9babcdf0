"""Who chooses tokens: the `Policy` protocol and two policies that do not learn. The language model lives in `lm`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.random import Generator
from numpy.typing import NDArray


@dataclass(frozen=True)
class Decisions:
    """What a policy chose for n rows."""

    actions: NDArray[np.int64]  # (n,)
    log_probs: NDArray[np.float32]  # (n,) log-probability of each action under the policy that chose it
    values: NDArray[np.float32]  # (n,) value of the state before the action


class Policy(Protocol):
    """Chooses actions for some rows of a batch of observations.

    Attributes:
        prefix_observations: True when every observation contains all earlier ones of its episode (token prefixes), so
            that a rollout needs to keep the last only; False when it must stack them.
    """

    prefix_observations: bool

    def act(
        self,
        observations: NDArray[Any],
        rows: NDArray[np.int64],
        legal: NDArray[np.bool_] | None,
        rngs: Sequence[Generator],
        *,
        greedy: bool = False,
    ) -> Decisions:
        """Choose one action for each of the given rows.

        Args:
            observations: (N, ...) of all rows.
            rows: (n,) distinct rows to act for.
            legal: (n, V) True where an action is allowed, or None when all are.
            rngs: n generators; row i may draw from its own only, so that neighbours never change its choice.
            greedy: take the most likely action instead of a sample.

        Returns:
            Decisions for the n rows.
        """
        ...


class RandomPolicy:
    """Uniform over the legal tokens: the floor of every benchmark."""

    prefix_observations = True

    def __init__(self, num_actions: int) -> None:
        self.num_actions = num_actions

    def act(
        self,
        observations: NDArray[Any],
        rows: NDArray[np.int64],
        legal: NDArray[np.bool_] | None,
        rngs: Sequence[Generator],
        *,
        greedy: bool = False,
    ) -> Decisions:
        """Draw one legal action a row; all are equally likely, so greedy changes nothing."""
        choices = np.ones((len(rows), self.num_actions), bool) if legal is None else legal
        actions = np.array([rng.choice(np.flatnonzero(row)) for row, rng in zip(choices, rngs, strict=True)], np.int64)
        return Decisions(actions, -np.log(choices.sum(1), dtype=np.float32), np.zeros(len(rows), np.float32))


class OraclePolicy:
    """Plays the env's own demonstration: the ceiling of every benchmark that has one."""

    prefix_observations = True

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self.envs = envs
        metadata = envs.metadata["textgen"]
        self.pad_id, self.first_slot = metadata["num_tokens"], metadata["max_prompt_tokens"]
        self.remaining: dict[int, list[int]] = {}

    def act(
        self,
        observations: NDArray[Any],
        rows: NDArray[np.int64],
        legal: NDArray[np.bool_] | None,
        rngs: Sequence[Generator],
        *,
        greedy: bool = False,
    ) -> Decisions:
        """Play the next token of each row's demonstration.

        Raises:
            ValueError: when a row's problem has no demonstration, or the episode goes on after its last token.
        """
        fresh = rows[observations[rows, self.first_slot] == self.pad_id]
        if len(fresh):
            demonstrations = self.envs.unwrapped.demonstration()  # type: ignore[attr-defined]
            self.remaining.update({int(row): list(demonstrations[row] or ()) for row in fresh})
        if any(not self.remaining[int(row)] for row in rows):
            raise ValueError("demonstration() must give a reference for every problem, got None; use another policy")
        actions = np.array([self.remaining[int(row)].pop(0) for row in rows], np.int64)
        return Decisions(actions, np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32))
