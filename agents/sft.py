"""Supervised warm start: a language model learns to give the responses it is shown, before any reward is paid.

The responses are laid out as episodes (`responses`) under the env's own rules, so the loss goes through the forward
pass of the policy-gradient update: the likelihood of what the agent has to choose, among the tokens that the env
allows, since that is the distribution it will sample from. Prompts and replies carry no loss.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import SeedSequence, default_rng
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import textenvs
from agents.checkpoint import write_directory
from agents.kernels import keep_freed_memory
from agents.lm import LMPolicy
from agents.responses import as_rollout, demonstrations, read_responses
from agents.rollout import Rollout
from agents.train import TrainConfig, make_envs, start_policy
from agents.update import MAX_FORWARD_TOKENS, micro_batches, rollout_log_probs

_SPLIT_STREAM, _SHUFFLE_STREAM = 3, 4  # first word of the seed; `rollout` and `update` have 0 to 2


@dataclass(frozen=True)
class SFTConfig:
    """What to imitate, on what model, and how.

    Attributes:
        env_id: a registered id of a TextGen env: its vocabulary, limits, masks and replies shape the episodes.
        env_kwargs: keyword arguments of the env, JSON-able.
        text_file: what to imitate, see `read_responses`; None for the env's own demonstrations.
        max_demonstrations: of the first so many problems, at least 2; a text file is read whole.
        model: "scratch", "tiny", a directory or a hub id, as for `train`.
        model_kwargs: settings of a scratch model, see `LMPolicy.from_config`.
        num_epochs: most passes over the training part, at least 1.
        batch_size: episodes an optimizer step, at least 1.
        learning_rate: of Adam, constant, above 0; a model that can write already wants a lower one than the default.
        max_grad_norm: the gradient is scaled down to this global norm, above 0.
        heldout_fraction: share of the episodes, at least one, that is measured and not trained on, in (0, 1).
        patience: epochs without a new lowest held-out perplexity after which to stop, at least 1.
        seed: of scratch weights, the held-out part and the order, at least 0.
    """

    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    text_file: str | None = None
    max_demonstrations: int = 1000
    model: str = "scratch"
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    num_epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
    heldout_fraction: float = 0.1
    patience: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a setting outside its range.

        Raises:
            ValueError: names the setting, its value and the range.
        """
        least = {"max_demonstrations": 2, "num_epochs": 1, "batch_size": 1, "patience": 1, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}; raise it")
        for name, top in {"learning_rate": math.inf, "max_grad_norm": math.inf, "heldout_fraction": 1.0}.items():
            if not 0 < getattr(self, name) < top:
                raise ValueError(f"{name} must be above 0 and below {top}, got {getattr(self, name)}; change it")
        if self.model == "mlp":
            raise ValueError("model must be a language model, got 'mlp'; take 'scratch', 'tiny' or a directory")


def accumulate_gradients(
    policy: LMPolicy, rollout: Rollout, rows: NDArray[np.int64], *, max_tokens: int = MAX_FORWARD_TOKENS
) -> float:
    """Add the gradient of one optimizer step: the mean of -log pi(token | prefix) over the decisions of all rows.

    A sum over decisions divided by their number in the step, whatever the cut into micro-batches.

    Args:
        policy: its parameters' `.grad` receive the gradient.
        rollout: the responses.
        rows: (n,) episodes of the step.
        max_tokens: most slots, padding included, in one forward; bounds memory only.

    Returns:
        The loss, in nats a decision.
    """
    normalizer, total = float(rollout.mask[rows].sum()), 0.0
    for part in micro_batches(rollout, rows, max_tokens):
        log_probs, _, _ = policy.evaluate(rollout, part)  # 0 outside the mask
        loss = -log_probs.sum() / normalizer
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def perplexity(policy: LMPolicy, rollout: Rollout) -> float:
    """Compute exp of the mean of -log pi over all decisions: so many tokens, equally likely, would surprise as much.

    Over the legal tokens: the uniform policy has the geometric mean of their numbers, and a decision with one legal
    token counts as one that never surprises.
    """
    log_probs = rollout_log_probs(policy, rollout).double()  # 0 outside the mask
    return float((-log_probs.sum() / int(rollout.mask.sum())).exp())


class _Log:
    """metrics.jsonl and a progress bar with the rate and the time left."""

    def __init__(self, path: Path, *, num_steps: int, quiet: bool) -> None:
        self.path = path
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns, disable=quiet)
        self.task = self.progress.add_task("learning", total=num_steps)

    def write(self, metrics: Mapping[str, float | None]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        rate = metrics.get("tokens_per_second")
        words = f"held-out perplexity {metrics['heldout_perplexity']:.3f}" + (f"  {rate:,.0f} tokens/s" if rate else "")
        self.progress.update(self.task, description=words)


def fit(policy: LMPolicy, rollout: Rollout, config: SFTConfig, metrics_file: Path, *, quiet: bool = False) -> None:
    """Fit a policy to a rollout in place; it ends with the weights of the epoch with the lowest held-out perplexity.

    The held-out part is drawn from the episodes: one that is there twice may be on both sides.

    Raises:
        RuntimeError: when the perplexity or the gradient is not finite.
    """
    keep_freed_memory()
    order = default_rng(SeedSequence([_SPLIT_STREAM, config.seed])).permutation(len(rollout))
    num_heldout = min(max(1, round(config.heldout_fraction * len(order))), len(order) - 1)
    heldout, training = rollout.select(order[:num_heldout]), order[num_heldout:]
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=config.learning_rate)
    num_steps = math.ceil(len(training) / config.batch_size)
    log = _Log(metrics_file, num_steps=num_steps * config.num_epochs, quiet=quiet)
    best_epoch, best, lowest = 0, _weights(policy), perplexity(policy, heldout)
    log.write({"epoch": 0, "heldout_perplexity": lowest})
    with log.progress:
        for epoch in range(1, config.num_epochs + 1):
            started, losses, norms = time.perf_counter(), [], []
            shuffled = default_rng(SeedSequence([_SHUFFLE_STREAM, config.seed, epoch])).permutation(training)
            for rows in np.array_split(shuffled, num_steps):
                optimizer.zero_grad(set_to_none=True)
                losses.append(accumulate_gradients(policy, rollout, rows) * rollout.mask[rows].sum())
                norms.append(torch.nn.utils.clip_grad_norm_(trainable, config.max_grad_norm).item())
                optimizer.step()
                log.progress.advance(log.task)
            seconds, num_tokens = time.perf_counter() - started, int(rollout.mask[training].sum())
            metrics = {"epoch": epoch, "loss": sum(losses) / num_tokens, "grad_norm": float(np.mean(norms))}
            metrics |= {"heldout_perplexity": perplexity(policy, heldout)}
            if not all(map(math.isfinite, metrics.values())):
                raise RuntimeError(f"training must not diverge, got {metrics}; lower the learning rate")
            log.write(metrics | {"seconds": seconds, "tokens_per_second": num_tokens / seconds})
            if metrics["heldout_perplexity"] < lowest:
                best_epoch, best, lowest = epoch, _weights(policy), metrics["heldout_perplexity"]
            elif epoch - best_epoch >= config.patience:
                break
    policy.load_state_dict(best)


def kept_epoch(run_dir: Path) -> str:
    """Say which epoch's weights `fit` left, its held-out perplexity and the last one's, as metrics.jsonl has them."""
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    kept, last = min(records, key=lambda record: float(record["heldout_perplexity"])), records[-1]
    measured = f"held-out perplexity {kept['heldout_perplexity']:.3f}; {last['heldout_perplexity']:.3f} after the last"
    return f"kept epoch {kept['epoch']} of {last['epoch']}, {measured}"


def _weights(policy: LMPolicy) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.state_dict().items()}


def sft(config: SFTConfig, run_dir: Path, *, quiet: bool = False) -> Path:
    """Train a language model on responses, by maximum likelihood, until the held-out perplexity stops falling.

    Args:
        config: what to imitate, on what model.
        run_dir: the directory of the run, new or empty. An interrupted run is started again: it takes minutes at most.
        quiet: show no progress bar.

    Returns:
        run_dir, which then holds config.json, metrics.jsonl (one line an epoch, the first before any) and final/, the
        policy of the epoch with the lowest held-out perplexity.

    Raises:
        ValueError: for an env without demonstrations, a file that cannot be imitated, fewer than 2 responses, a model
            that does not fit, or a run_dir that is not empty.
        RuntimeError: when training diverges.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise ValueError(f"run_dir must be new or an empty directory, got {run_dir}, which is not; name another")
    envs = make_envs(config.env_id, 1, config.env_kwargs)
    rules = getattr(envs.unwrapped, "rules", None)
    if not isinstance(rules, textenvs.Rules):
        raise ValueError(f"env_id must be a TextGen environment, got {config.env_id!r}; see `textenvs list`")
    if config.text_file is None:
        episodes = demonstrations(rules, config.max_demonstrations)
    else:
        episodes = read_responses(config.text_file, rules)
    if len(episodes) < 2:
        raise ValueError(
            f"there must be at least 2 responses, one to train on and one held out, got {len(episodes)}; add some"
        )
    rollout = as_rollout(episodes, has_masks=bool(rules.metadata["has_masks"]))
    start = TrainConfig(
        config.env_id, config.env_kwargs, model=config.model, model_kwargs=config.model_kwargs, seed=config.seed
    )
    policy = start_policy(start, envs)
    envs.close()
    assert isinstance(policy, LMPolicy)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(json.dumps(asdict(config), indent=1, default=repr) + "\n", encoding="utf-8")
    fit(policy, rollout, config, run_dir / "metrics.jsonl", quiet=quiet)
    write_directory(run_dir / "final", policy.save)
    return run_dir
