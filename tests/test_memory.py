"""What an iteration holds at once, counted in bytes."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from small import tiny_lm
from torch.utils._python_dispatch import TorchDispatchMode

import agents.lm
import textenvs
from agents.algorithms import ALGORITHMS
from agents.rollout import collect
from agents.train import make_optimizer
from agents.update import make_batch, optimize, rollout_log_probs

ROWS, WIDTH = 24, 16  # no part of an iteration has WIDTH rows


class Widest(TorchDispatchMode):
    """Bytes of the largest array with a floating entry for each token of the vocabulary."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens, self.bytes = num_tokens, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            # The head's own weights are (V, WIDTH), and transposed for its products.
            of_tokens = isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim > 1 and x.shape[-2] != WIDTH
            if of_tokens and x.shape[-1] == self.num_tokens:
                self.bytes = max(self.bytes, x.numel() * x.element_size())
        return out


def test_no_part_of_an_iteration_holds_more_logits_than_stated(monkeypatch):
    """Sampling with its float64 CDF, the reference, the update with its entropy, the check after it; same results."""
    symbols = "".join(chr(0x4E00 + i) for i in range(400))
    kwargs = {"vocab": textenvs.CharVocab(symbols), "prompts": list(symbols[:4]), "split": "all", "max_new_tokens": 3}
    envs = gym.make_vec(
        "TextGen-v0", num_envs=ROWS, autoreset_mode="Disabled", reward=lambda problem, text: len(text), **kwargs
    )
    found = []
    for limit in (2**28, 8 * 401 * 5):
        monkeypatch.setattr(agents.lm, "MAX_LOGITS_BYTES", limit)
        policy = tiny_lm(envs, hidden_size=WIDTH)
        reference = policy.frozen_copy()
        with Widest(policy.num_tokens) as widest:
            rollout = collect(envs, policy, num_episodes=ROWS, seed=0)
            batch = make_batch(rollout, ALGORITHMS["ppo"], rollout_log_probs(reference, rollout))
            optimizer = make_optimizer(policy, ALGORITHMS["ppo"])
            optimize(policy, optimizer, batch, ALGORITHMS["ppo"], seed=0, update=0)
        found.append((rollout, widest.bytes))
    (whole, most), (parts, least) = found
    assert most == 3 * ROWS * 401 * 4  # all decisions of the update
    assert least == 8 * 401 * 5
    assert np.array_equal(whole.actions, parts.actions)
    np.testing.assert_allclose(whole.log_probs, parts.log_probs, atol=1e-6)
