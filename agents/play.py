"""Episodes in the terminal: played by a person, by a policy that does not learn, or by a trained run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import textenvs
from agents.policy import OraclePolicy, Policy, RandomPolicy
from agents.rollout import Rollout, collect


def play_human(env: gym.Env[Any, Any], *, episodes: int, seed: int) -> None:
    """Let a person type the response; every line is a few tokens, an empty line is the end token."""
    console = Console(highlight=False, soft_wrap=True)
    base: Any = env.unwrapped
    vocab = base.rules.vocab
    console.print("Type some text and press Enter to append it; an empty line appends the end token; Ctrl-D stops.")
    for k in range(episodes):
        env.reset(seed=seed if k == 0 else None)
        info: dict[str, Any] = {}
        done, total = False, 0.0
        while not done:
            console.print(escape(base.line()))
            try:
                text = console.input("> ")
            except EOFError:
                console.print("stopped")
                return
            try:
                tokens = vocab.encode(text).tolist() or [vocab.eos_id]
            except ValueError as error:
                console.print(f"[yellow]{escape(str(error))}[/yellow]")
                continue
            for token in tokens:
                if not base.action_masks()[token]:
                    console.print(f"[yellow]{escape(repr(vocab.tokens[token]))} is not legal here[/yellow]")
                _, reward, terminated, truncated, info = env.step(int(token))
                total += float(reward)
                if done := terminated or truncated:
                    break
        console.print(escape(base.line()))
        _print_outcome(console, info, total, base.demonstration(), vocab)


def _print_outcome(
    console: Console, info: dict[str, Any], total: float, solution: list[int] | None, vocab: textenvs.Vocab
) -> None:
    shown = {name: value for name, value in info.items() if name not in ("problem", "prompt", "response")}
    words = ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
    console.print(f"[bold]return {total:.3f}[/bold]  {escape(words)}")
    if solution is not None:
        console.print(f"reference: {escape(textenvs.printable(vocab.decode(solution)))}")


def play_policy(env_id: str, kwargs: dict[str, Any], name: str, *, episodes: int, seed: int) -> None:
    """Show episodes of the random or the oracle policy."""
    envs: Any = gym.make_vec(env_id, num_envs=min(episodes, 64), autoreset_mode="Disabled", **kwargs)
    policy: Policy = OraclePolicy(envs) if name == "oracle" else RandomPolicy(int(envs.single_action_space.n))
    print_episodes(collect(envs, policy, num_episodes=episodes, seed=seed), f"{name} policy on {env_id}")


def play_run(run_dir: Path, *, episodes: int, seed: int) -> None:
    """Show episodes of a trained run's policy on held-out problems."""
    from agents.evaluate import held_out_envs, load_run

    run = load_run(run_dir)
    envs, _ = held_out_envs(run.env_id, run.env_kwargs, num_envs=min(episodes, 64))
    print_episodes(collect(envs, run.policy(envs), num_episodes=episodes, seed=seed), str(run_dir))


def print_episodes(rollout: Rollout, title: str) -> None:
    """Print a table of episodes: prompt, response, why it ended, return. Control characters are escaped."""
    table = Table(title=escape(title), show_lines=True)
    for name in ("prompt", "response", "end", "return"):
        table.add_column(name, justify="right" if name == "return" else "left")
    for info, total in zip(rollout.infos, rollout.returns, strict=True):
        texts = [escape(textenvs.printable(str(info[key]))) for key in ("prompt", "response", "finish_reason")]
        table.add_row(*texts, f"{total:.3f}")
    console = Console()
    console.print(table)
    mean, count = float(np.mean(rollout.returns)), len(rollout)
    console.print(f"mean return {mean:.3f} over {json.dumps(count)} episodes")
