"""Seconds of a PPO epoch beside SB3's, cost per token over lengths, and FLOP/s beside those of the bare matmuls.

    python benchmarks/update.py --sizes 0.1M 0.8M 11M

Row "update". Ours is `make_batch` and `optimize`, all of it; the other side is `stable_baselines3.PPO.train()`, its own
code, on the same episodes replayed into its `RolloutBuffer`: the same LM (weights and heads; the log-probabilities of
both sides are compared first) as features extractor, one prefix a decision, cut to the longest of its minibatch; one
epoch, as many decisions a minibatch as ours, the same fused Adam, no log. An episode has a prompt of 8 tokens and a
response of 32, uniform without the end token, so that all have equal lengths and no side pads more than it must. The
cases of 64 and 128 tokens compare ours with itself at 32: decisions a second, as many decisions a minibatch.

Row "update against the limit". FLOPs are 6 for each weight of a linear map and token (2 forward, 4 backward): 6N a
token, N being the weights multiplied per token (Kaplan et al. 2020, arXiv:2001.08361), with the head for the tokens
that were chosen only and without the embedding table. Attention's 12 L d S a token, which PaLM's count adds
(arXiv:2204.02311, appendix B; printed beside), normalization, activation, optimizer and the check of sanity take time
and count nothing. As in PaLM's count it is the model's work that counts, however it is done: the limit is bare
products, forward and both backward ones, of the shapes in which the model's own modules pass all tokens of one
minibatch. Ours runs fewer rows: a beginning that several episodes share once, and of a token that chose nothing no more
than the last layer's keys and values. The cases "rows that run" count and multiply those only. The prompts are four, or
"own prompts", one an episode.

An update is one optimizer step on 16 episodes, or on 64, beside which what is paid once a step, such as Adam's, weighs
less; in wider layers what is paid once a number, such as an activation's, weighs less beside their products. Each
product of the limit is by MKL (`torch.mm`) or oneDNN, whichever is quicker for it, and each again and again on the same
operands, which stay in the processor's cache as those of an update cannot.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from measure import RESULTS, in_turns, machine, record
from numpy.random import Generator
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import agents.forward
import textenvs
from agents.algorithms import ALGORITHMS, Algorithm
from agents.kernels import keep_freed_memory
from agents.lm import LMPolicy
from agents.policy import Decisions, RandomPolicy
from agents.rollout import Rollout, collect
from agents.sb3 import SB3VecEnv
from agents.update import accumulate_gradients, make_batch, minibatches, optimize

ROW, LIMIT = "update", "update against the limit"
PROMPTS, OWN = ("abcdefgh", "hgfedcba", "aabbccdd", "hhggffee"), ", own prompts"
#: name -> (architecture, hidden_size, num_layers, num_heads), episodes of 32 tokens an update, minibatches.
SIZES: dict[str, tuple[tuple[str, int, int, int], int, int]] = {
    "0.1M": (("gpt2", 64, 2, 4), 64, 4),
    "0.8M": (("gpt2", 128, 4, 4), 64, 4),
    "11M": (("gpt2", 384, 6, 6), 16, 1),
    "14M llama": (("llama", 384, 6, 6), 16, 1),
    "11M, 64 episodes": (("gpt2", 384, 6, 6), 64, 1),
    "14M llama, 64 episodes": (("llama", 384, 6, 6), 64, 1),
    "25M": (("gpt2", 512, 8, 8), 16, 1),
    "33M llama": (("llama", 512, 8, 8), 16, 1),
    "85M": (("gpt2", 768, 12, 12), 16, 1),
    "113M llama": (("llama", 768, 12, 12), 16, 1),
}
SIZES |= {size + OWN: SIZES[size] for size in tuple(SIZES)[2:8]}
LARGE = tuple(SIZES)[2:]  # 10M parameters or more: where the limit counts
LENGTHS = (64, 128)
Shape = tuple[int, int, int]
LEARNING_RATE = 1e-5  # so small that a hundred updates on the same data break nothing


class Endless(RandomPolicy):
    """Uniform over all tokens but the end."""

    def __init__(self, num_actions: int, eos_id: int) -> None:
        super().__init__(num_actions)
        self.going_on = np.arange(num_actions) != eos_id

    def act(
        self,
        observations: NDArray[Any],
        rows: NDArray[np.int64],
        legal: NDArray[np.bool_] | None,
        rngs: Sequence[Generator],
        *,
        greedy: bool = False,
    ) -> Decisions:
        """Draw as `RandomPolicy` does."""
        return super().act(observations, rows, np.tile(self.going_on, (len(rows), 1)), rngs)


class Extractor(BaseFeaturesExtractor):  # type: ignore[misc]
    """The hidden state of a prefix's last token: (B, P + T) ids, V where empty -> (B, d)."""

    def __init__(self, observation_space: gym.spaces.Box, model: Any) -> None:
        super().__init__(observation_space, model.config.hidden_size)
        self.trunk = copy.deepcopy(model.base_model)
        self.empty = int(observation_space.high.max())

    def forward(self, observations: Tensor) -> Tensor:
        """One causal forward without a mask: the prompts of this benchmark fill their slots."""
        ids = observations.long()
        lengths = (ids != self.empty).sum(1)
        ids = ids[:, : int(lengths.max())]
        hidden: Tensor = self.trunk(torch.where(ids == self.empty, 0, ids), use_cache=False).last_hidden_state
        return hidden[torch.arange(len(ids)), lengths - 1]


def played(size: str, num_tokens: int = 32) -> tuple[LMPolicy, Rollout, Algorithm]:
    """An LM, episodes of num_tokens decisions each with what it thinks of them, and how to learn from them."""
    shape, num_episodes, num_minibatches = SIZES[size]
    num_episodes = num_episodes * 32 // num_tokens
    prompts = ["".join(letters) for letters in permutations("abcdefgh")] if size.endswith(OWN) else PROMPTS
    envs = make_envs(num_tokens, num_episodes, AutoresetMode.DISABLED, prompts)
    metadata = envs.metadata["textgen"]
    names = ("architecture", "hidden_size", "num_layers", "num_heads")
    policy = LMPolicy.from_config(metadata, **dict(zip(names, shape, strict=True)), init_std=0.02, seed=0)
    endless = Endless(metadata["num_tokens"], metadata["eos_id"])
    rollout = collect(envs, endless, num_episodes=num_episodes, seed=0)
    assert rollout.mask.shape[1] == num_tokens
    assert rollout.mask.all()
    with torch.no_grad():
        log_probs, values, _ = policy.evaluate(rollout, np.arange(num_episodes))
    algorithm = replace(ALGORITHMS["ppo"], num_epochs=1, num_minibatches=num_minibatches, learning_rate=LEARNING_RATE)
    return policy, replace(rollout, log_probs=log_probs.numpy(), values=values.numpy()), algorithm


def make_envs(num_tokens: int, num_envs: int, mode: AutoresetMode, prompts: Sequence[str] = PROMPTS) -> Any:
    """Prompts of 8 tokens and responses of at most num_tokens, whose score is the share of one symbol."""
    return gym.make_vec(
        "TextGen-v0",
        num_envs,
        autoreset_mode=mode,
        prompts=prompts,
        vocab=textenvs.CharVocab("abcdefgh"),
        reward=textenvs.FunctionReward(lambda problem, text: text.count("a") / (1 + len(text))),
        max_new_tokens=num_tokens,
        split="all",
    )


def ours(policy: LMPolicy, rollout: Rollout, algorithm: Algorithm) -> Callable[[], float]:
    """Seconds of one update, as `train` makes it."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE, eps=algorithm.adam_epsilon, fused=True)

    def update() -> float:
        started = time.perf_counter()
        optimize(policy, optimizer, make_batch(rollout, algorithm), algorithm, seed=0, update=0)
        return time.perf_counter() - started

    return update


def sb3(policy: LMPolicy, rollout: Rollout, algorithm: Algorithm) -> Callable[[], float]:
    """Seconds of SB3's `train()` on the same episodes."""
    num_envs, num_steps = rollout.mask.shape
    first = policy.prompt_slots
    agent = PPO(
        "MlpPolicy",
        SB3VecEnv(make_envs(num_steps, num_envs, AutoresetMode.SAME_STEP)),
        n_steps=num_steps,
        batch_size=num_envs * num_steps // algorithm.num_minibatches,
        n_epochs=1,
        learning_rate=LEARNING_RATE,
        gamma=algorithm.gamma,
        gae_lambda=algorithm.gae_lambda,
        ent_coef=algorithm.entropy_coef,
        vf_coef=algorithm.value_coef,
        max_grad_norm=algorithm.max_grad_norm,
        policy_kwargs={
            "features_extractor_class": Extractor,
            "features_extractor_kwargs": {"model": policy.model},
            "net_arch": [],
            "ortho_init": False,
            "optimizer_kwargs": {"eps": algorithm.adam_epsilon, "fused": True},
        },
        device="cpu",
        seed=0,
    )
    agent.set_logger(Logger(folder=None, output_formats=[]))
    heads = agent.policy.action_net, agent.policy.value_net
    with torch.no_grad():
        for head, source in zip(heads, (policy.model.get_output_embeddings(), policy.value_head), strict=True):
            head.weight.copy_(source.weight[: head.out_features])
            head.bias.zero_()
    buffer = agent.rollout_buffer
    for t in range(num_steps):
        prefixes = np.where(
            np.arange(rollout.observations.shape[1]) < first + t, rollout.observations, policy.num_tokens
        )
        actions = rollout.actions[:, t]
        with torch.no_grad():
            values, log_probs, _ = agent.policy.evaluate_actions(torch.from_numpy(prefixes), torch.from_numpy(actions))
        torch.testing.assert_close(log_probs, torch.from_numpy(rollout.log_probs[:, t]), atol=1e-4, rtol=0)
        starts = np.full(num_envs, float(t == 0))
        buffer.add(prefixes, actions, rollout.rewards[:, t], starts, values, log_probs)
    buffer.compute_returns_and_advantage(torch.zeros(num_envs), np.ones(num_envs, bool))

    def train() -> float:
        started = time.perf_counter()
        agent.train()
        return time.perf_counter() - started

    return train


def linear_maps(policy: LMPolicy, rollout: Rollout, algorithm: Algorithm, *, plain: bool) -> Counter[Shape]:
    """(rows, inputs, outputs) of every linear map that one minibatch passes, forward, with how often.

    Plain ones are those of the model's own modules; the others are those that run.
    """
    seen: Counter[Shape] = Counter()

    def note(x: Tensor, result: Tensor) -> Tensor:
        seen[x.numel() // x.shape[-1], x.shape[-1], result.shape[-1]] += 1
        return result

    # The trunk runs without its modules, but under a hook.
    alone = set() if plain else set(policy.model.base_model.modules())
    linear = [module for module in policy.modules() if isinstance(module, nn.Linear | Conv1D) and module not in alone]
    hooks = [module.register_forward_hook(lambda _, given, result: note(given[0], result)) for module in linear]
    rows = minibatches(len(rollout), algorithm.num_minibatches, seed=0, update=0, epoch=0)[0]
    product = agents.forward.linear
    agents.forward.linear = lambda x, *rest: note(x, product(x, *rest))
    accumulate_gradients(policy, make_batch(rollout, algorithm), rows, algorithm)
    agents.forward.linear = product
    for hook in hooks:
        hook.remove()
    return seen


def matmuls(shapes: Counter[Shape]) -> Callable[[], float]:
    """Seconds of the bare products of these shapes, forward and backward."""
    calls: list[Callable[[], Tensor]] = []
    for (rows, inputs, outputs), count in shapes.items():
        x, w, y = torch.randn(rows, inputs), torch.randn(inputs, outputs), torch.randn(rows, outputs)
        for one, other in ((x, w), (y, w.T), (x.T, y)):
            calls += [quicker(one, other)] * count

    def multiply() -> float:
        started = time.perf_counter()
        for call in calls:
            call()
        return time.perf_counter() - started

    return multiply


def quicker(one: Tensor, other: Tensor) -> Callable[[], Tensor]:
    """The product by MKL or by oneDNN, whichever took less time at its best of ten."""
    mkl = partial(torch.mm, one, other, out=torch.empty(len(one), other.shape[1]))
    onednn = partial(torch.ops.mkldnn._linear_pointwise.default, one, other.T, None, "none", [], "")

    def seconds(call: Callable[[], Tensor]) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return min((mkl, onednn), key=lambda call: min(seconds(call) for _ in range(10)))


def flops(shapes: Counter[Shape]) -> float:
    """6 for each weight and row: 2 forward and 4 backward."""
    return sum(6.0 * rows * inputs * outputs * count for (rows, inputs, outputs), count in shapes.items())


def beside_sb3(sizes: Sequence[str], repeats: int, out: Any) -> None:
    """Row "update": seconds beside SB3's, then decisions a second beside those at 32 tokens."""
    for size in sizes:
        one, other = ours(*played(size)), sb3(*played(size))
        one(), other()
        pairs = in_turns(one, other, repeats)
        record(ROW, f"{size}, 32 tokens", pairs, unit="s", peer="SB3 PPO.train", bar=20.0, out=out)
    for size in sizes:
        short, num_decisions = played(size), played(size)[1].mask.size
        for num_tokens in LENGTHS:
            long = played(size, num_tokens)
            if len(long[1]) < short[2].num_minibatches:
                continue
            rates = [partial(rate, ours(*side), num_decisions) for side in (long, short)]
            rates[0](), rates[1]()
            pairs = in_turns(rates[0], rates[1], 2 * repeats + 1)
            case = f"{size}, {num_tokens} tokens"
            record(ROW, case, pairs, unit="tokens/s", peer="ours at 32", bar=1 / 1.3, out=out)


def called(*calls: Callable[[], float]) -> list[float]:
    """What each returns, one after another."""
    return [call() for call in calls]


def rate(seconds: Callable[[], float], work: float) -> float:
    """Work a second."""
    return work / seconds()


def beside_the_limit(sizes: Sequence[str], repeats: int, out: Any) -> None:
    """Row "update against the limit"."""
    for size in sizes:
        policy, rollout, algorithm = played(size)
        shapes, running = (linear_maps(policy, rollout, algorithm, plain=plain) for plain in (True, False))
        work = algorithm.num_minibatches * flops(shapes)
        slots, config = policy.max_tokens - 1, policy.model.config
        attention = 12 * config.num_hidden_layers * config.hidden_size * slots**2 * len(rollout)
        num_weights = sum(x.numel() for x in policy.parameters())
        print(
            f"{size}: {num_weights:,} parameters; attention would add {attention / work:.1%} to the FLOPs, "
            f"of which {flops(running) / flops(shapes):.1%} run"
        )
        update = partial(rate, ours(policy, rollout, algorithm), work / 1e9)
        plain, ran = (partial(rate, matmuls(x), flops(x) / 1e9) for x in (shapes, running))
        for _ in range(3):  # a process's first updates are slower
            update(), plain(), ran()
        turns = in_turns(update, partial(called, plain, ran), repeats)
        bar = 0.7 if size in LARGE else None
        pairs = [(one, limits[0]) for one, limits in turns]
        record(LIMIT, size, pairs, unit="GFLOP/s", peer="bare products", bar=bar, out=out)
        share = flops(running) / flops(shapes)
        pairs = [(share * one, limits[1]) for one, limits in turns]
        record(LIMIT, f"{size}, rows that run", pairs, unit="GFLOP/s", peer="bare products", bar=None, out=out)


def main() -> None:
    """Measure what is asked for, print it and append it to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=("update", "limit"), default=["update", "limit"])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="update: 0.1M 0.8M, limit: the others")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each comparison")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    out = None if arguments.no_csv else RESULTS
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{machine()}; {torch.get_num_threads()} thread")
    if "update" in arguments.rows:
        beside_sb3(arguments.sizes or ("0.1M", "0.8M"), arguments.repeats, out)
    if "limit" in arguments.rows:
        beside_the_limit(arguments.sizes or LARGE, arguments.repeats, out)


if __name__ == "__main__":
    main()
