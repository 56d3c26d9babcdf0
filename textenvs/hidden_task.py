"""What games about something hidden share: a problem is a prompt and one of the things that it may hide.

The games themselves live in `textenvs.tasks`, one file each.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.task import Problem, Task, permuted, split_range

#: A generated task holds at most this many problems.
MAX_PROBLEMS = 40_000
#: Where every prompt with all that it hides would leave fewer prompts than this, each hides a part of it.
MIN_PROMPTS = 20


class HiddenTask(Task):
    """Prompts and what they hide are numbered; the split is by prompt, so no held-out prompt was ever trained on.

    As many prompts as fit 40,000 problems hide as many things each as the one that hides the fewest can, so to know
    what a prompt has hidden before is to know no more than the prompt says. (20 prompts at least: where they could hide
    more than 2,000 things, they hide 2,000 each.) Which ones, where it is not all, starts at a hash of the prompt: what
    other prompts hide says nothing of it.

    What is hidden stands in the problem's metadata and reference, which no observation and no info shows. A prompt of
    the user's own hides what the hash says.

    Args:
        num_prompts: how many prompts there are; the first of a shuffled order are used.
        min_hidden: things that the prompt which hides the fewest may hide.
        split: "train" (the first four fifths of the shuffled prompts), "heldout" or "all".
    """

    def __init__(self, *, num_prompts: int, min_hidden: int, split: str) -> None:
        num_used = min(num_prompts, max(MIN_PROMPTS, MAX_PROBLEMS // min_hidden))
        self._num_prompts = num_prompts
        self._range = split_range(num_used, split)
        #: Problems with each prompt.
        self._num_each = min(min_hidden, MAX_PROBLEMS // num_used)

    @abstractmethod
    def prompt(self, number: int) -> str:
        """Prompt number `number` in [0, num_prompts), one to one."""

    @abstractmethod
    def num_hidden(self, prompt: str) -> int:
        """How many things the prompt may hide.

        Raises:
            ValueError: it is no prompt of this task; names what one looks like.
        """

    @abstractmethod
    def hide(self, prompt: str, number: int) -> Problem:
        """The problem that hides thing number `number` in [0, num_hidden(prompt)), one to one."""

    def __len__(self) -> int:
        return len(self._range) * self._num_each

    def __getitem__(self, k: int) -> Problem:
        # Shuffled, so that neither the first problems nor every tenth are all of few prompts.
        which, turn = divmod(permuted(k, len(self)), self._num_each)
        return self._hide(self.prompt(permuted(self._range[which], self._num_prompts)), turn)

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`."""
        return self._hide(prompt, 0)

    def _hide(self, prompt: str, turn: int) -> Problem:
        """The problem that hides thing number `turn` of a shuffled order, counted from where the prompt's hash says."""
        num = self.num_hidden(prompt)
        start = int.from_bytes(hashlib.sha256(prompt.encode()).digest(), "little")
        return self.hide(prompt, permuted((start + turn) % num, num))


def running_turn(task: Task, problem: Problem, token_ids: Sequence[int]) -> str:
    """The agent's turn so far: what follows the last end token and the reply to that turn.

    Args:
        task: one whose vocabulary spells a character a token, none of them a line break.
        problem: the running problem.
        token_ids: the agent's and the replies', as `Task.legal` has them.
    """
    tokens, eos_id = task.vocab.tokens, task.vocab.eos_id
    text = "".join(["\n" if token == eos_id else tokens[token] for token in token_ids])
    turns: list[str] = []
    start = 0
    while (end := text.find("\n", start)) >= 0:
        turns.append(text[start:end])
        turns.append(task.reply(problem, turns) or "")
        start = end + 1 + len(turns[-1])
    return text[start:]


class Guesses(Reward):
    """1 for the right answer within par turns, less for each one more, 0 for none. Range [0, 1].

    The right answer is the whole of the last turn, end token included; `par` stands in the problem's metadata.
    Withstands: every answer in one turn, the answer with anything before or after it, a turn that the budget cuts,
    replies that the agent writes itself, the same guess again.

    Args:
        max_turns: turns that there are, at least every problem's par.
    """

    name = "guesses"
    value_range = (0.0, 1.0)

    def __init__(self, max_turns: int) -> None:
        self._max_turns = max_turns

    def value(self, par: int, num_turns: int) -> float:
        """Score of the right answer as turn number `num_turns`: 1 - (turns beyond par) / (max_turns - par + 1)."""
        return max(0.0, min(1.0, 1 - (num_turns - par) / (self._max_turns - par + 1)))

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values, num_turns = np.zeros(len(responses)), np.zeros(len(responses))
        rows = zip(problems, responses.turns, responses.finish_reasons, strict=True)
        for i, (problem, turns, reason) in enumerate(rows):
            num_turns[i] = (len(turns) + 1) // 2
            # A turn that the budget cut may look right, and was not meant as it stands.
            if len(turns) % 2 and reason in ("eos", "stop") and turns[-1] in problem.references:
                values[i] = self.value(problem.metadata["par"], int(num_turns[i]))
        return Scores(values, {"num_turns": num_turns, self.name: values})
