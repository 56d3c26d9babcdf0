"""train(): the one loop, from a configuration to a run directory. Numbers: `algorithms`; gradients: `update`."""

import difflib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

from agents.algorithms import Algorithm
from agents.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    load_replay,
    note_metric,
    parameter_hash,
    save_checkpoint,
    write_directory,
    write_file,
)
from agents.kernels import keep_freed_memory
from agents.lm import LMPolicy
from agents.lora import LoraSettings
from agents.losses import adapted_kl_coef
from agents.mlp import MLPPolicy
from agents.replay import Replay
from agents.rollout import Rollout, collect
from agents.runlock import LOCK_NAME, run_lock
from agents.runlog import RunLog
from agents.selfchecks import check_faults, start_checks, summarise, tell_silence
from agents.update import make_batch, optimize, rollout_log_probs

TINY_MODEL = Path(__file__).parent / "assets" / "tiny"
_FREE_ON_RESUME = {"checkpoint_every"}  # changes no result


@dataclass(frozen=True)
class TrainConfig:
    """What to train, on what. Coefficients of the algorithm are in `Algorithm`.

    Attributes:
        env_id: a registered id whose vector env has token observations; any discrete-action id for an "mlp".
        env_kwargs: keyword arguments of the env, JSON-able.
        algorithm: the row of choices.
        model: "scratch" for a random tiny LM, "tiny" for the shipped one, a directory or hub id to start from, or
            "mlp" for a perceptron on flat observations.
        model_kwargs: settings of a scratch LM or an mlp, see `LMPolicy.from_config`, `MLPPolicy.from_spaces`.
        lora: train a low-rank adapter of the model instead of its weights; None for the weights.
        num_episodes: episodes to train for, at least 1.
        num_envs: episodes sampled side by side, at least 1; changes the speed; results up to rounding.
        seed: of everything random, at least 0.
        temperature: of the policy wherever its probabilities are computed, above 0.
        autocast: "bfloat16" computes the language model in it, in sampling and update alike, see
            `LMPolicy.use_autocast`; None computes in float32.
        checkpoint_every: updates between checkpoints, at least 1.
    """

    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    algorithm: Algorithm = field(default_factory=Algorithm)
    model: str = "scratch"
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    lora: LoraSettings | None = None
    num_episodes: int = 7680
    num_envs: int = 128
    seed: int = 0
    temperature: float = 1.0
    autocast: str | None = None
    checkpoint_every: int = 1

    def __post_init__(self) -> None:
        """Refuse a setting outside its range.

        Raises:
            ValueError: names the setting, its value and the range.
        """
        for name, least in (("num_episodes", 1), ("num_envs", 1), ("seed", 0), ("checkpoint_every", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}; raise it")
        if not isinstance(self.temperature, int | float) or not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature must be positive and finite, got {self.temperature}; 1 is the model as it is"
            )
        if self.autocast not in (None, "bfloat16"):
            raise ValueError(f"autocast must be None or 'bfloat16', got {self.autocast!r}; None computes in float32")

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """Rebuild a configuration from config.json's object.

        Raises:
            KeyError, TypeError, ValueError: for settings that are none.
        """
        if not isinstance(settings, Mapping):
            raise TypeError(f"settings must be an object, got {type(settings).__name__}")
        lora = settings.get("lora")
        algorithm = Algorithm(**settings["algorithm"])
        return cls(**{**settings, "algorithm": algorithm, "lora": None if lora is None else LoraSettings(**lora)})


def make_envs(env_id: str, num_envs: int, env_kwargs: Mapping[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Make the vector env for `collect`: the env's own when it can leave ended rows alone, else a SyncVectorEnv."""
    try:
        envs = gym.make_vec(env_id, num_envs=num_envs, autoreset_mode="Disabled", **env_kwargs)
    except TypeError as error:
        # Other vector envs know the autoreset mode under another argument, or always reset ended rows.
        if "autoreset_mode" not in str(error):
            raise
    else:
        if envs.metadata.get("autoreset_mode") is AutoresetMode.DISABLED:
            return envs
        envs.close()
    return gym.make_vec(
        env_id,
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
        **env_kwargs,
    )


def start_policy(config: TrainConfig, envs: VectorEnv[Any, Any, Any]) -> LMPolicy | MLPPolicy:
    """Make the policy a run starts from, which is also its reference.

    Raises:
        ValueError: for an env without int64 token observations (P + T,), unless the model is "mlp".
    """
    space, kwargs = envs.single_observation_space, config.model_kwargs
    if config.model == "mlp":
        if config.lora is not None or config.temperature != 1:
            raise ValueError(
                f"lora must be None and temperature 1 for an mlp, got {config.lora} and {config.temperature}"
            )
        if config.autocast is not None:
            raise ValueError(f"autocast must be None for an mlp, got {config.autocast!r}; leave it out")
        return MLPPolicy.from_spaces(space, envs.single_action_space, seed=config.seed, **kwargs)
    metadata = envs.metadata.get("textgen")
    if metadata is None:
        raise ValueError(
            f"env_id must be a text environment (metadata['textgen']), got {config.env_id!r}; "
            "see `textenvs list`, or take --model mlp"
        )
    if space.dtype != np.int64 or space.shape != (metadata["max_prompt_tokens"] + metadata["max_new_tokens"],):
        raise ValueError(
            "observation must be 'tokens' without mask_keys for a language model, "
            f"got {space} from {dict(config.env_kwargs)}; leave them out"
        )
    if config.model == "scratch":
        policy = LMPolicy.from_config(metadata, seed=config.seed, temperature=config.temperature, **kwargs)
    else:
        if kwargs:
            raise ValueError(
                f"model_kwargs must be empty for a model that has weights, got {dict(kwargs)}; leave it out"
            )
        _refuse_misspelt(config.model)
        name = TINY_MODEL if config.model == "tiny" else config.model
        policy = LMPolicy.from_pretrained(name, metadata, temperature=config.temperature)
    if config.lora is not None:
        policy.add_lora(config.lora, seed=config.seed)
    if config.autocast is not None:
        policy.use_autocast(config.autocast)
    return policy


def make_optimizer(policy: LMPolicy | MLPPolicy, algorithm: Algorithm) -> torch.optim.Optimizer:
    """Make Adam over what trains of a policy."""
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trainable, lr=algorithm.learning_rate, eps=algorithm.adam_epsilon, fused=True)


def _refuse_misspelt(model: str) -> None:
    """Refuse what is all but one of our names before the hub is asked for it, which takes a minute without a network.

    A hub id has an owner and a "/"; the few old ones without, such as gpt2, are near none of our names.
    """
    close = difflib.get_close_matches(model.lower(), ("scratch", "tiny", "mlp"), n=1)
    if close and model != "tiny" and "/" not in model and not Path(model).exists():
        raise ValueError(
            "model must be 'scratch', 'tiny', 'mlp', a directory or a hub id, "
            f"got {model!r}; did you mean {close[0]!r}?"
        )


def train(
    config: TrainConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    on_update: Callable[[Rollout], bool] | None = None,
) -> Path:
    """Train a policy on an env, by any row of `ALGORITHMS`.

    Args:
        config: what to train, on what.
        run_dir: the directory of the run, made by it.
        resume: continue the run in run_dir bit for bit; without one, start at the beginning.
        quiet: show no progress bar.
        on_update: called with the episodes of each update after it; ends the training there by saying False.

    Returns:
        run_dir, which then holds config.json, metrics.jsonl, samples.jsonl, curve.png, TensorBoard events, checkpoints/
        and, when finished, final/.

    Raises:
        ValueError: for an env that does not fit the model, a run_dir that is a file or holds a run already, a resume
            with other settings, or one whose checkpoints are all damaged.
        RuntimeError: when scoring fails for a whole update, or, from 64 episodes on, for more than 2 % of all; or when
            training diverges. The last checkpoint is then the last good one.
    """
    keep_freed_memory()
    algorithm = config.algorithm
    num_updates = algorithm.num_updates(config.num_episodes)
    num_envs = min(config.num_envs, algorithm.episodes_per_update, config.num_episodes)
    envs = make_envs(config.env_id, num_envs, config.env_kwargs)
    policy = start_policy(config, envs)
    reference = policy.frozen_copy()
    reference_hash = parameter_hash(reference)
    optimizer = make_optimizer(policy, algorithm)
    with ExitStack() as stack:
        stack.callback(envs.close)
        stack.enter_context(run_lock(run_dir))
        _open_run(run_dir, config, resume)
        replay = Replay()  # stays empty without imitation
        state = _resume(run_dir, policy, optimizer, replay) if resume else {}
        if state and state["reference"] != reference_hash:
            raise ValueError(f"model must be what the run in {run_dir} started from, got changed weights; restore them")
        first_update: int = state.get("step", 0)
        kl_coef: float = state.get("kl_coef", algorithm.kl_coef)
        num_faults: int = state.get("faults", 0)
        lowest, highest = state.get("return_range", (math.inf, -math.inf))
        log = RunLog(
            run_dir, num_updates=num_updates, first_update=first_update, sizes=state.get("sizes", {}), quiet=quiet
        )
        # Also after Ctrl-C: the records are closed and the curve drawn; the last checkpoint is where to resume.
        stack.callback(log.close)
        stack.enter_context(_naming_the_last_checkpoint(run_dir))
        for update in range(first_update, num_updates):
            started = time.perf_counter()
            first_episode = algorithm.num_sampled(update)
            everything = collect(
                envs,
                policy,
                num_episodes=min(algorithm.num_sampled(update + 1), config.num_episodes) - first_episode,
                seed=config.seed,
                first_episode=first_episode,
                group_size=algorithm.group_size,
            )
            sampled = time.perf_counter()
            num_done = first_episode + len(everything)
            num_faults += int(everything.faulty.sum())
            check_faults(everything, num_faults, num_done)
            # A scorer that failed says nothing about the response: such episodes are counted, never learnt from.
            rollout = everything.select(~everything.faulty)
            lowest, highest = (float(bound([end, *rollout.returns])) for bound, end in ((min, lowest), (max, highest)))
            metrics = start_checks(policy, reference, rollout) if update == 0 else {}
            ref_log_probs = rollout_log_probs(reference, rollout) if algorithm.kl_coef > 0 else None
            batch = make_batch(rollout, algorithm, ref_log_probs, kl_coef=kl_coef)
            # The learning rate falls linearly to 0 ("The 37 implementation details of PPO", detail 4).
            learning_rate = algorithm.learning_rate * (1 - update / num_updates)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            steps = optimize(policy, optimizer, batch, algorithm, seed=config.seed, update=update, replay=replay)
            metrics |= summarise(everything, batch, steps, algorithm, autocast=config.autocast)
            kl_coef = _next_kl_coef(kl_coef, metrics, len(rollout), algorithm)
            metrics |= {
                "episodes": num_done,
                "learning_rate": learning_rate,
                "tokens_per_second": int(everything.mask.sum()) / (sampled - started),
                "seconds": time.perf_counter() - started,
            }
            log.write(update + 1, metrics, everything, batch, envs)
            if "textgen" in envs.metadata and lowest == highest:
                tell_silence(config.num_episodes, first_episode, num_done, lowest)
            # The episodes were sampled by the weights that the checkpoint before holds.
            note_metric(run_dir / "checkpoints", update, metrics["return"])
            if (update + 1) % config.checkpoint_every == 0 or update + 1 == num_updates:
                save_checkpoint(
                    run_dir / "checkpoints",
                    update + 1,
                    write_policy=policy.save,
                    optimizer=optimizer,
                    tensors=replay.tensors(),
                    state={"reference": reference_hash, "kl_coef": kl_coef, "faults": num_faults}
                    | {"return_range": [lowest, highest], "sizes": log.sizes()},
                )
            if on_update is not None and not on_update(everything):
                break
        write_directory(run_dir / "final", policy.save)
    return run_dir


@contextmanager
def _naming_the_last_checkpoint(run_dir: Path) -> Iterator[None]:
    """Turn a number that is not finite into the end of the run, in one sentence that says what is left of it."""
    try:
        yield
    except FloatingPointError as error:
        last = latest_checkpoint(run_dir / "checkpoints")
        left = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        raise RuntimeError(f"training diverged: {error}; {left}; lower learning_rate in a new run_dir") from error


def _next_kl_coef(kl_coef: float, metrics: Mapping[str, float], num_episodes: int, algorithm: Algorithm) -> float:
    """The coefficient of the next update: the same, unless it follows a target."""
    if algorithm.kl_target is None:
        return kl_coef
    return adapted_kl_coef(
        kl_coef,
        metrics["kl_per_episode"],
        num_episodes=num_episodes,
        target=algorithm.kl_target,
        horizon=algorithm.kl_horizon,
    )


def _open_run(run_dir: Path, config: TrainConfig, resume: bool) -> None:
    """Make the run directory with config.json, or see that the run in it is the one to resume."""
    path = run_dir / "config.json"
    text = json.dumps(asdict(config), indent=1, default=repr) + "\n"
    if not path.exists():
        if any(entry.name not in (LOCK_NAME, f"{path.name}.tmp") for entry in run_dir.iterdir()):
            raise ValueError(f"run_dir must be new or empty, got {run_dir}, which holds other files; name another")
        write_file(path, text)
        return
    if not resume:
        raise ValueError(f"run_dir must be new, got {run_dir}, which holds a run; pass --resume or name another")
    try:
        # Read as a configuration: what nobody could set when the run began is what it is by default, off.
        old = _settings(TrainConfig.from_json(json.loads(path.read_text(encoding="utf-8"))))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"config.json in {run_dir} must be what train wrote, got {error}; restore it") from None
    new = _settings(config)
    changed = [name for name in new if name not in _FREE_ON_RESUME and old.get(name) != new[name]]
    if changed:
        differences = "; ".join(f"{name} {old.get(name)} -> {new[name]}" for name in changed)
        other = going_on(config, run_dir) if changed == ["num_episodes"] else ""
        raise ValueError(f"settings must be those of the run in {run_dir}, got {differences}; change them back{other}")


def going_on(config: TrainConfig, run_dir: Path) -> str:
    """The end of a sentence about a run that has its episodes: how its model gets more; empty while it has none."""
    if config.model == "mlp" or config.lora is not None or not (run_dir / "final").is_dir():
        return ""
    return f"; a new run goes on from its model with --model {run_dir}/final"


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Return every setting as JSON has it, the algorithm's one by one."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config), default=repr))
    return settings | {f"algorithm.{name}": value for name, value in settings.pop("algorithm").items()}


def _resume(
    run_dir: Path, policy: LMPolicy | MLPPolicy, optimizer: torch.optim.Optimizer, replay: Replay
) -> dict[str, Any]:
    """Restore policy, optimizer and replay from the newest whole checkpoint; return its state, empty without one."""
    path = latest_checkpoint(run_dir / "checkpoints")
    if path is None:
        return {}
    policy.load(path / "policy")
    replay.load(load_replay(path))
    return load_checkpoint(path, optimizer)
