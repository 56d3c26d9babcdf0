"""Language generation as Gymnasium environments, token by token. Importing this registers the ids."""

from textenvs.registration import ENTRIES, Entry, register_envs
from textenvs.rewards import REWARDS
from textenvs.rewards.base import FunctionReward, Responses, Reward, Scores
from textenvs.rewards.metrics import ExactMatch, LengthMatch, PositionMatch
from textenvs.task import Problem, Task
from textenvs.tasks import TASKS, make_task
from textenvs.vocab import CharVocab, TokenizerVocab, Vocab

__version__ = "0.1.0"

__all__ = [
    "ENTRIES",
    "REWARDS",
    "TASKS",
    "CharVocab",
    "Entry",
    "ExactMatch",
    "FunctionReward",
    "LengthMatch",
    "PositionMatch",
    "Problem",
    "Responses",
    "Reward",
    "Scores",
    "Task",
    "TokenizerVocab",
    "Vocab",
    "make_task",
    "register_envs",
]

register_envs()
