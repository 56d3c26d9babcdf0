"""Language generation as Gymnasium environments, token by token. Importing this registers the ids."""

import importlib
import typing

from textenvs.anchors import Anchors, anchors, board, check_references
from textenvs.checks import ContractError, check_env
from textenvs.env import TextGenEnv
from textenvs.registration import ENTRIES, Entry, register_envs
from textenvs.rewards import REWARDS, as_reward
from textenvs.rewards.base import FunctionReward, Responses, Reward, RewardError, Scores
from textenvs.rewards.classifiers import SentimentReward, SklearnReward, VaderReward
from textenvs.rewards.fluency import DistinctN, LengthRange, ReadingEase, ReadingGrade, RepetitionN
from textenvs.rewards.metrics import ExactMatch, LengthMatch, PositionMatch
from textenvs.rewards.pretrained import LogProb, PretrainedClassifier
from textenvs.rewards.references import Bleu, ChrF, EditSimilarity, PrefixMatch, Rouge1, Rouge2, RougeL, TokenF1
from textenvs.rules import Rules
from textenvs.strict_json import JSON_LINE, JsonLimits, read_json
from textenvs.task import Problem, Task
from textenvs.tasks import TASKS, make_task
from textenvs.vector_env import TextGenVectorEnv
from textenvs.vocab import CharVocab, TokenizerVocab, Vocab, near_miss, printable
from textenvs.wrappers import Utterances

if typing.TYPE_CHECKING:
    from textenvs.rewards import JsonMatch, JsonSchema, Language, MathAnswer, PythonProgram, Regex, ValidJson, Words

__version__ = "0.1.0"

__all__ = [
    "ENTRIES",
    "JSON_LINE",
    "REWARDS",
    "TASKS",
    "Anchors",
    "Bleu",
    "CharVocab",
    "ChrF",
    "ContractError",
    "DistinctN",
    "EditSimilarity",
    "Entry",
    "ExactMatch",
    "FunctionReward",
    "JsonLimits",
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
    "Problem",
    "PythonProgram",
    "ReadingEase",
    "ReadingGrade",
    "Regex",
    "RepetitionN",
    "Responses",
    "Reward",
    "RewardError",
    "Rouge1",
    "Rouge2",
    "RougeL",
    "Rules",
    "Scores",
    "SentimentReward",
    "SklearnReward",
    "Task",
    "TextGenEnv",
    "TextGenVectorEnv",
    "TokenF1",
    "TokenizerVocab",
    "Utterances",
    "VaderReward",
    "ValidJson",
    "Vocab",
    "Words",
    "anchors",
    "as_reward",
    "board",
    "check_env",
    "check_references",
    "make_task",
    "near_miss",
    "printable",
    "read_json",
    "register_envs",
]

if not typing.TYPE_CHECKING:  # which would take every name for one of this module's

    def __getattr__(name: str) -> type:
        """The rewards that need processes and libraries of their own, loaded when asked for: 25 of 80 ms."""
        if name in __all__:
            return getattr(importlib.import_module("textenvs.rewards"), name)
        raise AttributeError(f"module 'textenvs' has no attribute {name!r}")

    def __dir__() -> list[str]:
        """What is loaded, and what is loaded when asked for."""
        return sorted({*globals(), *__all__})


register_envs()
