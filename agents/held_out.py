"""Envs of the problems that training did not see."""

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import VectorEnv

import textenvs
from agents.train import make_envs


def held_out_envs(env_id: str, env_kwargs: Mapping[str, Any], num_envs: int) -> tuple[VectorEnv[Any, Any, Any], str]:
    """Make envs of the held-out problems, or of the training problems when the task has no others; and say which.

    Raises:
        ValueError: a task of the user's own has held-out problems and refuses them.
    """
    if "split" in env_kwargs:
        return make_envs(env_id, num_envs, env_kwargs), str(env_kwargs["split"])
    try:
        envs = make_envs(env_id, num_envs, {**env_kwargs, "split": "heldout"})
    except (TypeError, ValueError) as error:  # no such setting, too few problems, or prompts of the user's own
        envs = make_envs(env_id, num_envs, env_kwargs)
        if isinstance(error, ValueError) and _own_task(envs) is not None:
            raise
        return envs, "train"
    task = _own_task(envs)
    if task is None:
        return envs, "heldout"
    trained = make_envs(env_id, num_envs, env_kwargs)
    # A class that takes any setting and heeds none has the same problems whatever the split.
    return (trained, "train") if _few(task) == _few(_own_task(trained)) else (envs, "heldout")


def _own_task(envs: VectorEnv[Any, Any, Any]) -> textenvs.Task | None:
    """The task of text envs, unless it is one of the library's."""
    rules = getattr(envs.unwrapped, "rules", None)
    return rules.task if rules and type(rules.task).__module__.split(".")[0] != "textenvs" else None


def _few(task: textenvs.Task | None) -> list[str]:
    """How many problems there are, and prompts of the first."""
    return [] if task is None else [str(len(task)), *(task[k].prompt for k in range(min(len(task), 16)))]
