"""Tokens a second of `collect` beside transformers' `generate`: `python benchmarks/sampling.py [--sizes 0.1M 1M 135M]`.

Both sides sample the same unmodified model (GPT-2 of random weights, or SmolLM2-135M-Instruct) on the same prompts, as
many rows at a time, at temperature 1 from the whole distribution, on the same number of threads, in turns in one
process. Ours is `agents.rollout.collect` on `textenvs/Copy-v0` (135M: `TextGen-v0` with a constant reward), whose env,
rewards, log-probabilities and values are in our time; `generate` has none of them. Theirs is `model.generate` in
`torch.inference_mode`, with whichever of its dynamic and static caches is quicker in a trial before the turns.

Equal lengths: the end token's logit is -1e9, so that every response has all T tokens; `generate` has no end token.
Ragged lengths: the model's head fixes P(end token) = 4/T at every position, on both sides, so that lengths are
geometric with a mean near T/4, cut at T. `collect` plays `--calls` times as many episodes as it has slots; `generate`
is called as many times with a full batch, and stops as it does, when its last row ends. Useful tokens count: those up
to and including each row's end token.
"""

from __future__ import annotations

import argparse
import os
import string
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from measure import RESULTS, in_turns, machine, record
from torch import Tensor, nn
from transformers import GenerationConfig

import textenvs
from agents.gguf import cache_directory
from agents.lm import LMPolicy
from agents.rollout import collect

#: Layers, width, heads, vocabulary; prompt tokens, T, rows of the batch.
SIZES = {
    "0.1M": ((2, 64, 4, 32), (8, 32, 128)),
    "1M": ((4, 128, 4, 64), (8, 32, 128)),
    "0.8M at 256": ((4, 128, 4, 64), (8, 32, 256)),
    "135M": (None, (8, 24, 16)),
}
BARS = {"0.1M": 1.2, "1M": 1.2, "135M": 1.1}
NEVER = -1e9


class FixedEnd(nn.Module):
    """A head whose end token has a fixed probability (0: never) beside the other tokens' own odds."""

    def __init__(self, head: nn.Module, eos_id: int, probability: float) -> None:
        super().__init__()
        self.head, self.eos_id = head, eos_id
        self.odds = float(np.log(probability / (1 - probability))) if probability else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., d)."""
        logits: Tensor = self.head(hidden)
        logits[..., self.eos_id] = NEVER
        if self.odds is not None:
            logits[..., self.eos_id] = logits.logsumexp(-1) + self.odds
        return logits


class Constant(textenvs.Reward):
    """1.0, whatever the response."""

    name = "constant"

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        """See `textenvs.Reward`."""
        return textenvs.Scores(np.ones(len(responses)))


def setting(size: str, rows: int | None) -> tuple[Any, LMPolicy]:
    """The envs and the policy of one size."""
    shape, (num_prompt, num_new, num_envs) = SIZES[size]
    kwargs: dict[str, Any] = {"num_envs": rows or num_envs, "autoreset_mode": "Disabled", "max_new_tokens": num_new}
    if shape is None:
        folders = sorted(cache_directory().glob("SmolLM2-135M-Instruct*/config.json"))
        if not folders:
            raise SystemExit("SmolLM2-135M-Instruct must be converted first; run examples/smollm2_sentiment.py once")
        folder = folders[0].parent
        vocab = (
            textenvs.TokenizerVocab(folder / "tokenizer.json") if hasattr(textenvs, "TokenizerVocab") else str(folder)
        )
        prompts = ["The film that we saw last night was", "My friends and I went to see the"]
        envs = gym.make_vec(
            "TextGen-v0", vocab=vocab, prompts=prompts, reward=Constant(), max_prompt_tokens=num_prompt, **kwargs
        )
        return envs, LMPolicy.from_pretrained(folder, envs.metadata["textgen"])
    num_layers, width, num_heads, vocabulary = shape
    alphabet = (string.ascii_letters + string.digits)[: vocabulary - 2]
    envs = gym.make_vec("textenvs/Copy-v0", length=num_prompt - 1, alphabet=alphabet, **kwargs)
    policy = LMPolicy.from_config(
        envs.metadata["textgen"], hidden_size=width, num_layers=num_layers, num_heads=num_heads, seed=0
    )
    return envs, policy


def prompts_of(envs: Any) -> Tensor:
    """One prompt a row (N, P), as the env starts them."""
    metadata = envs.metadata["textgen"]
    observations = envs.reset(seed=0)[0]
    prompts = torch.from_numpy(observations[:, : metadata["max_prompt_tokens"]])
    assert (prompts < metadata["num_tokens"]).all(), "prompts must be of equal length"
    return prompts.clone()


def generator(policy: LMPolicy, envs: Any, *, cache: str, ragged: bool, calls: int) -> Callable[[], float]:
    """A function that runs `generate` and returns useful tokens a second."""
    metadata = envs.metadata["textgen"]
    prompts, end = prompts_of(envs), metadata["eos_id"]
    limits = {"max_new_tokens": metadata["max_new_tokens"]}
    if not ragged:
        limits["min_new_tokens"] = metadata["max_new_tokens"]
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        use_cache=True,
        cache_implementation=cache,
        eos_token_id=end if ragged else None,
        pad_token_id=end,
        **limits,
    )
    seen = torch.ones_like(prompts)

    @torch.inference_mode()
    def run() -> float:
        useful, started = 0, time.perf_counter()
        for _ in range(calls):
            out = policy.model.generate(prompts, attention_mask=seen, generation_config=config)[:, prompts.shape[1] :]
            # An end token is useful, the padding after it (which is the end token too) is not.
            useful += out.numel() - int((out[:, :-1] == end).cummax(1).values.sum()) if ragged else out.numel()
        return useful / (time.perf_counter() - started)

    return run


def compare(size: str, *, ragged: bool, rows: int | None, calls: int, repeats: int, out: Any) -> None:
    """Measure one row of the table."""
    envs, policy = setting(size, rows)
    metadata = envs.metadata["textgen"]
    head = policy.model.get_output_embeddings()
    probability = 4 / metadata["max_new_tokens"] if ragged else 0.0
    policy.model.set_output_embeddings(FixedEnd(head, metadata["eos_id"], probability))
    policy.model.generation_config = GenerationConfig(pad_token_id=metadata["eos_id"])
    first = 0

    def ours() -> float:
        nonlocal first
        started = time.perf_counter()
        rollout = collect(envs, policy, num_episodes=calls * envs.num_envs, seed=0, first_episode=first)
        seconds = time.perf_counter() - started
        first += calls * envs.num_envs
        return int(rollout.mask.sum()) / seconds

    theirs = {name: generator(policy, envs, cache=name, ragged=ragged, calls=calls) for name in ("dynamic", "static")}
    trial = {name: max(run() for _ in range(3)) for name, run in theirs.items()}
    best = max(trial, key=trial.__getitem__)
    ours()
    pairs = in_turns(ours, theirs[best], repeats)
    num_prompt, num_new = metadata["max_prompt_tokens"], metadata["max_new_tokens"]
    lengths = f"geometric of mean {num_new // 4} cut at {num_new}" if ragged else num_new
    case = f"{size}, batch {envs.num_envs}, {num_prompt} + {lengths} tokens"
    record(
        "sampling, ragged" if ragged else "sampling",
        case,
        pairs,
        unit="tokens/s",
        peer=f"generate with its {best} cache",
        bar=2.0 if ragged else BARS.get(size),
        threads=torch.get_num_threads(),
        out=out,
    )


def main() -> None:
    """Print a line a comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["0.1M", "1M", "0.8M at 256"], choices=list(SIZES))
    parser.add_argument("--lengths", nargs="+", default=["equal", "ragged"], choices=["equal", "ragged"])
    parser.add_argument("--rows", type=int, help="of the batch, instead of the size's own")
    parser.add_argument("--calls", type=int, default=4, help="of generate a turn, where lengths are ragged")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-csv", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{machine()}; {arguments.threads} threads; load {os.getloadavg()[0]:.1f}")
    for size in arguments.sizes:
        for lengths in arguments.lengths:
            ragged = lengths == "ragged"
            calls = arguments.calls if ragged else 1
            out = None if arguments.no_csv else RESULTS
            compare(size, ragged=ragged, rows=arguments.rows, calls=calls, repeats=arguments.repeats, out=out)


if __name__ == "__main__":
    main()
