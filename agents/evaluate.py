"""What a policy is worth: held-out scores, distance from its start, fluency under the frozen reference, diversity."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

import textenvs  # noqa: F401 - registers the ids
from agents.algorithms import Algorithm
from agents.lm import LMPolicy
from agents.mlp import MLPPolicy
from agents.policy import Policy
from agents.rollout import Learner, Rollout, collect
from agents.train import TrainConfig, make_envs, start_policy
from agents.update import rollout_log_probs

# Training counts its episodes from 0: evaluation with the same seed must not replay them.
FIRST_EPISODE = 2**40
_FINAL = ("model.safetensors", "config.json", "value_head.safetensors", "textenvs.json")
_INFO_KEYS = {"problem", "prompt", "response", "finish_reason", "is_success", "status"}


@dataclass(frozen=True)
class Run:
    """A run directory, read."""

    run_dir: Path
    config: TrainConfig

    @property
    def env_id(self) -> str:
        """The env it was trained on."""
        return self.config.env_id

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """Its keyword arguments."""
        return self.config.env_kwargs

    def policy(self, envs: VectorEnv[Any, Any, Any]) -> LMPolicy | MLPPolicy:
        """Load the trained policy for envs."""
        final = self.run_dir / "final"
        if self.config.model == "mlp":
            policy = start_policy(self.config, envs)
            policy.load(final)
            return policy
        return LMPolicy.from_pretrained(final, envs.metadata["textgen"], temperature=self.config.temperature)

    def reference(self, envs: VectorEnv[Any, Any, Any]) -> LMPolicy | MLPPolicy:
        """Make the frozen policy that the run started from."""
        return start_policy(self.config, envs).frozen_copy()


def load_run(run_dir: Path) -> Run:
    """Read a finished run.

    Raises:
        ValueError: when the directory holds no run, one that has not finished, or a config.json that is none.
    """
    if not (run_dir / "config.json").is_file():
        raise ValueError(f"run_dir must hold a run, got {run_dir}, which has no config.json; name the run's directory")
    try:
        settings = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
        run = Run(run_dir, TrainConfig(**{**settings, "algorithm": Algorithm(**settings["algorithm"])}))
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"config.json in {run_dir} must be what train wrote, got {error}; restore it") from None
    for name in _FINAL[:1] if run.config.model == "mlp" else _FINAL:
        if not (run_dir / "final" / name).is_file():
            raise ValueError(
                f"run_dir must hold a finished run, got {run_dir}, which has no final/{name}; train with --resume"
            )
    return run


def held_out_envs(env_id: str, env_kwargs: Mapping[str, Any], num_envs: int) -> tuple[VectorEnv[Any, Any, Any], str]:
    """Make envs of the held-out problems, or of the training problems when the task has no others; and say which."""
    if "split" in env_kwargs:
        return make_envs(env_id, num_envs, env_kwargs), str(env_kwargs["split"])
    try:
        return make_envs(env_id, num_envs, {**env_kwargs, "split": "heldout"}), "heldout"
    except (TypeError, ValueError):  # no such setting, too few problems, or prompts of the user's own
        return make_envs(env_id, num_envs, env_kwargs), "train"


def evaluate(
    policy: Policy,
    envs: VectorEnv[Any, Any, Any],
    *,
    num_episodes: int,
    seed: int,
    reference: Learner | None = None,
    greedy: bool = False,
    group_size: int = 1,
) -> tuple[dict[str, Any], Rollout]:
    """Play episodes and measure them.

    Args:
        policy: who plays.
        envs: from `held_out_envs`.
        num_episodes: at least 1.
        seed: of the problems and the draws; no episode of a training run with the same seed is repeated.
        reference: the frozen start; adds kl_per_episode and perplexity.
        greedy: take the most likely tokens; there is no sampled KL then.
        group_size: so many successive episodes share their problem, as `best_of` needs.

    Returns:
        The numbers of `summarise` with tokens_per_second, and the episodes.
    """
    started = time.perf_counter()
    rollout = collect(
        envs,
        policy,
        num_episodes=num_episodes,
        seed=seed,
        first_episode=FIRST_EPISODE - FIRST_EPISODE % group_size,
        group_size=group_size,
        greedy=greedy,
    )
    speed = float(rollout.mask.sum() / (time.perf_counter() - started))
    result = summarise(rollout, reference=reference)
    if greedy:
        result.pop("kl_per_episode", None)
    return result | {"tokens_per_second": speed}, rollout


def summarise(rollout: Rollout, *, reference: Learner | None = None) -> dict[str, Any]:
    """Measure episodes; those whose scoring failed are left out and counted.

    Args:
        rollout: the episodes.
        reference: the frozen start.

    Returns:
        mean_return, stderr (of the mean), success_rate, num_episodes, mean_length (tokens), distinct_2 (different
        bigrams over all bigrams), excluded_episodes, the mean of each part of the reward over the episodes that have
        it, and with a reference kl_per_episode (nats, from the sampled tokens) and perplexity (of the responses under
        it, a token).
    """
    num_excluded = int(rollout.faulty.sum())
    rollout = rollout.select(~rollout.faulty)
    if not len(rollout):
        raise RuntimeError(f"scoring must work for some episode, but all {num_excluded} failed; look at the reward")
    returns, count = rollout.returns, len(rollout)
    result: dict[str, Any] = {
        "mean_return": float(returns.mean()),
        "stderr": float(returns.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0,
        "success_rate": float(np.mean([bool(info.get("is_success")) for info in rollout.infos])),
        "num_episodes": count,
        "mean_length": float(rollout.lengths.mean()),
        "distinct_2": distinct_2(rollout),
        "excluded_episodes": num_excluded,
    }
    if reference is not None:
        ref_log_probs = rollout_log_probs(reference, rollout).numpy().astype(np.float64)
        result["kl_per_episode"] = float((rollout.log_probs - ref_log_probs)[rollout.mask].sum() / count)
        result["perplexity"] = float(np.exp(-ref_log_probs[rollout.mask].mean()))
    names = sorted({name for info in rollout.infos for name in info} - _INFO_KEYS)
    # An episode that a time limit cut was never scored, so it has no parts.
    parts = {name: [info[name] for info in rollout.infos if name in info] for name in names}
    return result | {name: float(np.mean(values)) for name, values in parts.items()}


def distinct_2(rollout: Rollout) -> float:
    """Return different bigrams over all bigrams of chosen tokens; 0 without any. Li et al. 2016, arXiv:1510.03055."""
    pairs = np.stack([rollout.actions[:, :-1], rollout.actions[:, 1:]], -1)[rollout.mask[:, 1:]]
    return len(np.unique(pairs, axis=0)) / len(pairs) if len(pairs) else 0.0


def best_of(rollout: Rollout, group_size: int) -> Rollout:
    """Keep the episode with the highest return of each group of successive episodes; the first of equals."""
    best = rollout.returns.reshape(-1, group_size).argmax(1)
    return rollout.select(np.arange(len(best)) * group_size + best)


def best_of_kl(n: int) -> float:
    """Bound the KL (nats) of best-of-n sampling from the sampled policy: log n - (n - 1) / n.

    Source: Beirami et al. 2024, arXiv:2401.01879, theorem 1.
    """
    return float(np.log(n) - (n - 1) / n)


def evaluate_run(
    run_dir: Path,
    *,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    num_episodes: int = 512,
    seed: int = 0,
    greedy: bool = False,
    samples: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a run's policy on held-out problems, against the policy it started from.

    Args:
        run_dir: a finished run.
        env_id: another env of the same vocabulary; None for the run's own.
        env_kwargs: its keyword arguments; None for the run's own.
        num_episodes: at least 1.
        seed: see `evaluate`.
        greedy: see `evaluate`.
        samples: where to write every response as a JSON line with id, prompt, response, value; None for nowhere.

    Returns:
        JSON-able: split ("train" when the task has no held-out problems), and the numbers of `evaluate`.

    Raises:
        ValueError: for a run_dir, num_episodes or seed that cannot be evaluated.
        OSError: when samples cannot be written.
    """
    run = load_run(run_dir)
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}; ask for one episode or more")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}; raise it")
    kwargs = env_kwargs if env_kwargs is not None else run.env_kwargs if env_id in (None, run.env_id) else {}
    envs, split = held_out_envs(env_id or run.env_id, kwargs, num_envs=min(num_episodes, run.config.num_envs))
    policy, reference = run.policy(envs), run.reference(envs)
    if samples is not None:
        samples.open("a", encoding="utf-8").close()  # a path that cannot be written fails now, not after the work
    result, rollout = evaluate(policy, envs, num_episodes=num_episodes, seed=seed, reference=reference, greedy=greedy)
    envs.close()
    if samples is not None:
        write_samples(rollout, samples)
    return {"split": split, **result}


def write_samples(rollout: Rollout, path: Path) -> None:
    """Write one JSON line an episode: id, prompt, response, value (null where scoring failed)."""
    with path.open("w", encoding="utf-8") as file:
        for i, (info, value, faulty) in enumerate(zip(rollout.infos, rollout.returns, rollout.faulty, strict=True)):
            texts = {"prompt": info.get("prompt"), "response": info.get("response")}
            file.write(json.dumps({"id": i, **texts, "value": None if faulty else float(value)}) + "\n")
