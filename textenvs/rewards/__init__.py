"""Rewards by name. A new one is a class in a module of this package and a line in the table."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from textenvs.rewards.base import FunctionReward, Reward
from textenvs.vocab import near_miss

if TYPE_CHECKING:
    from textenvs.rewards.checkers import Language, Regex, Words
    from textenvs.rewards.classifiers import SentimentReward, SklearnReward, VaderReward
    from textenvs.rewards.fluency import DistinctN, LengthRange, ReadingEase, ReadingGrade, RepetitionN
    from textenvs.rewards.json_checks import JsonMatch, JsonSchema, ValidJson
    from textenvs.rewards.maths import MathAnswer
    from textenvs.rewards.metrics import ExactMatch, LengthMatch, PositionMatch
    from textenvs.rewards.pretrained import LogProb, PretrainedClassifier
    from textenvs.rewards.programs import PythonProgram
    from textenvs.rewards.references import Bleu, ChrF, EditSimilarity, PrefixMatch, Rouge1, Rouge2, RougeL, TokenF1

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

#: Rewards without a name: they need settings.
_UNNAMED = (
    *("textenvs.rewards.classifiers:SklearnReward", "textenvs.rewards.pretrained:PretrainedClassifier"),
    *("textenvs.rewards.fluency:LengthRange", "textenvs.rewards.fluency:ReadingGrade"),
)

__all__ = [
    "REWARDS",
    "Bleu",
    "ChrF",
    "DistinctN",
    "EditSimilarity",
    "ExactMatch",
    "FunctionReward",
    "JsonMatch",
    "JsonSchema",
    "Language",
    "LengthMatch",
    "LengthRange",
    "LogProb",
    "MathAnswer",
    "PositionMatch",
    "PrefixMatch",
    "PretrainedClassifier",
    "PythonProgram",
    "ReadingEase",
    "ReadingGrade",
    "Regex",
    "RepetitionN",
    "Reward",
    "Rouge1",
    "Rouge2",
    "RougeL",
    "SentimentReward",
    "SklearnReward",
    "TokenF1",
    "VaderReward",
    "ValidJson",
    "Words",
    "as_reward",
]

if not TYPE_CHECKING:  # which would take every name for one of this module's

    def __getattr__(name: str) -> Any:
        """The class of a reward, loaded when asked for."""
        for path in (*REWARDS.values(), *_UNNAMED):
            module, _, known = path.partition(":")
            if name == known:
                return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
            raise ValueError(
                f"reward must be a known name, got {reward!r}; {near_miss(reward, list(REWARDS))}; a function fn "
                "of your own is no name: in my.py, textenvs.register_envs([textenvs.Entry('My-v0', 'mine', "
                "{'task': 'sort', 'reward': fn})]), then `textenvs train my:My-v0`"
            )
        module, name = REWARDS[reward].split(":")
        instance: Reward = getattr(import_module(module), name)()
        return instance
    if isinstance(reward, type) or not callable(reward):
        raise TypeError(f"reward must be a name, a function or a Reward, got {reward!r}; pass an instance")
    return FunctionReward(reward)
