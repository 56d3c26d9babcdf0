"""What a policy is worth: held-out scores, a held-out judge, distance from its start, perplexities, diversity.

Every number is defined in docs/metrics.md.
"""

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

import textenvs
from agents.checkpoint import newest_state, parameter_hash
from agents.evaluation_files import file_of, write_evaluation, write_samples
from agents.held_out import held_out_envs
from agents.judge import find_judge, gain, judge_scores, reward_hacking
from agents.lm import LMPolicy
from agents.mlp import MLPPolicy
from agents.policy import Policy
from agents.responses import as_rollout, play_back
from agents.rollout import Learner, Rollout, collect
from agents.sft import perplexity
from agents.text_metrics import finite_or_none, summarise, with_stderr
from agents.train import TrainConfig, make_envs, start_policy
from agents.versions import versions

# Training counts its episodes from 0: evaluation with the same seed must not replay them.
FIRST_EPISODE = 2**40
_OURS = ("value_head.safetensors", "textenvs.json")
_MODEL = ("model.safetensors", "config.json", *_OURS)
_ADAPTER = ("adapter_model.safetensors", "adapter_config.json", *_OURS)


@dataclass(frozen=True)
class Run:
    """A run directory, read.

    Attributes:
        run_dir: where it is.
        config: what was trained, on what.
        state: of the newest checkpoint, unverified; empty without one.
    """

    run_dir: Path
    config: TrainConfig
    state: Mapping[str, Any]

    @property
    def env_id(self) -> str:
        """The env it was trained on."""
        return self.config.env_id

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """Its keyword arguments."""
        return self.config.env_kwargs

    def policy(self, envs: VectorEnv[Any, Any, Any]) -> LMPolicy | MLPPolicy:
        """Load the trained policy for envs.

        Raises:
            ValueError: for envs that it does not fit.
        """
        final = self.run_dir / "final"
        if self.config.model == "mlp" or self.config.lora is not None:
            policy = self._start(envs)
            policy.load(final)
            return policy
        _require_text(envs)
        trained = LMPolicy.from_pretrained(final, envs.metadata["textgen"], temperature=self.config.temperature)
        if self.config.autocast is not None:
            trained.use_autocast(self.config.autocast)
        return trained

    def reference(self, envs: VectorEnv[Any, Any, Any]) -> LMPolicy | MLPPolicy:
        """Make the frozen policy that the run started from.

        Raises:
            ValueError: for envs that it does not fit, or when it has other weights than the run's checkpoint notes.
        """
        reference = self._start(envs).frozen_copy()
        # An mlp comes from a seed through a QR decomposition, whose last bits follow the number of threads.
        noted = None if self.config.model == "mlp" else self.state.get("reference")
        if noted not in (None, parameter_hash(reference)):
            raise ValueError(
                f"model must be what the run in {self.run_dir} started from, got other weights from "
                f"{self.config.model!r}; restore it, or the versions in the newest checkpoint's manifest.json"
            )
        return reference

    def _start(self, envs: VectorEnv[Any, Any, Any]) -> LMPolicy | MLPPolicy:
        """Make the policy that the run started from as training made it, on its own env; then let it play envs."""
        own = make_envs(self.env_id, 1, self.env_kwargs)
        own.close()
        # The fit below is to float32's rounding.
        policy = start_policy(replace(self.config, autocast=None), own)
        if isinstance(policy, MLPPolicy):
            trained, found = ((e.single_observation_space, e.single_action_space) for e in (own, envs))
            if (trained[0].shape, trained[0].dtype, trained[1]) != (found[0].shape, found[0].dtype, found[1]):
                same = ", or give both the same max_prompt_tokens and max_new_tokens" * ("textgen" in own.metadata)
                raise ValueError(
                    f"env must have the spaces that the run's mlp was trained on, {trained[0]} and {trained[1]}, "
                    f"got {found[0]} and {found[1]}; evaluate on {self.env_id}{same}"
                )
            return policy
        _require_text(envs)
        metadata = envs.metadata["textgen"]
        if metadata["vocab_sha256"] != policy.vocab_sha256:
            raise ValueError(
                f"env must have the vocabulary that the run was trained on, vocab_sha256 {policy.vocab_sha256[:12]}, "
                f"got {metadata['vocab_sha256'][:12]}; evaluate on {self.env_id}"
            )
        # Only the layout of an episode may differ; making a policy of the same model checks that it fits.
        fitted = LMPolicy(policy.model, metadata, temperature=policy.temperature)
        policy.prompt_slots, policy.max_tokens = fitted.prompt_slots, fitted.max_tokens
        if self.config.autocast is not None:
            policy.use_autocast(self.config.autocast)
        return policy


def _require_text(envs: VectorEnv[Any, Any, Any]) -> None:
    if "textgen" not in envs.metadata:
        raise ValueError(
            "env must be a text environment (metadata['textgen']) for a run of a language model, "
            f"got {envs.spec.id if envs.spec else envs}; see `textenvs list`"
        )


def load_run(run_dir: Path) -> Run:
    """Read a finished run.

    Raises:
        ValueError: when the directory holds no run, one that has not finished, or a config.json that is none.
    """
    if not (run_dir / "config.json").is_file():
        raise ValueError(f"run_dir must hold a run, got {run_dir}, which has no config.json; name the run's directory")
    try:
        settings = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
        run = Run(run_dir, TrainConfig.from_json(settings), newest_state(run_dir / "checkpoints"))
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        if isinstance(error, KeyError) and "heldout_fraction" in settings:  # an SFTConfig
            raise ValueError(
                f"run_dir must hold a run of train, got {run_dir}, an sft run; `textenvs train "
                f"{settings.get('env_id')} --model {run_dir}/final` goes on from it, "
                "and evaluating that run measures this model as its start"
            ) from None
        raise ValueError(f"config.json in {run_dir} must be what train wrote, got {error}; restore it") from None
    final = run_dir / "final"
    names = _ADAPTER if any((final / name).is_file() for name in _ADAPTER[:2]) else _MODEL
    for name in _MODEL[:1] if run.config.model == "mlp" else names:
        if not (final / name).is_file():
            raise ValueError(
                f"run_dir must hold a finished run, got {run_dir}, which has no final/{name}; finish it by the "
                "command that trained it, with --resume"
            )
    return run


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
        reference: the frozen start; adds kl_per_episode and, for text, sample_perplexity.
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
    result = summarise(rollout, reference=reference, is_text="textgen" in envs.metadata)
    if greedy:
        result = {name: value for name, value in result.items() if not name.startswith("kl_per_episode")}
    return result | {"tokens_per_second": speed}, rollout


def reference_rollout(rules: textenvs.Rules, rollout: Rollout) -> Rollout | None:
    """Lay out the references of the problems that were played, each problem once; None where there are none.

    A reference that the env's masks forbid is left out with a warning.
    """
    episodes = []
    for number in sorted({int(info["problem"]) for info in rollout.infos if "problem" in info}):
        start = rules.start(number)
        token_ids = rules.demonstration(start.problem)
        try:
            episodes += [] if token_ids is None else [play_back(rules, start, token_ids)]
        except ValueError as error:
            warnings.warn(f"reference of problem {number} left out: {error}", stacklevel=2)
    return as_rollout(episodes, has_masks=bool(rules.metadata["has_masks"])) if episodes else None


def evaluate_run(
    run_dir: Path,
    *,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    num_episodes: int = 512,
    seed: int = 0,
    judge: str | None = None,
    samples: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a run's policy on held-out problems, sampled and greedy, against the policy it started from.

    A learned reward that `judge.JUDGES` knows is held against its judge by default. The result stays in the run
    directory as evaluation.json, or of another env as evaluation-ID-HASH.json, for `textenvs report`.

    Args:
        run_dir: a finished run.
        env_id: another env of the same vocabulary; None for the run's own.
        env_kwargs: its keyword arguments; None for the run's own.
        num_episodes: at least 1, of each: sampled, greedy and start play the same problems.
        seed: see `evaluate`.
        judge: a name of `textenvs.REWARDS`; None for the table's.
        samples: where to write every sampled response as a JSON line with id, prompt, response, value; None for
            nowhere.

    Returns:
        JSON-able: split ("train" when the task has no held-out problems, "all" when another env has no splits);
        num_problems, how many different ones were played, 0 where an env tells none; the numbers of `evaluate` for
        the sampled policy with judge, judge_stderr and reference_perplexity where they exist; the same under "greedy"
        and, for the sampled start, under "start"; judge_name (None: there is none); "gain" over the start on the same
        problems; warnings; config, versions, seeds.

    Raises:
        ValueError: for a run_dir, num_episodes, seed or judge that cannot be evaluated, an env that the run's policy
            does not fit, or a start that is no longer what it was.
        OSError: when samples cannot be written.
    """
    run = load_run(run_dir)
    _check_request(num_episodes, seed, judge)
    kwargs = env_kwargs if env_kwargs is not None else run.env_kwargs if env_id in (None, run.env_id) else {}
    envs, split = held_out_envs(env_id or run.env_id, kwargs, num_envs=min(num_episodes, run.config.num_envs))
    env = {"id": env_id or run.env_id, "kwargs": dict(kwargs)}
    is_own = env == {"id": run.env_id, "kwargs": dict(run.env_kwargs)}
    asked = split if split != "train" or "split" in kwargs else None  # else the env is on its own
    if asked is None and not is_own:
        split = "all"
    rules = getattr(envs.unwrapped, "rules", None)
    if judge is not None and rules is None:
        raise ValueError(
            f"judge must be None for an env without texts, got {judge!r} on {env_id or run.env_id}; leave it out"
        )
    policy, reference = run.policy(envs), run.reference(envs)
    if samples is not None:
        samples.open("a", encoding="utf-8").close()  # a path that cannot be written fails now, not after the work
    rows, rollouts = {}, {}
    for name, who in (("sampled", policy), ("greedy", policy), ("start", reference)):
        rows[name], rollouts[name] = evaluate(
            who, envs, num_episodes=num_episodes, seed=seed, reference=reference, greedy=name == "greedy"
        )
    envs.close()
    judge_name, judged = _judge(judge, rules, rollouts)
    for name, values in judged.items():
        rows[name] |= with_stderr("judge", values[np.isfinite(values)])
    references = None if rules is None else reference_rollout(rules, rollouts["sampled"])
    for name, who in (("sampled", policy), ("start", reference)):
        if references is not None and isinstance(who, LMPolicy):
            rows[name]["reference_perplexity"] = finite_or_none(perplexity(who, references))
    if samples is not None:
        write_samples(rollouts["sampled"], samples, split=asked)
    gains, notes = _compare(rollouts, judged)
    result = {
        "split": split,
        "num_problems": len({int(info["problem"]) for info in rollouts["sampled"].infos if "problem" in info}),
        **rows["sampled"],
        "greedy": rows["greedy"],
        "start": rows["start"],
        "judge_name": judge_name,
        "gain": gains,
        "warnings": notes,
        "config": json.loads((run_dir / "config.json").read_text(encoding="utf-8")),
        "env": env,
        "seeds": {"training": run.config.seed, "evaluation": seed},
        "versions": versions(),
    }
    write_evaluation(run_dir / file_of(None if is_own else env), result, rollouts, judged)
    return result


def _check_request(num_episodes: int, seed: int, judge: str | None) -> None:
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}; ask for one episode or more")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}; raise it")
    if judge is not None:
        textenvs.as_reward(judge)


def _judge(
    name: str | None, rules: textenvs.Rules | None, rollouts: Mapping[str, Rollout]
) -> tuple[str | None, dict[str, NDArray[np.float64]]]:
    """Score all rollouts by the judge asked for, or the table's; its name and scores, or None and nothing."""
    name = name or find_judge(rollouts["sampled"])
    if name is None or rules is None:
        return None, {}
    try:
        scores = {key: judge_scores(textenvs.as_reward(name), rules, rollout) for key, rollout in rollouts.items()}
    except ImportError as error:
        warnings.warn(f"not held against a judge: {error}", stacklevel=3)
        return None, {}
    # One whose scores all failed says nothing.
    return name, {key: values for key, values in scores.items() if np.isfinite(values).any()}


def _compare(
    rollouts: Mapping[str, Rollout], judged: Mapping[str, NDArray[np.float64]]
) -> tuple[dict[str, float | None], list[str]]:
    """Compare the sampled policy with its start, problem by problem; return the gains, and what they warn of."""
    after, before = rollouts["sampled"], rollouts["start"]
    both = ~(after.faulty | before.faulty)
    if not both.any():
        return {}, []
    reward = gain(after.returns[both], before.returns[both])
    gains = {"mean_return": reward[0], "mean_return_stderr": reward[1]}
    if not {"sampled", "start"} <= judged.keys():
        return gains, []
    both = np.isfinite(judged["sampled"]) & np.isfinite(judged["start"])
    if not both.any():
        return gains, []
    score = gain(judged["sampled"][both], judged["start"][both])
    note = reward_hacking(reward, score)
    if note is not None:
        warnings.warn(note, stacklevel=3)
    return gains | {"judge": score[0], "judge_stderr": score[1]}, [] if note is None else [note]


def result_table(result: Mapping[str, Any], title: str) -> Table:
    """Lay out what `evaluate_run` returns: a line a number, means with their standard errors; see docs/metrics.md."""
    blocks = {"sampled": result, "greedy": result["greedy"], "start": result["start"]}
    judge = f"held-out judge: {result['judge_name']}" if result["judge_name"] else "no held-out judge for this reward"
    problems = f" of {result['num_problems']:,} problems ({result['split']})" if result["num_problems"] else ""
    played = f"{result['num_episodes']:,} episodes{problems} of {result['env']['id']}"
    caption = f"{textenvs.printable(played)}; mean ± standard error over episodes; {judge}"
    table = Table(title=escape(title), caption=escape(caption))
    table.add_column("metric")
    for name in blocks:
        table.add_column(name, justify="right", no_wrap=True)
    for name in result["start"]:
        if name == "stderr" or name.endswith("_stderr"):
            continue
        error = "stderr" if name == "mean_return" else f"{name}_stderr"
        table.add_row(escape(name), *(_cell(block.get(name), block.get(error)) for block in blocks.values()))
    for name in ("mean_return", "judge"):
        if name in result["gain"]:
            table.add_row(f"gain.{name}", _cell(result["gain"][name], result["gain"][f"{name}_stderr"]), "", "")
    return table


def _cell(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    # Rounded first: a KL of -1e-8 is not -0.000.
    number = f"{value:,}" if isinstance(value, int) else f"{round(value, 3) + 0.0:,.3f}"
    return number if error is None else f"{number} ± {error:.3f}"
