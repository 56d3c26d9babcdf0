"""The `textenvs` command. Here: its verbs, what they print, and how errors end. What they do lives elsewhere.

Verbs about results are in `cli_results`, what verbs share in `cli_arguments`.

Every error is one sentence on standard error: exit status 2 for wrong usage, 1 for a failed run, 130 after Ctrl-C.
Heavy libraries are imported by the verb that needs them, so that `textenvs list` answers within a second.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import textenvs

try:
    import tyro
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
except ModuleNotFoundError as error:
    raise SystemExit(f'textenvs needs {error.name} for its command; pip install "textenvs[agents]"') from None

import gymnasium as gym

from agents.algorithms import ALGORITHMS, Algorithm
from agents.cli_arguments import (
    EnvId,
    EnvKwargs,
    UsageError,
    at_least_one,
    json_object,
    make_env,
    not_negative,
    os_error_sentence,
    print_json,
)
from agents.cli_results import benchmark, evaluate, report, score
from agents.suites import NO_ID, missing_module

_CHANGES_RETURNS = {"reward", "vocab", "max_prompt_tokens", "max_new_tokens", "stop"}


def list_envs(*, json: bool = False) -> None:
    """List the environments with what chance, dumb policies, the references and the optimum earn.

    Args:
        json: print a JSON list instead of a table.
    """
    rows: list[dict[str, Any]] = []
    for entry in textenvs.ENTRIES:
        try:
            known = textenvs.Anchors.stored(entry.id) or textenvs.anchors(textenvs.Rules(**entry.kwargs))
        except (ImportError, textenvs.RewardError) as error:
            warnings.warn(f"{entry.id} cannot be made here: {error}", stacklevel=2)
            known = textenvs.Anchors()
        rows.append({"id": entry.id, "family": entry.family, **vars(known)})
    if json:
        print_json(rows)
        return
    table = Table(
        title="environments (mean return at default settings; benchmarks/board.py renews it)",
        caption="-: nobody knows; dumb success: share that a dumb policy solves; `textenvs show ID` plays it anew",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in rows[0]:
        if name != "family":
            table.add_column(name.replace("_", "\n"), justify="left" if name == "id" else "right", no_wrap=True)
    for family in dict.fromkeys(row["family"] for row in rows):
        table.add_row(f"[bold]{family}[/bold]")
        for env_id, _, *values in (row.values() for row in rows if row["family"] == family):
            table.add_row(env_id, *("-" if value is None else f"{value:.3f}" for value in values))
    Console().print(table)


def show(env_id: EnvId, /, *, env_kwargs: EnvKwargs = "{}") -> None:
    """Show an environment's page: what its task is, its settings, its spaces, and three solved problems.

    Args:
        env_id: a registered id, or "module:Name-v0" of a file module.py of yours.
        env_kwargs: keyword arguments of the environment.
    """
    env: Any = make_env(env_id, env_kwargs, ours=True).unwrapped
    rules, console = env.rules, Console(highlight=False)
    console.print(f"[bold]{escape(env_id)}[/bold]  {escape(_page(type(rules.task)))}\n", soft_wrap=True)
    settings = {**rules.metadata, "num_problems": len(rules.task), "reward": rules.reward.name, "dense": rules.dense}
    settings |= {"observation_space": env.observation_space, "action_space": env.action_space}
    # Known returns belong to the task's own reward and limits: under others they would be false.
    if not _CHANGES_RETURNS & set(json_object(env_kwargs)):
        known = vars(textenvs.anchors(rules))
        settings |= {name if name == "dumb_success" else f"{name}_return": known[name] for name in known}
    for name, value in settings.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        console.print(f"  {name:24}{escape(shown)}", soft_wrap=True)
    console.print("problems:")
    for k in range(min(3, len(rules.task))):
        problem = rules.task[k]
        reference = f"  ->  {problem.references[0]}" if problem.references else ""
        console.print(f"  {k}: {escape(textenvs.printable(problem.prompt + reference))}", soft_wrap=True)


def _page(task: type[textenvs.Task]) -> str:
    """The docstrings of a task and of its module, with the settings that it inherits where it names none."""
    settings = inspect.signature(task)
    alike = [cls for cls in task.__mro__ if issubclass(cls, textenvs.Task) and inspect.signature(cls) == settings]
    docs = [inspect.cleandoc(cls.__doc__ or "") for cls in alike]
    named = next((doc for doc in docs if "\nArgs:" in doc), docs[0])
    inherited = "" if named is docs[0] else named[named.index("\nArgs:") :].strip()
    module = inspect.cleandoc(sys.modules[task.__module__].__doc__ or "")
    return "\n\n".join(part for part in (docs[0], inherited, module) if part)


def check(env_id: EnvId, /, *, env_kwargs: EnvKwargs = "{}") -> None:
    """Check that an environment keeps the contract, naming every clause that it breaks, and that references fit in it.

    Args:
        env_id: any registered Gymnasium id with token actions, or "module:Name-v0" of a file module.py of yours.
        env_kwargs: keyword arguments of the environment.
    """
    env = make_env(env_id, env_kwargs)
    try:
        textenvs.check_env(env)
    except textenvs.ContractError as broken:
        raise SystemExit(_fail(str(broken), 1)) from None
    base, threshold = env.unwrapped, env.spec.reward_threshold if env.spec else None
    if isinstance(base, textenvs.TextGenEnv):
        try:
            textenvs.check_references(base.rules, reward_threshold=threshold)
        except ValueError as error:
            raise SystemExit(_fail(error, 1)) from None
    print(f"{env_id} keeps the contract")


def play(
    target: EnvId,
    /,
    *,
    env_kwargs: EnvKwargs = "{}",
    policy: Literal["human", "random", "oracle"] | None = None,
    episodes: int = 1,
    seed: int = 0,
    color: Literal["advantage", "value", "kl", "log_prob"] = "advantage",
) -> None:
    """Play an environment yourself, or watch a policy play it.

    Args:
        target: a registered id, "module:Name-v0" of a file module.py of yours, or the directory of a trained run,
            whose policy then plays.
        env_kwargs: keyword arguments of the environment.
        policy: who chooses the tokens; "human" unless the target is a run.
        episodes: how many, at least 1.
        seed: of the first episode.
        color: what colours the tokens that a run's policy plays now, on held-out problems; numbers without a terminal.
    """
    at_least_one("--episodes", episodes)
    not_negative("--seed", seed)

    from agents.play import play_human, play_policy, play_run

    if Path(target).is_dir():
        if policy is not None:
            raise UsageError(f"--policy must be left out for a run directory, got {policy!r}; the run's policy plays")
        play_run(Path(target), episodes=episodes, seed=seed, color=color)
        return
    kwargs = json_object(env_kwargs)
    try:
        env = make_env(target, env_kwargs, ours=True)
    except UsageError:
        if re.search(r":|-v\d+$", target):
            raise
        remedy = "`textenvs list` prints the ids"
        raise UsageError(
            f"target must be an id or the directory of a run, got {target!r}, which is neither; {remedy}"
        ) from None
    if policy in (None, "human"):
        play_human(env, episodes=episodes, seed=seed)
    else:
        play_policy(target, kwargs, str(policy), episodes=episodes, seed=seed)


def train(
    env_id: EnvId,
    /,
    *,
    run_dir: Path,
    algorithm: Literal["reinforce", "a2c", "ppo", "rloo", "grpo"] = "ppo",
    coefficients: Annotated[Algorithm, tyro.conf.arg(name="")] = ALGORITHMS["ppo"],
    model: str = "scratch",
    env_kwargs: EnvKwargs = "{}",
    episodes: int = 7680,
    seed: int = 0,
    num_envs: int = 128,
    checkpoint_every: int = 1,
    lora_rank: int | None = None,
    autocast: Literal["bfloat16"] | None = None,
    resume: bool = False,
) -> None:
    """Train a language model on an environment; everything it writes goes to the run directory.

    Args:
        env_id: a registered id, or "module:Name-v0" of a file module.py of yours.
        run_dir: where checkpoints, metrics, samples and the learning curve go; must not hold a run yet.
        algorithm: which row of `agents.algorithms` to start from; the flags below change single coefficients.
        coefficients: of the algorithm.
        model: "scratch" (a tiny model made for the vocabulary), "tiny" (the shipped one), a directory or a hub id, or
            "mlp" (a perceptron, for any env with flat observations);
            a model that can write already wants a lower --learning-rate, --gae-lambda 1 and a --kl-coef.
        env_kwargs: keyword arguments of the environment.
        episodes: how many to train on, at least 1.
        seed: of everything random in the run.
        num_envs: episodes sampled side by side; changes the speed; results up to rounding.
        checkpoint_every: updates between checkpoints.
        lora_rank: train adapters of this rank (alpha twice the rank) instead of the model's weights.
        autocast: compute the language model in this type; what trains, and the probabilities, stay float32.
        resume: continue the run in the directory; starts at the beginning when there is none.
    """
    at_least_one("--episodes", episodes)
    make_env(env_id, env_kwargs, ours=model != "mlp")

    from agents.lora import LoraSettings
    from agents.train import TrainConfig, going_on
    from agents.train import train as run

    config = TrainConfig(
        env_id=env_id,
        env_kwargs=json_object(env_kwargs),
        algorithm=coefficients,
        model=model,
        num_episodes=episodes,
        num_envs=num_envs,
        seed=seed,
        checkpoint_every=checkpoint_every,
        lora=None if lora_rank is None else LoraSettings(rank=lora_rank, alpha=2.0 * lora_rank),
        autocast=autocast,
    )
    finished = resume and (run_dir / "final").is_dir()
    run(config, run_dir, resume=resume)
    if finished:
        print(f"{run_dir} was finished already: nothing was trained{going_on(config, run_dir)}")
    print(f"{run_dir}: final/, curve.png, metrics.jsonl, samples.jsonl")
    print(f"next: textenvs evaluate {run_dir}; textenvs report {run_dir}")


def sft(
    env_id: EnvId,
    /,
    *,
    run_dir: Path,
    text_file: Path | None = None,
    model: str = "scratch",
    env_kwargs: EnvKwargs = "{}",
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    patience: int = 2,
    seed: int = 0,
) -> None:
    """Warm a language model up on given responses; `train --model RUN_DIR/final` then starts from it.

    Args:
        env_id: a registered id, or "module:Name-v0" of a file module.py of yours; its demonstrations are imitated.
        run_dir: where metrics and the model go; must be new or empty.
        text_file: imitate its lines instead: prompt<TAB>response, plain text whose first token is the prompt, or JSON
            lines with "prompt" and "response" when its name ends in .jsonl.
        model: "scratch", "tiny", a directory or a hub id; one that can write already wants a lower --learning-rate.
        env_kwargs: keyword arguments of the environment.
        epochs: most passes over the responses, at least 1.
        batch_size: responses an optimizer step, at least 1.
        learning_rate: of Adam, constant, above 0.
        patience: epochs without a new lowest held-out perplexity after which to stop, at least 1.
        seed: of scratch weights, the held-out tenth and the order.
    """
    make_env(env_id, env_kwargs, ours=True)

    from agents.sft import SFTConfig, kept_epoch
    from agents.sft import sft as run

    config = SFTConfig(
        env_id=env_id,
        env_kwargs=json_object(env_kwargs),
        text_file=None if text_file is None else str(text_file),
        model=model,
        num_epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=patience,
        seed=seed,
    )
    run(config, run_dir)
    print(f"{run_dir}: final/, {kept_epoch(run_dir)}; next: textenvs train {env_id} --model {run_dir}/final")


VERBS: dict[str, Callable[..., None]] = {
    "list": list_envs,
    "show": show,
    "check": check,
    "play": play,
    "sft": sft,
    "train": train,
    "evaluate": evaluate,
    "score": score,
    "benchmark": benchmark,
    "report": report,
}

#: What a verb that goes on where it was stopped says after Ctrl-C.
GOING_ON = {"train": "; the same command with --resume goes on", "benchmark": "; the same command goes on"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; ends the process with the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.path.insert(0, "")  # so that "module:Name-v0" finds a module of the user's, as under python -m
    warnings.formatwarning = lambda message, *_, **__: f"textenvs: {message}\n"
    try:
        # The flags' defaults are the chosen algorithm's row, so the row must be known before the flags are read.
        named = ["ppo", *(b for a, b in pairwise(" ".join(arguments).replace("=", " ").split()) if a == "--algorithm")]
        verbs = VERBS | {"train": partial(train, coefficients=ALGORITHMS.get(named[-1], ALGORITHMS["ppo"]))}
        tyro.extras.subcommand_cli_from_dict(verbs, prog="textenvs", args=arguments)
    except KeyboardInterrupt:
        raise SystemExit(_fail("interrupted" + GOING_ON.get("".join(arguments[:1]), ""), 130)) from None
    except BrokenPipeError:  # the reader has seen enough, as in `textenvs list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RuntimeError as error:
        raise SystemExit(_fail(error, 1)) from None
    except gym.error.UnregisteredEnv as error:  # the id that a run was trained on
        raise SystemExit(_fail(f"{str(error).rstrip('.')}; {NO_ID}", 2)) from None
    except (UsageError, ValueError, TypeError, OSError, ImportError, gym.error.Error) as error:
        raise SystemExit(_fail(error, 2)) from None


def _fail(message: object, status: int) -> int:
    # gym.make appends the call it was in, which the user just typed.
    said = os_error_sentence(message) if isinstance(message, OSError) else str(message)
    said = said.split(" was raised from the environment creator")[0]
    if isinstance(message, ModuleNotFoundError) and isinstance(message.__cause__, ModuleNotFoundError):
        module = re.search("Check whether '(.+)' contains env registration", said)
        said = missing_module(module[1], str(message.__cause__.name)) if module else said
    print("textenvs:", "\n".join(map(textenvs.printable, said.split("\n"))), file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
