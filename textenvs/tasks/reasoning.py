"""Reasoning puzzles by the generators of the `reasoning-gym` library: arithmetic, logic, grids, words, games.

## Description
The prompt is a generated question, the response its answer and nothing else. `dataset` names the generator, `config`
its settings. Of the 106 datasets of version 0.1.25, 78 are scored by equality with the generated answer, 10 by the
library (`OWN_SCORER`), and the 18 of `REFUSED` cannot be played, each for a stated reason.

## Action Space
`Discrete(2048)`: the shipped tokenizer, so that a model trained on one dataset can be evaluated on another.

## Starting State
A question, uniformly from the split's.

## Rewards
1.0 or 0.0. A response is right when it is the dataset's answer, and nothing else, up to its spelling (`spelt`): white
space around it, at the ends of its lines and around commas and brackets (so that JSON may be spaced as one likes), and
zeros that end a decimal fraction, are free in every dataset: `48 + 36i` is `48.0 + 36.0i`. For the datasets of
`OWN_SCORER`, whose questions have several right answers, a response is also right when the library's `score_answer`
gives it full marks.

The library's partial credit is not paid, and its scorers are not asked elsewhere: with reasoning-gym's own, 14 datasets
of 0.1.25 give full marks to a padded answer (to `False` and `True` alike in game_of_life_halting) and most others part
of them. No text of the agent's is ever evaluated: `REFUSED` names the datasets whose scorers would. So these get full
marks there and 0 here (`benchmarks/reasoning.py` prints them, by dataset):

- another order: of the factors in prime_factorization, the roots in polynomial_equations, the people in knights_knaves;
- other letter case: bitwise_arithmetic, calendar_arithmetic, coin_flip, color_cube_rotation, complex_arithmetic,
  family_relationships, figlet_font, fraction_simplification, game_of_life_halting, knights_knaves, letter_jumble,
  needle_haystack, power_function, sentence_reordering, spell_backward, time_intervals, tsumego, zebra_puzzles;
- a number that is only near: advanced_geometry, coin_flip, decimal_arithmetic, number_format, number_sorting,
  pool_matrix, power_function;
- a plus sign or leading zeros before a number, wherever the library reads numbers; a point after the answer in
  chain_sum, coin_flip, fraction_simplification, game_of_life_halting, gsm_symbolic, knights_knaves, pool_matrix,
  products, spell_backward and time_intervals; other or no quotation marks in
  game_of_life_halting, gsm_symbolic and number_sorting; no space around an operator in complex_arithmetic and
  prime_factorization.

## Episode End
The end token, or the last token of the budget, which is what the longest answer takes and 8 more.

## Splits
`num_problems` questions are generated and repeated ones dropped; the last fifth of the rest is held out.

## References
github.com/open-thought/reasoning-gym, Apache-2.0; `pip install "textenvs[reasoning]"`.

## Version History
v0: first version.
"""

from __future__ import annotations

import copy
import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from textenvs.pack_task import ASSETS, StoredTask
from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.task import Problem, int_in, split_range
from textenvs.vocab import TokenizerVocab, near_miss

#: A response of more characters is wrong unread: the library's scorers walk through every one.
MAX_CHARS = 10_000

_ANY = r"[\s\S]*"
#: Datasets whose questions have several right answers, scored by the library: what the whole response must look like,
#: because some of these scorers skip what they do not understand.
OWN_SCORER = {
    "cryptarithm": r"[A-Z]=\d(,[A-Z]=\d)*",
    "group_anagrams": _ANY,
    "jugs": _ANY,
    "kakurasu": r"[01]( [01])*(\n[01]( [01])*)*",
    "palindrome_generation": _ANY,
    "palindrome_partitioning": _ANY,
    "quantum_lock": r"[ABC]( → [ABC])*",
    "shortest_path": _ANY,
    "sokoban": r"[UDLR]+",
    "tower_of_hanoi": r"Move disk \d+ from Peg \d+ to Peg \d+(\nMove disk \d+ from Peg \d+ to Peg \d+)*",
}
_EVALUATES = "its scorer evaluates the answer as code, and several answers are right"
_NO_ANSWER = "it generates no answer to check its scorer with"
_NOT_REPRODUCIBLE = "its questions differ from one process to the next"
#: Datasets that cannot be played, and why.
REFUSED = {
    "boxnet": _NO_ANSWER,
    "codeio": _NOT_REPRODUCIBLE,
    "composite": "it mixes other datasets; name one of them",
    "countdown": _EVALUATES,
    "graph_color": _NO_ANSWER,
    "intermediate_integration": _EVALUATES,
    "isomorphic_strings": _NOT_REPRODUCIBLE,
    "knight_swap": _NOT_REPRODUCIBLE,
    "list_functions": _NOT_REPRODUCIBLE,
    "n_queens": _EVALUATES,
    "polynomial_multiplication": _EVALUATES,
    "propositional_logic": _NO_ANSWER,
    "puzzle24": _EVALUATES,
    "ransom_note": _NOT_REPRODUCIBLE,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
    "simple_integration": _EVALUATES,
    "word_ladder": _NOT_REPRODUCIBLE,
}


#: White space beside a comma or a bracket, and at the end of a line; a decimal numeral, but not a part of 1.2.3,
#: whose sign is one minus: of two, neither is.
_FREE_SPACE = re.compile(r"(?<!\s)\s++(?=[]\[(){},])|(?<=[]\[(){},])\s+|(?<!\s)[^\S\n]++(?=\n)")
_NUMERAL = re.compile(r"(?<![\w.])(?<![eE][-+])((?<!-)-)?([0-9]++)(?:\.([0-9]++))?+(?!\.[0-9])")


class ReasoningGym(StoredTask):
    """Answer a generated question: `State the final answer to ...: 4 + 3 =` -> `7`.

    Args:
        dataset: a name of reasoning-gym's that is not in `REFUSED`.
        config: settings of the dataset, JSON-able, such as {"min_terms": 2} for chain_sum.
        num_problems: questions to generate, repeated ones included, 10 to 10,000.
        dataset_seed: of the generator, at least 0.
        split: "train", "heldout" or "all".
    """

    def __init__(
        self,
        *,
        dataset: str = "chain_sum",
        config: Mapping[str, Any] | None = None,
        num_problems: int = 500,
        dataset_seed: int = 0,
        split: str = "train",
    ) -> None:
        if not isinstance(dataset, str) or dataset in REFUSED:
            why = REFUSED[dataset] if isinstance(dataset, str) else "it is no name"
            raise ValueError(f"dataset must be one that can be scored, got {dataset!r}: {why}; take another")
        int_in("num_problems", num_problems, 10, 10_000)
        int_in("dataset_seed", dataset_seed, 0, 2**32 - 1)
        if config is not None and not isinstance(config, Mapping):
            raise ValueError(f"config must be a mapping of settings, got {config!r}; such as {{'min_terms': 2}}")
        try:
            frozen = json.dumps(dict(config or {}), sort_keys=True)
        except (TypeError, ValueError) as error:
            raise ValueError(f"config must be JSON-able, got {config!r}: {error}") from None
        pool = _pool(dataset, int(num_problems), int(dataset_seed), frozen)
        self.vocab = pool.vocab
        self.max_prompt_tokens, self.max_new_tokens = pool.max_prompt_tokens, pool.max_new_tokens
        self.reward = ReasoningGymReward(dataset, pool.scorer)
        # Reward and problems share no state that a response could change: entries are copied for each score.
        self._problems = [pool.problems[k] for k in split_range(len(pool.problems), split)]

    def optimal_return(self) -> float:
        """Every answer scores 1, and nothing scores more."""
        return 1.0


class ReasoningGymReward(Reward):
    """1.0 when the response is a right answer and nothing else, else 0.0. Range [0, 1]; for problems of `ReasoningGym`.

    How an answer may be spelt, and what the library takes that is 0 here, stands on the page of `ReasoningGym`.

    Withstands: padding before or after the answer, several answers, code, 100,000 characters.
    Does not withstand: a bug by which one of the library's ten scorers takes a wrong answer for right.
    Source: reasoning-gym 0.1.25.

    Args:
        dataset: which one.
        scorer: the library's dataset, asked for those of `OWN_SCORER`.
    """

    name = "reasoning_gym"
    value_range = (0.0, 1.0)

    def __init__(self, dataset: str, scorer: Any) -> None:
        self._form = OWN_SCORER.get(dataset)
        self._scorer = scorer

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        if not problem.references or (self._form is not None and "entry" not in problem.metadata):
            raise ValueError(
                f"the problem with prompt {problem.prompt[:80]!r} must be one of the dataset's, with its answer and "
                "entry, got none; reset with a problem's number"
            )

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        judged = [self._judge(problem, text) for problem, text in zip(problems, responses.texts, strict=True)]
        values = np.array([float(right) for right, _ in judged])
        return Scores(values, {self.name: values}, [status for _, status in judged])

    def _judge(self, problem: ProblemLike, text: str) -> tuple[bool, str]:
        self.require(problem)
        text = text.strip()
        if text in (reference.strip() for reference in problem.references):
            return True, "ok"
        if not text or len(text) > MAX_CHARS:
            return False, "ok"
        if spelt(text) in map(spelt, problem.references):
            return True, "ok"
        if self._form is None or not re.fullmatch(self._form, text):
            return False, "ok"
        try:
            # A copy: some scorers write into the entry.
            return float(self._scorer.score_answer(text, copy.deepcopy(problem.metadata["entry"]))) >= 1, "ok"
        except Exception:  # of a parser of the library's that did not expect such a text
            return False, "model_fault"


def spelt(text: str) -> str:
    """The one spelling of an answer that others of equal content share: free white space dropped, 4.50 as 4.5, -0 as 0.

    Linear in the text. Leading zeros stay, for an answer may be a string of digits.
    """
    return _NUMERAL.sub(_shortest, _FREE_SPACE.sub("", text.strip()))


def _shortest(numeral: re.Match[str]) -> str:
    sign, whole, fraction = numeral.groups(default="")
    fraction = fraction.rstrip("0")
    return ("" if not (whole + fraction).strip("0") else sign) + whole + ("." + fraction if fraction else "")


class _Pool(NamedTuple):
    problems: tuple[Problem, ...]
    scorer: Any
    vocab: TokenizerVocab
    max_prompt_tokens: int
    max_new_tokens: int


@lru_cache(maxsize=8)
def _pool(dataset: str, num_problems: int, seed: int, config: str) -> _Pool:
    """All problems of a dataset, each question once; generating them takes up to seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own libraries' futures
        try:
            import reasoning_gym
        except ModuleNotFoundError as error:
            raise ImportError(f'task reasoning_gym needs {error.name}; pip install "textenvs[reasoning]"') from None
    if dataset not in reasoning_gym.factory.DATASETS:
        playable = sorted(set(reasoning_gym.factory.DATASETS) - set(REFUSED))
        raise ValueError(f"dataset must be one of reasoning-gym's, got {dataset!r}; {near_miss(dataset, playable)}")
    try:
        scorer = reasoning_gym.create_dataset(dataset, size=num_problems, seed=seed, **json.loads(config))
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"config must be settings of the dataset {dataset!r}, got {config}: {error}") from None
    with redirect_stdout(io.StringIO()):  # one generator prints dots as it goes
        entries = {entry["question"]: entry for entry in (scorer[k] for k in range(num_problems))}
    keep = dataset in OWN_SCORER
    problems = tuple(
        Problem(question, (entry["answer"],), {"entry": entry} if keep else {}) for question, entry in entries.items()
    )
    vocab = TokenizerVocab(ASSETS / "tokenizer.json")
    return _Pool(
        problems,
        scorer,
        vocab,
        max(len(vocab.encode(problem.prompt)) for problem in problems),
        max(len(vocab.encode(problem.references[0])) for problem in problems) + 9,
    )
