"""Rewards by name. A new one is a class in a module of this package and a line in the table."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from textenvs.rewards.base import FunctionReward, Reward
from textenvs.vocab import near_miss

#: name -> "module:Class"; loaded when asked for, because some need a file or a library.
REWARDS = {
    "exact_match": "textenvs.rewards.metrics:ExactMatch",
    "position_match": "textenvs.rewards.metrics:PositionMatch",
    "length_match": "textenvs.rewards.metrics:LengthMatch",
    "prefix_match": "textenvs.rewards.references:PrefixMatch",
    "edit_similarity": "textenvs.rewards.references:EditSimilarity",
    "token_f1": "textenvs.rewards.references:TokenF1",
    "bleu": "textenvs.rewards.references:Bleu",
    "chrf": "textenvs.rewards.references:ChrF",
    "rouge1": "textenvs.rewards.references:Rouge1",
    "rouge2": "textenvs.rewards.references:Rouge2",
    "rougeL": "textenvs.rewards.references:RougeL",
    "sentiment": "textenvs.rewards.classifiers:SentimentReward",
    "vader": "textenvs.rewards.classifiers:VaderReward",
    "regex": "textenvs.rewards.checkers:Regex",
    "words": "textenvs.rewards.checkers:Words",
    "language": "textenvs.rewards.checkers:Language",
    "json": "textenvs.rewards.json_checks:ValidJson",
    "json_match": "textenvs.rewards.json_checks:JsonMatch",
    "json_schema": "textenvs.rewards.json_checks:JsonSchema",
    "math_answer": "textenvs.rewards.maths:MathAnswer",
    "python_program": "textenvs.rewards.programs:PythonProgram",
    "log_prob": "textenvs.rewards.pretrained:LogProb",
    "distinct_2": "textenvs.rewards.fluency:DistinctN",
    "repetition_4": "textenvs.rewards.fluency:RepetitionN",
    "reading_ease": "textenvs.rewards.fluency:ReadingEase",
}


def as_reward(reward: Reward | str | Callable[..., float]) -> Reward:
    """A `Reward` as given, by name, or lifted from a plain function of (problem, text).

    Raises:
        ValueError: no reward has that name.
        TypeError: neither a name, a function nor a Reward.
    """
    if isinstance(reward, Reward):
        return reward
    if isinstance(reward, str):
        if reward not in REWARDS:
            raise ValueError(f"reward must be a known name, got {reward!r}; {near_miss(reward, list(REWARDS))}")
        module, name = REWARDS[reward].split(":")
        instance: Reward = getattr(import_module(module), name)()
        return instance
    if isinstance(reward, type) or not callable(reward):
        raise TypeError(f"reward must be a name, a function or a Reward, got {reward!r}; pass an instance")
    return FunctionReward(reward)
