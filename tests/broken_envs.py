"""A good env with a hook, and a register of envs that each break one clause of the contract, the way real code does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from textenvs.env import TextGenEnv

#: class name -> (the clause it breaks, kwargs it is registered with).
BROKEN: dict[str, tuple[str, dict[str, Any]]] = {}


def breaks(clause: str, **kwargs: Any) -> Callable[[type], type]:
    """Register the class as an env that breaks `clause`: in `broken_anywhere` and `broken_textgen`."""

    def register(env_class: type) -> type:
        name = env_class.__name__
        BROKEN[name] = clause, kwargs
        gym.register(
            f"broken/{name}-v0",
            entry_point=f"{env_class.__module__}:{name}",
            order_enforce=False,
            kwargs={"task": "copy", "length": 3, "alphabet": "abcd"} if "task" not in kwargs else {},
        )
        return env_class

    return register


class Changed(TextGenEnv):
    """A good env with hooks."""

    def step(self, action: Any) -> Any:
        return self.after(action, super().step(action))

    def after(self, action: Any, values: Any) -> Any:
        return values
