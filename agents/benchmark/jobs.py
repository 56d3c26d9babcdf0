"""One job of a benchmark: an agent learns in an environment with a seed, and is then measured."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agents.benchmark.agents import Agent, Curve, observation_kwargs, trained
from agents.benchmark.results import COLUMNS, Key, Row, bin_curve, env_slug, environment, fingerprint, write_job
from agents.suites import SuiteEnv

NUM_EVALUATED = 512  # held-out episodes of a final return
THRESHOLD = 0.95  # of the way from random to optimal, by the mean over `baselines.WINDOW` training episodes


@dataclass(frozen=True)
class Scale:
    """What an environment's returns are held against.

    Attributes:
        random: mean return of uniformly random tokens, or None.
        optimal: the best mean return, or None.
        optimal_from: "optimal" when it is exact, "reference" when it is what the references earn, "range" when it is
            the upper bound of the reward, "" when nobody knows.
    """

    random: float | None
    optimal: float | None
    optimal_from: str

    @property
    def threshold(self) -> float | None:
        """The return that counts as reached."""
        if self.random is None or self.optimal is None or self.optimal <= self.random:
            return None
        return self.random + THRESHOLD * (self.optimal - self.random)

    def score(self, mean_return: float) -> float | None:
        """0 for random, 1 for optimal."""
        if self.threshold is None or self.random is None or self.optimal is None:
            return None
        return (mean_return - self.random) / (self.optimal - self.random)


@dataclass(frozen=True)
class Job:
    """An agent, an environment and a seed, with the budget of the suite."""

    suite: str
    agent: Agent
    env: SuiteEnv
    scale: Scale
    seed: int
    num_episodes: int
    seconds: float

    @property
    def key(self) -> Key:
        """Which job it is."""
        return self.agent.name, env_slug(self.env), self.seed

    @property
    def settings_sha256(self) -> str:
        """Changes when the job would no longer be the same: the agent's settings or the budget."""
        return fingerprint([self.agent.settings, self.num_episodes, self.seconds])


def run_job(job: Job, folder: Path) -> Row:
    """Train and evaluate, and write what came of it; a job that fails is a row that says so.

    What the agent prints and warns of, and the traceback of a failure, are in log.txt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "log.txt").open("w", encoding="utf-8"))
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            stack.enter_context(redirect(log))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        try:
            row, curve = _measure(job)
        except Exception as error:
            traceback.print_exc()
            row, curve = failed_row(job, f"{type(error).__name__}: {error}"), Curve(0, 0)
    write_job(folder, row, bin_curve(curve.returns, curve.seconds))
    return row


def failed_row(job: Job, error: str) -> Row:
    """The row of a job that did not end well; the error is cut to one line."""
    return _row(job) | {"status": "failed", "error": " ".join(error.split())[:500]}


def _row(job: Job) -> Row:
    return dict.fromkeys(COLUMNS) | {
        "suite": job.suite,
        "agent": job.agent.name,
        "library": job.agent.library,
        "env_id": job.env.env_id,
        "env_kwargs": dict(job.env.env_kwargs),
        "seed": job.seed,
        "budget_episodes": job.num_episodes,
        "budget_seconds": float(job.seconds),
        "random_return": job.scale.random,
        "optimal_return": job.scale.optimal,
        "optimal_from": job.scale.optimal_from,
        "threshold": job.scale.threshold,
        "threads": 1,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "settings_sha256": job.settings_sha256,
        **environment(),
    }


def _measure(job: Job) -> tuple[Row, Curve]:
    from agents.baselines import BaselineResult
    from agents.evaluate import FIRST_EPISODE
    from agents.held_out import held_out_envs
    from agents.rollout import collect

    curve = Curve(job.num_episodes, job.seconds)
    kwargs = observation_kwargs(job.agent, job.env.env_kwargs)
    make_policy = trained(job.agent, job.env.env_id, job.env.env_kwargs, job.seed, curve)
    seconds, wall_seconds = curve.elapsed
    envs, split = held_out_envs(job.env.env_id, kwargs, num_envs=128)
    policy = make_policy(envs)
    returns = {}
    for greedy in (False, True):
        rollout = collect(
            envs, policy, num_episodes=NUM_EVALUATED, seed=job.seed, first_episode=FIRST_EPISODE, greedy=greedy
        )
        if rollout.faulty.all():
            raise RuntimeError(
                f"scoring must work for some episode, but all {NUM_EVALUATED} failed; look at the reward"
            )
        returns[greedy] = float(rollout.returns[~rollout.faulty].mean())
    envs.close()
    threshold = job.scale.threshold
    reached = threshold and BaselineResult(curve.returns, curve.seconds).episodes_to(threshold)
    learns = bool(curve.returns)
    return _row(job) | {
        "status": "ok",
        "error": "",
        "episodes": len(curve.returns),
        "seconds": round(seconds, 3) if learns else 0.0,
        "wall_seconds": round(wall_seconds, 3) if learns else 0.0,
        "final_return": returns[False],
        "final_return_greedy": returns[True],
        "score": job.scale.score(returns[False]),
        "episodes_to_threshold": reached[0] if reached else None,
        "seconds_to_threshold": round(reached[1], 3) if reached else None,
        "split": split,
        "num_evaluated": NUM_EVALUATED,
    }, curve


def scale_of(env: SuiteEnv) -> Scale:
    """Find out what random tokens earn in an environment, and what the best could; plays a board of policies.

    Raises:
        ValueError, ImportError: when the reward cannot work here.
    """
    import gymnasium as gym

    import textenvs

    made = gym.make(env.env_id, **env.env_kwargs)
    rules = getattr(made.unwrapped, "rules", None)
    made.close()
    if rules is None:
        return Scale(None, None, "")
    stored = textenvs.Anchors.stored(env.env_id) if not env.env_kwargs else None
    known = stored or textenvs.anchors(rules)
    if known.optimal is not None:
        return Scale(known.random, known.optimal, "optimal")
    if known.reference is not None:
        return Scale(known.random, known.reference, "reference")
    highest = rules.reward.value_range[1]
    return Scale(known.random, highest, "range") if abs(highest) < float("inf") else Scale(known.random, None, "")
