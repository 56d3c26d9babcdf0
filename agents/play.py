"""Episodes in the terminal: played by a person, by a policy that does not learn, or by a trained run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import textenvs
from agents.complete import complete_by_tab
from agents.policy import OraclePolicy, Policy, RandomPolicy
from agents.rollout import Rollout, collect

TokenNumber = Literal["advantage", "value", "kl", "log_prob"]
_ORANGE, _GREY, _BLUE = (240, 140, 50), (225, 225, 225), (90, 165, 240)
_LEGEND_CELLS = 12


def play_human(env: gym.Env[Any, Any], *, episodes: int, seed: int) -> None:
    """Let a person type the response; every line is a few tokens, an empty line is the end token."""
    console = Console(highlight=False, soft_wrap=True)
    base: Any = env.unwrapped
    vocab = base.rules.vocab
    console.print("Type some text and press Enter to append it; an empty line appends the end token; Ctrl-D stops.")
    if sys.stdin.isatty():
        console.print("Tab completes by legal tokens.")
    complete_by_tab(env)
    for k in range(episodes):
        env.reset(seed=seed if k == 0 else None)
        info: dict[str, Any] = {}
        done, total = False, 0.0
        while not done:
            console.print(escape(base.line()))
            try:
                text = input("> ")
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
    shown = {name: value for name, value in info.items() if name not in ("problem", "prompt", "response", "turns")}
    words = ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
    if "turns" in info:
        console.print(_dialogue(info["turns"]))
    console.print(f"[bold]return {total:.3f}[/bold]  {escape(textenvs.printable(words))}")
    if solution is not None:
        starts = [0, *(i + 1 for i, token in enumerate(solution[:-1]) if token == vocab.eos_id)]
        turns = [vocab.decode(solution[a:b]) for a, b in zip(starts, [*starts[1:], len(solution)], strict=True)]
        console.print(f"reference: {escape(' | '.join(map(textenvs.printable, turns)))}")


def _dialogue(turns: Sequence[str]) -> str:
    """Lay out agent, reply, agent, ... as markup, a line each, the replies dim and indented."""
    lines = [escape(textenvs.printable(turn)) for turn in turns]
    return "\n".join(f"[dim]    {line}[/dim]" if i % 2 else line for i, line in enumerate(lines))


def play_policy(env_id: str, kwargs: dict[str, Any], name: str, *, episodes: int, seed: int) -> None:
    """Show episodes of the random or the oracle policy."""
    envs: Any = gym.make_vec(env_id, num_envs=min(episodes, 64), autoreset_mode="Disabled", **kwargs)
    policy: Policy = OraclePolicy(envs) if name == "oracle" else RandomPolicy(int(envs.single_action_space.n))
    print_episodes(collect(envs, policy, num_episodes=episodes, seed=seed), f"{name} policy on {env_id}")


def play_run(run_dir: Path, *, episodes: int, seed: int, color: TokenNumber = "advantage") -> None:
    """Show episodes that a trained run's policy plays now, on held-out problems, token by token.

    The advantage is the one the run's algorithm would compute, KL penalty included, but in units of reward: whitening
    over a few episodes would say little. The penalty's weight is where the run's KL controller ended, as its newest
    checkpoint says; the configuration's without one. Baselines over groups get whole groups, of which the first episode
    is shown. The KL is against the frozen start.

    Args:
        run_dir: a finished run.
        episodes: how many to show.
        seed: of the problems and the draws.
        color: what colours the tokens; where there are no colours, the numbers are printed instead.
    """
    from agents.evaluate import FIRST_EPISODE, load_run
    from agents.held_out import held_out_envs
    from agents.runlog import find_vocab, token_columns
    from agents.update import make_batch, rollout_log_probs

    run = load_run(run_dir)
    algorithm = run.config.algorithm
    if algorithm.normalize == "batch":
        algorithm = replace(algorithm, normalize="none")
    size = algorithm.group_size
    envs, split = held_out_envs(run.env_id, run.env_kwargs, num_envs=min(episodes * size, 64))
    rollout = collect(
        envs,
        run.policy(envs),
        num_episodes=episodes * size,
        seed=seed,
        first_episode=FIRST_EPISODE - FIRST_EPISODE % size,
        group_size=size,
    )
    rollout = rollout.select(~rollout.faulty)
    if not len(rollout):
        raise RuntimeError("scoring must work for some episode, but all failed; look at the reward")
    kl_coef = run.state.get("kl_coef", algorithm.kl_coef)
    batch = make_batch(rollout, algorithm, rollout_log_probs(run.reference(envs), rollout), kl_coef=kl_coef)
    _, shown = np.unique(rollout.episodes // size, return_index=True)
    vocab = find_vocab(envs)
    envs.close()
    tokens = [token_columns(batch, int(row), vocab) for row in shown]
    print_tokens(rollout.select(shown), tokens, f"{run_dir} ({split} problems)", color)


def print_tokens(rollout: Rollout, tokens: list[dict[str, list[Any]]], title: str, color: TokenNumber) -> None:
    """Print episodes with coloured tokens and the legend of the colours; as plain numbers where there are no colours.

    Control characters are escaped.

    Args:
        rollout: B episodes.
        tokens: B columns from `runlog.token_columns`.
        title: printed first.
        color: which column colours.
    """
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(title)}[/bold]")
    plain = not console.is_terminal or console.no_color
    scale = Scale.fit(color, [value for columns in tokens for value in columns[color] if value is not None])
    for info, total, columns, length in zip(rollout.infos, rollout.returns, tokens, rollout.lengths, strict=True):
        end = f"  {info['finish_reason']}" if "finish_reason" in info else ""
        prompt = textenvs.printable(str(info.get("prompt", "")))
        console.print(f"\n[bold]return {total:.3f}[/bold]{end}  {length} tokens")
        if plain:
            console.print(escape(prompt))
            names = list(columns)[1:]
            console.print("".join(f"{name:>11}" for name in names) + "  token")
            for token, *values in zip(*columns.values(), strict=True):
                cells = "".join(f"{'-' if value is None else format(value, '.4g'):>11}" for value in values)
                console.print(f"{cells}  {escape(textenvs.printable(token))}")
            continue
        line = Text().append(prompt, style="dim")
        for token, value in zip(columns["token"], columns[color], strict=True):
            line.append(textenvs.printable(token), style="" if value is None else scale.style(value))
        console.print(line)
    if not plain:
        console.print("\n", scale.legend(), sep="")
    mean, count = float(np.mean(rollout.returns)), len(rollout)
    console.print(f"\nmean return {mean:.3f} over {count} episodes")


@dataclass(frozen=True)
class Scale:
    """Colours of numbers: orange at low, grey at mid, blue at high; readable for most colour-blind people."""

    name: str
    low: float
    mid: float
    high: float

    @classmethod
    def fit(cls, name: TokenNumber, values: list[float]) -> Scale:
        """Span the values: advantage and kl evenly around 0, log_prob from its lowest up to 0, value as it lies."""
        low, high = min(values, default=0.0), max(values, default=0.0)
        if name == "log_prob":
            return cls(name, low, 0.0, 0.0)
        if name == "value":
            return cls(name, low, (low + high) / 2, high)
        most = max(-low, high)
        return cls(name, -most, 0.0, most)

    def style(self, value: float) -> str:
        """Return the rich style of a number: black on its colour."""
        end, edge = (_ORANGE, self.low) if value < self.mid else (_BLUE, self.high)
        share = (value - self.mid) / (edge - self.mid) if edge != self.mid else 0.0
        red, green, blue = (round(g + share * (e - g)) for g, e in zip(_GREY, end, strict=True))
        return f"rgb(0,0,0) on rgb({red},{green},{blue})"

    def legend(self) -> Text:
        """Draw the scale: the numbers at both ends and the middle, and the colours between."""
        units = {"advantage": "reward", "value": "reward", "kl": "nats", "log_prob": "nats"}
        line = Text(f"{self.name} ({units[self.name]})  ")
        for low, high in ((self.low, self.mid), (self.mid, self.high)):
            if low != high:
                line.append(f"{low:.3g} ")
                for i in range(_LEGEND_CELLS):
                    line.append(" ", style=self.style(low + (high - low) * i / (_LEGEND_CELLS - 1)))
                line.append(" ")
        return line.append(f"{self.high:.3g}")


def print_episodes(rollout: Rollout, title: str) -> None:
    """Print a table of episodes: prompt, response by turns, why it ended, return. Control characters are escaped."""
    table = Table(title=escape(title), show_lines=True)
    for name in ("prompt", "response", "end", "return"):
        table.add_column(name, justify="right" if name == "return" else "left")
    for info, total in zip(rollout.infos, rollout.returns, strict=True):
        prompt, end = (escape(textenvs.printable(str(info[key]))) for key in ("prompt", "finish_reason"))
        table.add_row(prompt, _dialogue(info.get("turns") or [info["response"]]), end, f"{total:.3f}")
    console = Console()
    console.print(table)
    mean, count = float(np.mean(rollout.returns)), len(rollout)
    console.print(f"mean return {mean:.3f} over {count} episodes")
