"""Whole episodes from a vector env: the only place that steps environments in order to learn.

Every episode is a pure function of (run seed, episode number, policy): the env is seeded by the number of its group and
the policy draws from a stream of its own, so neither the number of envs nor the order of refills changes a result.
"""

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from agents.policy import Decisions, Policy
from agents.streams import episode_rng, group_seed


@dataclass(frozen=True)
class Rollout:
    """B finished episodes of at most T decisions, in the order of their episode numbers."""

    observations: NDArray[Any]  # (B, ...) final prefix, or (B, T, ...) stacked when observations are not prefixes
    actions: NDArray[np.int64]  # (B, T)
    mask: NDArray[np.bool_]  # (B, T) True where the agent acted
    positions: NDArray[np.int64]  # (B, T) slot of the action's token in the final prefix; 0 when stacked
    legal: NDArray[np.bool_] | None  # (B, T, V) what was allowed, or None when everything was
    log_probs: NDArray[np.float32]  # (B, T) under the sampling policy
    values: NDArray[np.float32]  # (B, T) before each action
    rewards: NDArray[np.float64]  # (B, T) after each action
    terminated: NDArray[np.bool_]  # (B,)
    truncated: NDArray[np.bool_]  # (B,)
    bootstrap_values: NDArray[np.float32]  # (B,) value of the final state of a truncated episode, else 0
    infos: NDArray[np.object_]  # (B,) the final info of each episode, a dict
    episodes: NDArray[np.int64]  # (B,) number of each episode in its run
    starts: NDArray[np.int64] | None = None  # (B,) slot of the first token in the final prefix; None when stacked

    def __len__(self) -> int:
        return len(self.actions)

    def select(self, rows: NDArray[Any]) -> "Rollout":
        """Return the episodes chosen by an index or bool array."""
        columns: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        columns = {name: None if column is None else column[rows] for name, column in columns.items()}
        return Rollout(**columns)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(B,) number of decisions."""
        return np.asarray(self.mask.sum(1))

    @property
    def returns(self) -> NDArray[np.float64]:
        """(B,) undiscounted sum of rewards."""
        return np.asarray(self.rewards.sum(1))

    @property
    def faulty(self) -> NDArray[np.bool_]:
        """(B,) True where scoring itself failed: the reward says nothing about the response."""
        return np.array([info.get("status") == "infra_fault" for info in self.infos], bool)


class Learner(Policy, Protocol):
    """A policy that can also be differentiated on whole episodes."""

    @property
    def value_bias(self) -> Tensor:
        """The (1,) parameter that is added to every value."""
        ...

    def evaluate(self, rollout: Rollout, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Return log_probs, values and entropies of the chosen episodes, (n, T) each, 0 outside the mask."""
        ...


def collect(
    envs: VectorEnv[Any, Any, Any],
    policy: Policy,
    *,
    num_episodes: int,
    seed: int,
    first_episode: int = 0,
    group_size: int = 1,
    greedy: bool = False,
) -> Rollout:
    """Play exactly num_episodes episodes and wait for all of them, so that short ones are not preferred.

    Args:
        envs: a vector env made with autoreset_mode DISABLED.
        policy: chooses the actions.
        num_episodes: how many, at least 1; rows beyond them stay idle.
        seed: the run's seed, at least 0.
        first_episode: number of the first episode; continue with the sum of all earlier num_episodes.
        group_size: this many successive episodes share their env seed, hence their problem.
        greedy: take the most likely actions.

    Returns:
        A rollout ordered by episode number.

    Raises:
        ValueError: for a num_episodes below 1 or an env that resets itself.
        FloatingPointError: when the policy gives probabilities that are not finite.
    """
    _check_request(envs, num_episodes)
    textgen = envs.metadata.get("textgen", {})
    episode = np.full(envs.num_envs, -1)  # (N,) which of the asked episodes each row plays; -1: none
    num_decisions = np.zeros(envs.num_envs, np.int64)  # (N,) taken in it so far
    rngs: list[Generator] = [episode_rng(seed, first_episode)] * envs.num_envs  # until a row starts an episode
    first, pad_id = textgen.get("max_prompt_tokens", 0), textgen.get("num_tokens")
    slots = np.full(envs.num_envs, first)  # (N,) where each row's next token goes
    # A row left without an episode plays on unheeded; with a token that ends nothing, its ends are few.
    unending = next((i for i in range(pad_id or 0) if i not in {textgen["eos_id"], *textgen["stop_ids"]}), 0)
    waiting = iter(range(num_episodes))
    columns: list[dict[str, NDArray[Any]]] = []  # one entry a vector step
    final: dict[int, dict[str, Any]] = {}  # one entry an episode

    def start(idle: NDArray[np.bool_], observations: NDArray[Any] | None) -> NDArray[Any]:
        """Give the idle rows the next episodes; return the observations of all rows."""
        seeds: list[int | None] = [None] * envs.num_envs
        num_decisions[idle], slots[idle] = 0, first
        for row in np.flatnonzero(idle).tolist():
            episode[row] = asked = next(waiting, -1)
            if asked >= 0:
                number = first_episode + asked
                seeds[row], rngs[row] = group_seed(seed, number // group_size), episode_rng(seed, number)
            elif textgen:
                actions[row] = unending
        if observations is not None and (episode < 0).all():
            return observations  # of which nobody asks more
        # No vector env steps an ended row, so rows left without an episode are reset as well; nobody acts for them.
        options = None if observations is None else {"reset_mask": idle}
        return np.asarray(envs.reset(seed=seeds, options=options)[0])  # type: ignore[arg-type]

    def act(observations: NDArray[Any], rows: NDArray[np.int64]) -> tuple[Decisions, NDArray[np.bool_] | None]:
        legal = envs.unwrapped.action_masks()[rows] if textgen.get("has_masks") else None  # type: ignore[attr-defined]
        return policy.act(observations, rows, legal, [rngs[row] for row in rows.tolist()], greedy=greedy), legal

    actions = np.zeros((envs.num_envs, *(envs.single_action_space.shape or ())), envs.single_action_space.dtype)
    observations = start(np.ones(envs.num_envs, bool), None)
    while (rows := np.flatnonzero(episode >= 0)).size:
        decisions, legal = act(observations, rows)
        if not np.isfinite(decisions.log_probs).all():
            raise FloatingPointError("the policy's log-probabilities must be finite, got NaN or infinity")
        column = {"episode": episode[rows], "t": num_decisions[rows], "actions": decisions.actions}
        column |= {"log_probs": decisions.log_probs, "values": decisions.values}
        if legal is not None:
            column["legal"] = legal
        if not policy.prefix_observations:
            column["observations"] = observations[rows]
        elif textgen:
            column["positions"] = slots[rows]
        actions[rows] = decisions.actions
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        columns.append(column | {"rewards": np.asarray(rewards, np.float64)[rows]})
        num_decisions[rows] += 1
        if "positions" in column:
            _move_on(slots, rows, observations, first, pad_id)
        if not (idle := terminated | truncated).any():
            continue
        done = rows[idle[rows]]
        cut = done[truncated[done] & ~terminated[done]]
        bootstrap = dict(zip(cut, act(observations, cut)[0].values, strict=True)) if cut.size else {}
        for row, info in zip(done.tolist(), info_rows(infos, done), strict=True):
            ends = {"terminated": terminated[row], "truncated": truncated[row], "infos": info}
            ends |= {"observations": observations[row].copy(), "bootstrap_values": bootstrap.get(row, 0.0)}
            final[int(episode[row])] = ends
        observations = start(idle, observations)
    numbers = first_episode + np.arange(num_episodes)
    return _assemble(columns, [final[i] for i in range(num_episodes)], numbers, policy.prefix_observations, pad_id)


def _check_request(envs: VectorEnv[Any, Any, Any], num_episodes: int) -> None:
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}; ask for one episode or more")
    if envs.metadata.get("autoreset_mode") is not AutoresetMode.DISABLED:
        raise ValueError(
            f"autoreset_mode must be 'Disabled', got {envs.metadata.get('autoreset_mode')}; pass it to make_vec"
        )


def _move_on(
    slots: NDArray[np.int64], rows: NDArray[np.int64], observations: NDArray[Any], first: int, pad_id: int | None
) -> None:
    """Move `slots` (N,) of the rows that stepped behind what the step appended: a token, and a reply where one came."""
    slots[rows] += 1
    # Only where a reply (or the last slot) follows is there more to count.
    more = rows[observations[rows, np.minimum(slots[rows], observations.shape[1] - 1)] != pad_id]
    slots[more] = first + (observations[more, first:] != pad_id).sum(1)


def info_rows(infos: dict[str, Any], rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return some rows' infos from a vector env's dict of arrays, whose "_key" masks say which rows have the key."""
    found: list[dict[str, Any]] = [{} for _ in rows]
    plain = dict(infos)  # one look at infos that are written when somebody looks
    for key in (key for key in plain if not key.startswith("_")):
        value = plain[key]
        values = info_rows(value, rows) if isinstance(value, dict) else [value[row] for row in rows.tolist()]
        has = plain[f"_{key}"][rows] if f"_{key}" in plain else np.ones(len(rows), bool)
        for info, its, present in zip(found, values, has.tolist(), strict=True):
            if present:
                info[key] = its
    return found


def _assemble(
    columns: list[dict[str, NDArray[Any]]],
    final: list[dict[str, Any]],
    numbers: NDArray[np.int64],
    prefixes: bool,
    pad_id: int | None,
) -> Rollout:
    """Scatter the decisions of all vector steps into (B, T) arrays."""
    flat = {key: np.concatenate([column[key] for column in columns]) for key in columns[0]}
    at = (flat.pop("episode"), flat.pop("t"))
    shape = (len(final), int(at[1].max()) + 1)

    def scatter(values: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros(shape + values.shape[1:], values.dtype)
        out[at] = values
        return out

    dense: dict[str, Any] = {key: scatter(values) for key, values in flat.items()}
    infos = np.empty(len(final), object)
    infos[:] = [episode["infos"] for episode in final]
    if prefixes:
        dense["observations"] = np.stack([episode["observations"] for episode in final])
        dense["starts"] = None if pad_id is None else (dense["observations"] != pad_id).argmax(1)
    return Rollout(
        **{"legal": None, "positions": np.zeros(shape, np.int64), **dense},
        mask=scatter(np.ones(len(at[0]), bool)),
        terminated=np.array([episode["terminated"] for episode in final], bool),
        truncated=np.array([episode["truncated"] for episode in final], bool),
        bootstrap_values=np.array([episode["bootstrap_values"] for episode in final], np.float32),
        infos=infos,
        episodes=numbers,
    )
