"""What games about something hidden share: a problem is a prompt and one of the things that it may hide.

The games themselves live in `textenvs.tasks`, one file each.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod

from textenvs.task import Problem, Task, permuted, split_range

#: A generated task holds at most this many problems.
MAX_PROBLEMS = 10_000


class HiddenTask(Task):
    """Prompts and what they hide are numbered; the split is by prompt, so no held-out prompt was ever trained on.

    What is hidden stands in the problem's metadata and reference, which no observation and no info shows. A prompt of
    the user's own hides what a hash of it says.

    Args:
        num_prompts: how many prompts there are; at most the first 10,000 of a shuffled order are used.
        split: "train" (the first four fifths of the shuffled prompts), "heldout" or "all".
    """

    def __init__(self, *, num_prompts: int, split: str) -> None:
        num_used = min(num_prompts, MAX_PROBLEMS)
        self._num_prompts = num_prompts
        self._range = split_range(num_used, split)
        #: Problems with each prompt.
        self._num_each = max(1, MAX_PROBLEMS // num_used)

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
        if not 0 <= k < len(self):
            raise IndexError(f"k must be in [0, {len(self)}), got {k}; ask for an existing problem")
        which, turn = divmod(k, self._num_each)
        shuffled = permuted(self._range[which], self._num_prompts)
        prompt = self.prompt(shuffled)
        num = self.num_hidden(prompt)
        # Successive turns of a prompt hide successive numbers of a shuffled order, so they differ while there are any.
        return self.hide(prompt, permuted((shuffled + turn) % num, num))

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`."""
        num = self.num_hidden(prompt)
        digest = hashlib.sha256(prompt.encode()).digest()
        return self.hide(prompt, int.from_bytes(digest, "little") % num)
