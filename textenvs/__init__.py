"""Language generation as Gymnasium environments, token by token. Importing this registers the ids."""

from textenvs.anchors import Anchors, anchors, board
from textenvs.checks import ContractError, check_env
from textenvs.env import TextGenEnv
from textenvs.registration import ENTRIES, Entry, register_envs
from textenvs.rewards import REWARDS, as_reward
from textenvs.rewards.base import FunctionReward, Responses, Reward, RewardError, Scores
from textenvs.rewards.metrics import ExactMatch, LengthMatch, PositionMatch
from textenvs.rules import Rules
from textenvs.task import Problem, Task
from textenvs.tasks import TASKS, make_task
from textenvs.vector_env import TextGenVectorEnv
from textenvs.vocab import CharVocab, TokenizerVocab, Vocab, near_miss, printable
from textenvs.wrappers import Utterances

__version__ = "0.1.0"

__all__ = [
    "ENTRIES",
    "REWARDS",
    "TASKS",
    "Anchors",
    "CharVocab",
    "ContractError",
    "Entry",
    "ExactMatch",
    "FunctionReward",
    "LengthMatch",
    "PositionMatch",
    "Problem",
    "Responses",
    "Reward",
    "RewardError",
    "Rules",
    "Scores",
    "Task",
    "TextGenEnv",
    "TextGenVectorEnv",
    "TokenizerVocab",
    "Utterances",
    "Vocab",
    "anchors",
    "as_reward",
    "board",
    "check_env",
    "make_task",
    "near_miss",
    "printable",
    "register_envs",
]

register_envs()
