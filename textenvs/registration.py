"""The one table of ids. Importing `textenvs` registers them; a new task is a row here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym


@dataclass(frozen=True)
class Entry:
    """One registered id.

    Attributes:
        id: what `gym.make` takes.
        family: the group it is listed under.
        kwargs: keyword arguments of `TextGenEnv`, JSON-able unless a task of your own is among them: its class, so that
            its settings are arguments of the env, or an object.
        reward_threshold: mean return at which the env counts as solved, or None.
    """

    id: str
    family: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    reward_threshold: float | None = None


ENTRIES = (
    Entry("TextGen-v0", "text"),
    Entry("textenvs/Copy-v0", "strings", {"task": "copy"}, 0.95),
    Entry("textenvs/Reverse-v0", "strings", {"task": "reverse"}, 0.95),
    Entry("textenvs/Sort-v0", "strings", {"task": "sort"}, 0.95),
    Entry("textenvs/Count-v0", "strings", {"task": "count"}, 0.95),
    Entry("textenvs/Length-v0", "strings", {"task": "length"}, 0.95),
    Entry("textenvs/Addition-v0", "strings", {"task": "addition"}, 0.95),
    Entry("textenvs/Parity-v0", "strings", {"task": "parity"}, 0.95),
    Entry("textenvs/CharCount-v0", "strings", {"task": "char_count"}, 0.95),
    Entry("textenvs/Brackets-v0", "strings", {"task": "brackets"}, 0.95),
    Entry("textenvs/Dates-v0", "strings", {"task": "dates"}, 0.95),
    Entry("textenvs/IncreasingNumbers-v0", "strings", {"task": "increasing_numbers"}, 0.95),
    Entry("textenvs/RandomWalk-v0", "graphs", {"task": "random_walk"}, 0.95),
    Entry("textenvs/JsonRequest-v0", "structured", {"task": "json_request"}, 0.95),
    Entry("textenvs/RegularLanguage-v0", "structured", {"task": "regular_language"}, 0.95),
    Entry("textenvs/Countdown-v0", "structured", {"task": "countdown"}, 0.95),
    Entry("textenvs/Translate-v0", "text", {"task": "translate"}, 0.9),
    Entry("textenvs/ConstrainedRewrite-v0", "text", {"task": "constrained_rewrite"}, 0.9),
    Entry("textenvs/StyleTransfer-v0", "text", {"task": "style_transfer"}, 0.9),
    Entry("textenvs/Summarize-v0", "text", {"task": "summarize"}, 0.5),
    Entry("textenvs/QuestionAnswering-v0", "text", {"task": "question_answering"}, 0.9),
    Entry("textenvs/PythonFunction-v0", "code", {"task": "python_function"}, 0.9),
    Entry("textenvs/WordProblem-v0", "maths", {"task": "word_problem"}, 0.9),
    Entry("textenvs/GuessNumber-v0", "games", {"task": "guess_number"}, 0.95),
    Entry("textenvs/SlotFilling-v0", "games", {"task": "slot_filling"}, 0.95),
    Entry("textenvs/TwentyQuestions-v0", "games", {"task": "twenty_questions"}, 0.95),
    Entry("textenvs/Wordle-v0", "games", {"task": "wordle"}, 0.95),
    Entry("textenvs/ReasoningGym-v0", "adapters", {"task": "reasoning_gym"}, 0.95),
    Entry("textenvs/Dataset-v0", "adapters", {"task": "dataset"}, 0.95),
)


def register_envs(entries: Iterable[Entry] = ENTRIES) -> None:
    """Register every entry that is not registered yet, with its scalar and its batch env."""
    for entry in entries:
        if entry.id not in gym.registry:
            gym.register(
                entry.id,
                entry_point="textenvs.env:TextGenEnv",
                vector_entry_point="textenvs.vector_env:TextGenVectorEnv",
                kwargs=entry.kwargs,
                reward_threshold=entry.reward_threshold,
                # Both wrappers say again, at every step, what the env says itself; `check_env` checks the rest once.
                order_enforce=False,
                disable_env_checker=True,
            )
