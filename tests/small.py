"""A small ragged task and tiny language models that the agents' tests share."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

import textenvs
from agents.lm import LMPolicy

PROMPTS = ("a", "bcd", "dcbad", "abcdabcdabcdabcd", "cc")


class Ragged(textenvs.Task):
    """Prompts of 1 to 16 tokens; "d" ends a turn, the first of which is answered by "ab"; masks forbid some tokens.

    The reward is the share of the letter "a", so that it varies.
    """

    vocab = textenvs.CharVocab("abcdefgh")
    max_new_tokens = 9
    has_masks = True

    def __init__(self, *, split: str = "all") -> None:
        self.reward = textenvs.FunctionReward(lambda problem, text: text.count("a") / (1 + len(text)))

    def __len__(self) -> int:
        return len(PROMPTS)

    def __getitem__(self, k: int) -> textenvs.Problem:
        return textenvs.Problem(PROMPTS[k])

    def legal(self, problem: textenvs.Problem, token_ids: Sequence[int]) -> Any:
        mask = np.ones(self.vocab.num_tokens, bool)
        mask[[4, 5 + len(token_ids) % 2]] = False
        return mask

    def reply(self, problem: textenvs.Problem, turns: Sequence[str]) -> str | None:
        return "ab" if len(turns) == 1 else None


def ragged_envs(num_envs: int, **kwargs: Any) -> Any:
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode="Disabled", task=Ragged(), stop=["d"], **kwargs)


def string_envs(name: str = "Copy", num_envs: int = 8, **kwargs: Any) -> Any:
    settings = {"length": 2, "alphabet": "abcd", "dense": True} | kwargs
    return gym.make_vec(f"textenvs/{name}-v0", num_envs=num_envs, autoreset_mode="Disabled", **settings)


def tiny_lm(envs: Any, architecture: str = "gpt2", seed: int = 0, **kwargs: Any) -> LMPolicy:
    settings = {"hidden_size": 16, "num_heads": 2, "architecture": architecture} | kwargs
    return LMPolicy.from_config(envs.metadata["textgen"], seed=seed, **settings)
