"""Peak memory of a PPO iteration with SmolLM2-135M and LoRA: 64 episodes of 64 tokens, 49,152 symbols.

    python benchmarks/memory.py                         # several minutes, 2 to 8 GB

Ours never holds an array of tokens x vocabulary larger than `agents.lm.MAX_LOGITS_BYTES`; the other side is the same
iteration with naive logits, one log_softmax over all 4,096 tokens. One epoch of one minibatch, so that an optimizer
step sees them all; a process of its own for each side and repeat, whose peak RSS the kernel tells. The first run of
ours also watches every operation for the largest array with an entry for each symbol.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from grpo_trl import PROMPTS, model_directory
from measure import RESULTS, in_turns, machine, record

EPISODES, NEW_TOKENS, RANK = 64, 64, 8


def main() -> None:
    """Measure both sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-csv", action="store_true", help="print only")
    parser.add_argument("--iterate", choices=("ours", "naive", "watched"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.iterate:
        print(json.dumps(iterate(arguments.iterate, arguments.threads)))
        return
    print(f"{machine()}, {arguments.threads} threads", flush=True)

    def ask(side: str) -> Mapping[str, float]:
        command = [sys.executable, __file__, "--iterate", side, "--threads", str(arguments.threads)]
        found: Mapping[str, float] = json.loads(subprocess.run(command, stdout=-1, check=True).stdout)
        print(f"  {side}: {found}", flush=True)
        return found

    watched = ask("watched")
    if watched["largest_mb"] > watched["limit_mb"]:
        raise RuntimeError(f"no array of tokens x vocabulary may pass {watched['limit_mb']} MB, got {watched}")
    pairs = in_turns(lambda: ask("ours")["peak_mb"], lambda: ask("naive")["peak_mb"], arguments.repeats)
    out = None if arguments.no_csv else RESULTS
    record("memory", "PPO, LoRA", pairs, unit="MB", peer="naive logits", bar=None, threads=arguments.threads, out=out)


def iterate(side: str, threads: int) -> dict[str, float]:
    """Play and learn once; return megabytes (2^20): the process's peak, before and after, and the largest array."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    import agents.lm
    import textenvs
    from agents.algorithms import ALGORITHMS
    from agents.kernels import keep_freed_memory
    from agents.lora import LoraSettings
    from agents.rollout import collect
    from agents.train import TrainConfig, make_envs, make_optimizer, start_policy
    from agents.update import make_batch, optimize, rollout_log_probs

    class Watch(TorchDispatchMode):
        """Notes the bytes of the largest array of at least one token x vocabulary."""

        largest = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else (out,):
                # Weights are (vocabulary, width): only what has the vocabulary last holds something of each symbol.
                if isinstance(x, torch.Tensor) and x.dim() > 1 and x.shape[-1] == num_tokens and x._base is None:
                    self.largest = max(self.largest, x.untyped_storage().nbytes())
            return out

    def naive(policy: Any, hidden: torch.Tensor, actions: torch.Tensor, legal: Any) -> tuple[torch.Tensor, ...]:
        log_probs = policy._log_probs(hidden, legal)
        return log_probs.gather(-1, actions[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)

    torch.set_num_threads(threads)
    keep_freed_memory()  # as `train` does
    model = str(model_directory())
    algorithm = replace(ALGORITHMS["ppo"], episodes_per_update=EPISODES, num_epochs=1, num_minibatches=1, kl_coef=0.02)
    kwargs = {
        "vocab": textenvs.TokenizerVocab(model, eos="<filename>"),  # out of reach: all episodes are equally long
        "prompts": list(PROMPTS),
        "split": "all",
        "max_new_tokens": NEW_TOKENS,
        "reward": lambda problem, text: text.count("e") / (1 + len(text)),
    }
    config = TrainConfig("TextGen-v0", kwargs, algorithm, model=model, lora=LoraSettings(RANK, 2.0 * RANK))
    envs = make_envs(config.env_id, EPISODES, config.env_kwargs)
    num_tokens = envs.metadata["textgen"]["num_tokens"]
    if side == "naive":
        agents.lm.LMPolicy._score = naive  # type: ignore[assignment, method-assign]
    policy: Any = start_policy(config, envs)
    reference = policy.frozen_copy()
    optimizer = make_optimizer(policy, algorithm)
    before = peak()
    watch = Watch()
    with watch if side == "watched" else nullcontext():
        rollout = collect(envs, policy, num_episodes=EPISODES, seed=0)
        batch = make_batch(rollout, algorithm, rollout_log_probs(reference, rollout))
        optimize(policy, optimizer, batch, algorithm, seed=0, update=0)
    if int(rollout.mask.sum()) != EPISODES * NEW_TOKENS:
        raise RuntimeError(f"every episode must have {NEW_TOKENS} tokens, got {rollout.lengths}")
    found = {"peak_mb": peak(), "loaded_mb": before}
    if side == "watched":
        found |= {"largest_mb": watch.largest / 2**20, "limit_mb": agents.lm.MAX_LOGITS_BYTES / 2**20}
    return {name: round(value, 1) for name, value in found.items()}


def peak() -> float:
    """Return the process's largest resident set so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
