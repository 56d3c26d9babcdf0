"""Agents of a benchmark by name: their settings, their training within a budget, and who then plays.

A name is a row of `ALGORITHMS` (ours, a language model), an agent of Stable-Baselines3 or sb3-contrib, "random",
"oracle", the path of an SB3 zip, or a function `module:act`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.random import Generator
from numpy.typing import NDArray

import textenvs
from agents.algorithms import ALGORITHMS, Algorithm
from agents.baselines import BASELINES
from agents.policy import Decisions, OraclePolicy, Policy, RandomPolicy

#: What the benchmark calls the baselines: the library's own agents with its name before theirs.
SB3_NAMES = {
    f"sb3-{name}" if baseline.path.startswith("stable_baselines3") else name.replace("_", "-"): name
    for name, baseline in BASELINES.items()
}
NAMES = (*ALGORITHMS, *SB3_NAMES, "random", "oracle")
_OURS = {"model": "scratch", "model_kwargs": {}, "num_envs": 128}  # of TrainConfig; the rest is Algorithm's


@dataclass(frozen=True)
class Agent:
    """One agent in one suite.

    Attributes:
        name: as asked for.
        kind: "ours", "sb3", "random", "oracle", "zip" or "function".
        library: whose it is.
        settings: JSON-able; all that its results depend on beside the env and the budget.
    """

    name: str
    kind: str
    library: str
    settings: Mapping[str, Any]


class Curve:
    """The returns of a training as they come, with its CPU time; says when the budget is spent."""

    def __init__(self, num_episodes: int, seconds: float) -> None:
        self.returns: list[float] = []
        self.seconds: list[float] = []
        self.num_episodes, self.budget = num_episodes, seconds
        self.started = time.process_time(), time.perf_counter()

    def start(self) -> None:
        """Set the clocks to 0: imports and the like are no training."""
        self.started = time.process_time(), time.perf_counter()

    @property
    def elapsed(self) -> tuple[float, float]:
        """CPU seconds of this process, all its threads, and wall seconds since the start."""
        return time.process_time() - self.started[0], time.perf_counter() - self.started[1]

    def note(self, returns: Iterable[float]) -> bool:
        """Take episodes that just ended; False when there must be no more."""
        now = self.elapsed[0]
        new = [float(value) for value in returns]
        self.returns += new
        self.seconds += [now] * len(new)
        return len(self.returns) < self.num_episodes and now < self.budget


def find_agent(name: str, settings: Mapping[str, Any], *, zips_trusted: bool = False) -> Agent:
    """Look an agent up.

    Args:
        name: of `NAMES`, a path that ends in .zip, or "module:function".
        settings: of the suite for it.
        zips_trusted: an SB3 zip may be read, which runs the pickles in it.

    Raises:
        ValueError: an unknown name or setting, with the nearest known; a zip that is not trusted or not there; a
            function that does not exist.
        ImportError: a library that is missing, with the command that installs it.
    """
    if name in ALGORITHMS:
        return Agent(name, "ours", "textenvs", _our_settings(name, settings))
    if name in SB3_NAMES:
        return _sb3_agent(name, settings)
    if name.endswith(".zip"):
        found = Agent(name, "zip", "stable-baselines3", _zip_settings(Path(name), zips_trusted))
    elif ":" in name:
        found = Agent(name, "function", name.partition(":")[0], _function_settings(name))
    elif name in ("random", "oracle"):
        found = Agent(name, name, "textenvs", {})
    else:
        raise ValueError(
            f"agents must be names, paths of .zip files or module:function, got {name!r}; "
            f"{textenvs.near_miss(name, NAMES)}"
        )
    if settings:
        raise ValueError(f"settings must be none for {name!r}, which does not learn here, got {dict(settings)}")
    return found


def _our_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(Algorithm)]
    for key in settings.keys() - {*known, *_OURS}:
        raise ValueError(
            f"settings of {name!r} must be of its algorithm or model, got {key!r}; "
            f"{textenvs.near_miss(key, [*known, *_OURS])}"
        )
    algorithm = replace(ALGORITHMS[name], **{key: value for key, value in settings.items() if key not in _OURS})
    # What is switched off is left out, so that an option that is new makes no finished job stale.
    off = {"imitation_coef", "imitated_episodes"} if algorithm.imitation_coef == 0 else set()
    off |= {"learning_starts"} if algorithm.learning_starts == 0 else set()
    on = {key: value for key, value in asdict(algorithm).items() if value is not False and key not in off}
    return {"algorithm": on} | {key: settings.get(key, value) for key, value in _OURS.items()}


def _sb3_agent(name: str, settings: Mapping[str, Any]) -> Agent:
    baseline = BASELINES[SB3_NAMES[name]]
    module = baseline.path.partition(":")[0]
    library = module.replace("_", "-")
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'agent {name!r} needs {library}; pip install "textenvs[sb3]"')
    # What is at its default says nothing: a new field must not make old results stale.
    given = {field.name: getattr(baseline, field.name) for field in fields(baseline)}
    defaults = {field.name: field.default for field in fields(baseline)}
    given = {name: value for name, value in given.items() if value != defaults[name]}
    return Agent(name, "sb3", library, {**given, "overrides": dict(settings)})


def _zip_settings(path: Path, trusted: bool) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"agents must be names or files that exist, got {str(path)!r}; no such file")
    if not trusted:
        raise ValueError(
            f"{path} must be trusted to be loaded: an SB3 zip holds pickles, which run whatever code its maker put "
            "there; pass --allow-pickle if you made it yourself"
        )
    if importlib.util.find_spec("stable_baselines3") is None:
        raise ImportError(f'{path} needs stable-baselines3; pip install "textenvs[sb3]"')
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _function_settings(name: str) -> dict[str, Any]:
    act = _function(name)
    source = inspect.getsourcefile(act) if inspect.isroutine(act) else None
    text = Path(source).read_bytes() if source and Path(source).is_file() else b""
    return {"function": name, "source_sha256": hashlib.sha256(text).hexdigest()}


def _function(name: str) -> Callable[[Any], Any]:
    module_name, _, attribute = name.partition(":")
    try:
        act = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"agent {name!r} must be module:function, got {error}; check both names") from None
    except (Exception, SystemExit) as error:  # whatever a module of the user's own does when it is loaded
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"agent {name!r} must be in a module that can be imported, got {said}; mend it") from None
    if not callable(act):
        raise ValueError(f"agent {name!r} must be a function act(observation) -> action, got {act!r}; name one")
    return act  # type: ignore[no-any-return]


def observation_kwargs(agent: Agent, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The env's keyword arguments with the observations that the agent reads."""
    own = {"observation": agent.settings.get("observation", "tokens")} if agent.kind == "sb3" else {}
    if agent.kind == "zip":
        space = _read_zip(Path(agent.name), agent.settings["sha256"])[0]["observation_space"]
        own = {"observation": "onehot" if getattr(space, "dtype", None) == np.float32 else "tokens"}
    return {**own, **env_kwargs}


def trained(
    agent: Agent, env_id: str, env_kwargs: Mapping[str, Any], seed: int, curve: Curve
) -> Callable[[VectorEnv[Any, Any, Any]], Policy]:
    """Train an agent within the budget of a curve, which notes its episodes; one that cannot learn is left as it is.

    Returns:
        A function that makes the policy for envs of the same id and keyword arguments.
    """
    if agent.kind == "ours":
        return _train_ours(agent, env_id, env_kwargs, seed, curve)
    if agent.kind == "sb3":
        return _train_sb3(agent, env_id, env_kwargs, seed, curve)
    curve.start()
    if agent.kind == "random":
        return lambda envs: RandomPolicy(int(envs.single_action_space.n))  # type: ignore[attr-defined]
    if agent.kind == "oracle":
        return OraclePolicy
    if agent.kind == "function":
        act = _function(agent.name)
        return lambda envs: FunctionPolicy(act)
    return lambda envs: _zip_policy(Path(agent.name), agent.settings["sha256"], envs, seed)


def _train_ours(
    agent: Agent, env_id: str, env_kwargs: Mapping[str, Any], seed: int, curve: Curve
) -> Callable[[VectorEnv[Any, Any, Any]], Policy]:
    from agents.evaluate import load_run
    from agents.train import TrainConfig, train

    config = TrainConfig(
        env_id,
        env_kwargs,
        algorithm=Algorithm(**agent.settings["algorithm"]),
        num_episodes=curve.num_episodes,
        seed=seed,
        checkpoint_every=10**6,
        **{name: agent.settings[name] for name in _OURS},
    )
    curve.start()
    folder = tempfile.TemporaryDirectory(prefix="textenvs-")
    run_dir = train(config, Path(folder.name) / "run", quiet=True, on_update=lambda update: curve.note(update.returns))

    def policy(envs: VectorEnv[Any, Any, Any]) -> Policy:
        with folder:
            return load_run(run_dir).policy(envs)

    return policy


def _train_sb3(
    agent: Agent, env_id: str, env_kwargs: Mapping[str, Any], seed: int, curve: Curve
) -> Callable[[VectorEnv[Any, Any, Any]], Policy]:
    import agents.sb3  # noqa: F401 - loads the library before the clock starts
    from agents.baselines import train_sb3

    with tempfile.TemporaryDirectory(prefix="textenvs-") as folder:
        os.environ["SB3_LOGDIR"] = folder  # or SB3 leaves a directory behind for each agent
        curve.start()
        result = train_sb3(
            SB3_NAMES[agent.name],
            env_id,
            env_kwargs,
            num_episodes=curve.num_episodes,
            seed=seed,
            overrides=agent.settings["overrides"],
            on_episode=lambda episode_return: curve.note([episode_return]),
        )
    learner = result.agent
    return lambda envs: SB3Policy(learner.policy, seed, float(getattr(learner, "exploration_rate", 0.0)))


def _read_zip(path: Path, sha256: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what a trusted SB3 zip says of its agent, and its parameters."""
    from stable_baselines3.common.save_util import load_from_zip_file

    if _zip_settings(path, True)["sha256"] != sha256:
        raise ValueError(f"{path} must stay as it is while a benchmark runs, got other bytes; start again")
    try:
        data, parameters, _ = load_from_zip_file(path, device="cpu")
        _ = data["observation_space"], data["policy_class"], data["action_space"], parameters["policy"]
    except Exception as error:  # whatever pickles raise
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} must be what an SB3 agent's save() wrote, got {said}; save it again") from None
    return data, parameters


def _zip_policy(path: Path, sha256: str, envs: VectorEnv[Any, Any, Any], seed: int) -> Policy:
    """Make the policy of a trusted SB3 zip, of any algorithm."""
    data, parameters = _read_zip(path, sha256)
    space = data["observation_space"]
    if (space, data["action_space"]) != (envs.single_observation_space, envs.single_action_space):
        raise ValueError(
            f"{path} must have been trained on the spaces of the env, {envs.single_observation_space} and "
            f"{envs.single_action_space}, got {space} and {data['action_space']}; benchmark it on its own env"
        )
    policy = data["policy_class"](space, data["action_space"], lambda _: 0.0, **data.get("policy_kwargs", {}))
    policy.load_state_dict(parameters["policy"])
    return SB3Policy(policy, seed, float(data.get("exploration_rate", 0.0)))


class FunctionPolicy:
    """A function of one observation, as `gym.make` gives it, that returns one action."""

    prefix_observations = False

    def __init__(self, act: Callable[[Any], Any]) -> None:
        self.function = act

    def act(
        self,
        observations: NDArray[Any],
        rows: NDArray[np.int64],
        legal: NDArray[np.bool_] | None,
        rngs: Sequence[Generator],
        *,
        greedy: bool = False,
    ) -> Decisions:
        """Call the function once a row; greedy changes nothing."""
        actions = np.array([int(self.function(observations[row].copy())) for row in rows], np.int64)
        return Decisions(actions, np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32))


class SB3Policy:
    """A policy of Stable-Baselines3 or sb3-contrib, with masks and memory where it has them.

    A Q-learner's sampled policy is its greedy one with the exploration that training ended with, drawn row by row.
    """

    prefix_observations = False

    def __init__(self, policy: Any, seed: int, exploration_rate: float) -> None:
        from stable_baselines3.common.utils import set_random_seed

        set_random_seed(seed)  # SB3 samples from torch's global generator
        self.policy, self.exploration_rate = policy, exploration_rate
        self.takes_masks = "action_masks" in inspect.signature(policy.predict).parameters
        self.memory: dict[int, tuple[Generator, Any]] = {}  # of each row: whose episode it plays, and its state

    def act(
        self,
        observations: NDArray[Any],
        rows: NDArray[np.int64],
        legal: NDArray[np.bool_] | None,
        rngs: Sequence[Generator],
        *,
        greedy: bool = False,
    ) -> Decisions:
        """Choose one action for each of the rows."""
        options: dict[str, Any] = {"action_masks": legal} if self.takes_masks and legal is not None else {}
        if hasattr(self.policy, "lstm_hidden_state_shape"):
            # Every episode has a generator of its own: another one means that the row starts anew.
            fresh = [self.memory.get(int(row), (None,))[0] is not rng for row, rng in zip(rows, rngs, strict=True)]
            zero = np.zeros(self.policy.lstm_hidden_state_shape, np.float32)
            states = [(zero, zero) if new else self.memory[int(row)][1] for new, row in zip(fresh, rows, strict=True)]
            options["state"] = tuple(np.concatenate(part, axis=1) for part in zip(*states, strict=True))
            options["episode_start"] = np.array(fresh)
        is_greedy = greedy or hasattr(self.policy, "q_net") or hasattr(self.policy, "quantile_net")
        chosen, state = self.policy.predict(observations[rows], deterministic=is_greedy, **options)
        actions = np.asarray(chosen).astype(np.int64)
        if state is not None:
            for i, (row, rng) in enumerate(zip(rows, rngs, strict=True)):
                self.memory[int(row)] = rng, tuple(part[:, i : i + 1] for part in state)
        if not greedy and self.exploration_rate > 0:
            for i, rng in enumerate(rngs):
                if rng.random() < self.exploration_rate:
                    actions[i] = rng.integers(self.policy.action_space.n)
        return Decisions(actions, np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32))
