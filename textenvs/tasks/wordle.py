"""Find a hidden word of five letters; each guess is told which of its letters are right.

## Description
The prompt is `=`; one of the words in this file is hidden. Each turn is a guess, ended by the end token. The reply has
a sign a letter: `G` where the hidden word has that letter there, `Y` where it has it elsewhere, `-` where it has it no
more. A letter that comes twice in the guess is marked twice only if it comes twice in the hidden word: first the `G`,
then `Y` from the left. The reply to what is no word of the list is `?`. The right word ends the episode, and so does
the sixth turn.

## Action Space
`Discrete(32)`: the letters, `=`, `G`, `Y`, `-`, `?`, and the end token, which ends a turn. `action_masks()` allows the
letters with which a word of the list goes on, and after five the end token. `masked=False` allows everything.

## Observation Space
The prompt, then turns and replies; see `textenvs.env.TextGenEnv`.

## Starting State
A word, uniformly from the split.

## Rewards
Par is what the splitting player takes for that word: of the words that fit all replies, it guesses the one that tells
most of them apart (the largest number of different replies), the first in the alphabet of several. The right word as
turn number n: 1 for n <= par, and 1 - (n - par) / (6 - par + 1) beyond. Not found: 0.

## Episode End
The right word; the sixth turn; the end of the budget, which has room for six words.

## Splits
By hidden word: a fifth of the words is never hidden in training. Every word may be guessed in both splits.

## References
Wordle, by Josh Wardle; as a task for language models in Snell et al., "Offline RL for Natural Language Generation with
Implicit Language Q Learning", ICLR 2023. The list of common words was written for this project (Apache-2.0).

## Version History
v0: first version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from textenvs.hidden_task import Guesses, running_turn
from textenvs.rewards.base import Reward
from textenvs.task import Problem, Task, check_flag, check_index, permuted, split_range
from textenvs.vocab import CharVocab

MAX_TURNS = 6
NUM_LETTERS = 5
_LIST = """
about above actor acute admit adopt adult after again agent agree ahead alarm album alert alike alive allow alone
along alter among anger angle angry apart apple apply arena argue arise array aside asset audio avoid award aware
badly baker bases basic basis beach began begin being below bench birth black blame blind block blood board boost
booth bound brain brand bread break brief bring broad brown brush build burst buyer cabin cable camel carry catch
cause chain chair chalk cheap check chest chief child civil claim class clean clear climb clock close cloud coach
coast could count court cover craft crash cream crime cross crowd crown curve cycle daily dance depth doubt dozen
draft drama dream dress drink drive early earth eight empty enemy enjoy enter entry equal error event every exact
exist extra faith false fault favor fence fiber field fifth fifty final first flame fleet floor fluid focus force
forth forty forum found frame fresh front fruit fully funny giant given glass globe glory grace grade grand grant
grass green gross group guard guess guest guide happy heart heavy hello honey horse hotel house human hurry ideal
image index inner input issue ivory joint judge juice knife knock label labor large laser later laugh layer learn
lease least leave lemon level light limit local logic loose lower lucky lunch magic major maker march match maybe
mayor medal media metal meter minor model money month moral motor mount mouse mouth movie music naked nerve never
night noble noise north novel nurse occur ocean offer often olive onion opera orbit order other ought outer owner
paint panel paper party peace pearl phase phone photo piano piece pilot pitch place plain plane plant plate point
power press price pride prime print prior prize proof proud pupil queen quick quiet quite radio raise range rapid
ratio reach react ready refer relax reply right rival river robot rough round route royal rural salad scale scene
scope score sense serve seven shape share sharp sheep sheet shelf shell shift shirt shock short sixth skill sleep
slice small smart smile smoke snake solid solve sorry sound south space spare speak speed spend spice split sport
staff stage stake stand start state steam steel stick still stone store storm story strip study stuff style sugar
suite sunny super sweet table taste teach thank theme there thick thing think third three tiger tight title today
token topic total touch tower track trade train treat trend trial tribe truck truly trust truth twice uncle under
union unity until upper urban usual valid value video virus visit vital vivid voice waste watch water wheel where
which white whole woman world worry worth would wound wrist write wrong yield young youth zebra
"""
WORDS = tuple(sorted(_LIST.split()))


class Wordle(Task):
    """Find a word by which letters are right: `=` -> `alert`, told `--Y--`, `noise`, told `-G-GG`, `house`.

    Args:
        masked: whether `action_masks()` allows words of the list only, or everything.
        split: "train", "heldout" or "all".
    """

    def __init__(self, *, masked: bool = True, split: str = "train") -> None:
        self.has_masks = check_flag("masked", masked)
        self.vocab = CharVocab(ascii_lowercase + "=GY-?")
        self.reward: Reward = Guesses(MAX_TURNS)
        self.max_prompt_tokens = 1
        self.max_new_tokens = MAX_TURNS * (NUM_LETTERS + 1) + (MAX_TURNS - 1) * NUM_LETTERS
        self._range = split_range(len(WORDS), split)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, k: int) -> Problem:
        check_index(k, len(self))
        return _hide(WORDS[permuted(self._range[k], len(WORDS))])

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`; there is one prompt, and its own word."""
        if prompt != "=":
            raise ValueError(f"prompt must be '=', got {prompt[:80]!r}; nothing else is known of the word")
        return _hide("other")

    def reply(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """See `Task.reply`."""
        guess, hidden = turns[-1], problem.metadata["hidden"]
        if guess == hidden or (len(turns) + 1) // 2 >= MAX_TURNS:
            return None
        return feedback(guess, hidden) if guess in _WORDS else "?"

    def demonstration(self, problem: Problem) -> list[str]:
        """The splitting player's guesses."""
        return list(_solution(problem.metadata["hidden"]))

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_]:
        """See `Task.legal`."""
        turn = running_turn(self, problem, token_ids)
        legal = np.zeros(self.vocab.num_tokens, dtype=bool)
        for letter in _NEXT_LETTERS.get(turn, ()):
            legal[self.vocab.token_id(letter)] = True
        legal[self.vocab.eos_id] = turn not in _NEXT_LETTERS
        return legal

    def optimal_return(self) -> float:
        """The splitting player is at par always, and nothing scores above 1."""
        return 1.0


_WORDS = frozenset(WORDS)
#: What starts a word, and the letters with which it goes on.
_NEXT_LETTERS = {
    start: "".join(sorted({word[len(start)] for word in WORDS if word.startswith(start)}))
    for start in {word[:num] for word in WORDS for num in range(NUM_LETTERS)}
}


def feedback(guess: str, hidden: str) -> str:
    """The sign of each letter of a guess.

    Args:
        guess: five letters.
        hidden: five letters.
    """
    signs = ["G" if a == b else "-" for a, b in zip(guess, hidden, strict=True)]
    elsewhere = Counter(b for a, b in zip(guess, hidden, strict=True) if a != b)
    for i, letter in enumerate(guess):
        if signs[i] == "-" and elsewhere[letter] > 0:
            signs[i] = "Y"
            elsewhere[letter] -= 1
    return "".join(signs)


def _hide(word: str) -> Problem:
    return Problem("=", (word,), {"hidden": word, "par": len(_solution(word))})


@lru_cache(maxsize=1)
def _replies() -> NDArray[np.int64]:
    """(W, W) the reply to each guess for each hidden word, as a number; the same as `feedback`, for all at once."""
    letters = np.array([[ord(letter) for letter in word] for word in WORDS])  # (W, 5)
    right = letters[:, None] == letters[None]  # (W, W, 5)
    numbers = np.zeros(right.shape[:2], dtype=np.int64)
    marked = np.zeros(right.shape, dtype=np.int64)
    for i in range(NUM_LETTERS):
        letter = letters[:, i]  # (W,)
        # Of the hidden word's letters that are not right, how many are this one; less those already marked for it.
        same = (letters[None] == letter[:, None, None]) & ~right
        used = (marked * (letters[:, None] == letter[:, None, None])).sum(axis=2)
        marked[:, :, i] = ~right[:, :, i] & (same.sum(axis=2) > used)
        numbers = 3 * numbers + np.where(right[:, :, i], 2, marked[:, :, i])
    return numbers


@lru_cache(maxsize=1 << 12)
def best_guess(left: tuple[int, ...]) -> int:
    """Of the words that are left, by number, the one whose replies tell most of them apart; the first of several."""
    replies = _replies()[np.ix_(left, left)]
    return left[int(np.argmax([len(np.unique(row)) for row in replies]))]


@lru_cache(maxsize=1 << 12)
def _solution(word: str) -> tuple[str, ...]:
    """The splitting player's guesses until the word."""
    hidden, left, guesses = WORDS.index(word), tuple(range(len(WORDS))), [""]
    while guesses[-1] != word:
        guess = best_guess(left)
        guesses.append(WORDS[guess])
        column = _replies()[guess]
        left = tuple(i for i in left if column[i] == column[hidden] and i != guess)
    return tuple(guesses[1:])
