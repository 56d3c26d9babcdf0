"""Close the open brackets, the innermost first.

## Description
The prompt is `length` brackets of `kinds` kinds and `=`: every closing one among them closes the innermost open one,
and at least one is still open. The response closes those that are, and nothing else.

## Action Space
`Discrete(2 * kinds + 2)`: the brackets, `=`, and the end token. `action_masks()` allows what keeps the string a
prefix of a balanced one that fits the budget: an opening bracket where all could still be closed, the closing bracket
of the innermost open one, and the end token when none is open. So a masked response can be wrong only by opening more.
After a token that the mask forbids it allows the end token. `masked=False` allows everything.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
Uniformly one of the strings of brackets described above, in a fixed shuffled order.

## Rewards
Matching positions / max(len(response), len(reference)).

## Episode End
The end token, or the `length + 1`-th token.

## Splits
The last fifth of the shuffled prompts is held out.

## References
The Dyck languages; "dyck languages" of BIG-bench (Srivastava et al., TMLR 2023).

## Version History
v0: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from textenvs.string_task import StringTask
from textenvs.task import Problem, check_flag, int_in

PAIRS = ("()", "[]", "{}", "<>")


class Brackets(StringTask):
    """Close the open brackets: `([]{=` -> `})`.

    Args:
        length: number of brackets in the prompt, 2 to 200.
        kinds: number of kinds, 1 to 4: `()`, `[]`, `{}`, `<>`.
        masked: whether `action_masks()` allows balanced strings only, or everything.
        split: "train", "heldout" or "all".
    """

    def __init__(self, *, length: int = 8, kinds: int = 3, masked: bool = True, split: str = "train") -> None:
        self.length, self.kinds = int_in("length", length, 2, 200), int_in("kinds", kinds, 1, len(PAIRS))
        self.has_masks = check_flag("masked", masked)
        pairs = PAIRS[: self.kinds]
        self.closing = {pair[0]: pair[1] for pair in pairs}
        super().__init__(
            symbols="".join(pairs), max_input_tokens=self.length, max_new_tokens=self.length + 1, split=split
        )

    def num_inputs(self) -> int:
        """See `StringTask.num_inputs`."""
        return _num_ways(self.length, 0, self.kinds)

    def input(self, number: int) -> str:
        """The string number `number` in the order of its brackets: closing one first, then each opening one."""
        text, opened = "", ""
        for left in range(self.length - 1, -1, -1):
            ways = _num_ways(left, len(opened) - 1, self.kinds) if opened else 0
            if number < ways:
                text, opened = text + self.closing[opened[-1]], opened[:-1]
                continue
            kind, number = divmod(number - ways, _num_ways(left, len(opened) + 1, self.kinds))
            text, opened = text + PAIRS[kind][0], opened + PAIRS[kind][0]
        return text

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        opened = self._open(text)
        if not opened:
            raise ValueError(
                f"input must be brackets of {''.join(PAIRS[: self.kinds])!r} with one still open, got {text[:80]!r}"
            )
        return "".join(self.closing[bracket] for bracket in reversed(opened))

    def _open(self, text: str) -> str | None:
        """The brackets still open, outermost first; None when `text` is no prefix of a balanced string."""
        opened = ""
        for symbol in text:
            if symbol in self.closing:
                opened += symbol
            elif opened and self.closing[opened[-1]] == symbol:
                opened = opened[:-1]
            else:
                return None
        return opened

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_]:
        """See `Task.legal`."""
        legal = np.zeros(self.vocab.num_tokens, dtype=bool)
        opened = self._open(problem.prompt[:-1] + self.vocab.decode(token_ids))
        if opened:
            legal[self.vocab.token_id(self.closing[opened[-1]])] = True
        else:
            legal[self.vocab.eos_id] = True
        # An opening bracket takes one token, and closing all then len(opened) + 1 more.
        if opened is not None and len(opened) + 2 <= self.max_new_tokens - len(token_ids):
            for bracket in self.closing:
                legal[self.vocab.token_id(bracket)] = True
        return legal


@lru_cache(maxsize=1 << 17)
def _num_ways(left: int, depth: int, kinds: int) -> int:
    """Ways to append `left` brackets to `depth` open ones such that at least one is open in the end."""
    if left == 0:
        return int(depth > 0)
    return kinds * _num_ways(left - 1, depth + 1, kinds) + (_num_ways(left - 1, depth - 1, kinds) if depth else 0)
