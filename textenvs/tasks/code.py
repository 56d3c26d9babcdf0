r'''Write a Python function from its signature and docstring; hidden tests decide.

## Description
The prompt is the head of a function and its docstring, which says what it returns and shows one example; the response
is the whole function, which must have the name in the prompt:

    def double(n: int) -> int:
        """Return twice n.

        >>> double(4)
        8
        """

is answered by `def double(n):\n    return 2 * n`. 51 problems, 38 of them for training: arithmetic, lists and texts,
from one line to a loop with a condition.

## Action Space
`Discrete(97)`: a printable ASCII character, the newline, or the end token (the last id).

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
A problem of the split, uniformly.

## Rewards
1 when the function returns the expected value with the expected types in all of the problem's 40 hidden cases, else 0;
see `textenvs.rewards.programs.PythonProgram`. The share of the cases is the part `cases_passed`. The function runs in a
sandbox without files, network and other processes, which is sought when the first response names the function: on a
machine where none works that is the error `SandboxUnavailable`, never a score.

## Episode End
The end token, or the 256th token.

## Splits
Training and held-out functions are of the same kinds, and no held-out one is another one with other names, constants
and operators.

## References
HumanEval (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv:2107.03374) for the form.
Different here: the problems, which are this project's own and easier; expected values never enter the process that runs
the program, and types must be equal.

## Version History
v0: first version.
'''

from __future__ import annotations

from string import printable

from textenvs.pack_task import PackTask
from textenvs.task import Problem


class PythonFunction(PackTask):
    r"""Write the Python function that a signature and a docstring describe: `def add(a, b):\n    return a + b`.

    Args:
        max_reference_tokens: only problems whose reference is no longer than this, at least 40; longer ones are harder.
        split: "train", "heldout" or "all".
    """

    pack = "functions/python"
    symbols = printable[:95] + "\n"
    reward = "python_program"
    max_new_tokens = 256

    def __init__(self, *, max_reference_tokens: int = 255, split: str = "train") -> None:
        limit = max_reference_tokens
        if isinstance(limit, bool) or not isinstance(limit, int) or not 40 <= limit < self.max_new_tokens:
            raise ValueError(f"max_reference_tokens must be an int in [40, 255], got {limit!r}; 255 keeps all problems")
        super().__init__(split=split)
        self._problems = [problem for problem in self._problems if len(problem.references[0]) <= limit]

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`."""
        for problem in self._problems:
            if problem.prompt == prompt:
                return problem
        raise ValueError(
            f"prompt must be one of the task's own, which have hidden cases, got {prompt[:80]!r}; give prompts with "
            'metadata to TextGen-v0 and reward="python_program" for others'
        )
