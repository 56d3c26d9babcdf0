"""The rules of one row, shared by the scalar and the batch env: start, append, finish, score.

A row is an int64 array of P + T slots. The prompt stands right-aligned in the first P; everything later, the agent's
tokens and the replies, from slot P on. Unused slots hold V, which is no token, so that nothing is ever mistaken for a
pad and the remaining budget is visible.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from operator import index
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray

from textenvs.rewards import as_reward
from textenvs.rewards.base import Responses, Reward, Scores
from textenvs.scoring import UNKNOWN_CAUSE, keep_first, score_batch
from textenvs.task import Problem, Task
from textenvs.tasks import make_task, misspelt_setting
from textenvs.vocab import IntArray, as_vocab

#: The names that other libraries look for: mask_keys -> (observation key, mask key).
MASK_KEYS = {
    "pettingzoo": ("observation", "action_mask"),
    "rllib": ("observations", "action_mask"),
    "tianshou": ("obs", "mask"),
}
#: A one-hot observation larger than this many floats is a mistake: embed the tokens instead.
MAX_ONEHOT_FLOATS = 1 << 20
#: Slots of a row; every observation, every batch and the bounds of the space have as many.
MAX_SLOTS = 1 << 20

#: What actions nearly always are; what else is an int takes longer to ask than to append it.
_USUAL_INTS = (int, np.int64)
_EOS = np.array("eos", dtype=object)  # as a text it takes longer to compare than a batch of reasons

#: What the options of a reset may hold.
OPTIONS: tuple[set[str], ...] = (set(), {"problem"}, {"prompt"})


class RenderModes(list[str]):
    """Names of render modes; whether something is one of them can only be asked of a name.

    `gym.make` asks before the env is made, and takes what is none for a text.
    """

    def __contains__(self, mode: object) -> bool:
        if mode is not None and not isinstance(mode, str):
            raise ValueError(f"render_mode must be None or one of {', '.join(map(repr, self))}, got {mode!r}; pick one")
        return super().__contains__(mode)


class Start(NamedTuple):
    """What an episode starts from."""

    problem: Problem
    row: IntArray  # (P + T,), not to be written into
    prompt: str  # the prompt's text as its tokens spell it


class Rules:
    """Settings of an env, checked once, and what they say of a row. Arguments: see `textenvs.env.TextGenEnv`."""

    def __init__(
        self,
        task: Task | str | None = None,
        *,
        prompts: Any = None,
        reward: Any = None,
        vocab: Any = None,
        max_prompt_tokens: int | None = None,
        max_new_tokens: int | None = None,
        stop: Sequence[int | str] = (),
        dense: bool = False,
        observation: str = "tokens",
        mask_keys: str | None = None,
        **settings: Any,
    ) -> None:
        self.task = _resolve_task(task, prompts, settings)
        self.num_problems = len(self.task)
        if self.num_problems == 0:
            raise ValueError(f"task must hold at least one problem, got none in {type(self.task).__name__}; add one")
        self.vocab = as_vocab(self.task.vocab if vocab is None else vocab)
        self.reward = as_reward(self.task.reward if reward is None else reward)
        self.num_tokens = self.vocab.num_tokens
        self.max_prompt_tokens = self._prompt_limit(max_prompt_tokens)
        budget = self.task.max_new_tokens if max_new_tokens is None else max_new_tokens
        self.max_new_tokens = _at_least_one("max_new_tokens", budget)
        self.width = self.max_prompt_tokens + self.max_new_tokens
        if self.width > MAX_SLOTS:
            raise ValueError(
                f"max_prompt_tokens and max_new_tokens must be at most {MAX_SLOTS:,} together, got "
                f"{self.max_prompt_tokens:,} and {self.max_new_tokens:,}; pass smaller ones"
            )
        if isinstance(stop, str) or not isinstance(stop, Iterable):
            raise TypeError(f"stop must be a list of ids or single-token strings, got {stop!r}; put it in a list")
        if not isinstance(dense, (bool, np.bool_)):
            raise TypeError(f"dense must be True or False, got {dense!r}")
        self.stop_ids = tuple(sorted({self.vocab.token_id(token) for token in stop} - {self.vocab.eos_id}))
        self.dense = bool(dense)
        self.has_replies = type(self.task).reply is not Task.reply
        #: (V,) which tokens end a turn.
        self.ends_turn = np.zeros(self.num_tokens, dtype=bool)
        self.ends_turn[[self.vocab.eos_id, *self.stop_ids]] = True
        #: (V,) why an episode ends whose last token it is, when no reply comes.
        self.finish_reasons = np.full(self.num_tokens, "length", dtype=object)
        self.finish_reasons[[*self.stop_ids]] = "stop"
        self.finish_reasons[self.vocab.eos_id] = "eos"
        self.all_legal = np.ones(self.num_tokens, dtype=bool)
        self.all_legal.flags.writeable = False
        self.observation, self.mask_keys = observation, mask_keys
        self.observation_space = self._observation_space()
        self.metadata = {
            "num_tokens": self.num_tokens,
            "bos_id": self.vocab.bos_id,
            "eos_id": self.vocab.eos_id,
            "stop_ids": self.stop_ids,
            "vocab_sha256": self.vocab.sha256,
            "has_masks": self.task.has_masks,
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_new_tokens": self.max_new_tokens,
        }
        self._no_tokens = np.full((1, self.max_new_tokens), -1, dtype=np.int64)
        self._starts: dict[int, Start] = {}
        self._by_prompt: dict[str, Problem] | None = None
        self._warned = False
        self._require(every=reward is not None or prompts is not None)

    # ------------------------------------------------------------------------------------------------------ start

    def start(self, k: int) -> Start:
        """What an episode of problem k starts from, encoded once; copy the row before writing."""
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 0 <= k < self.num_problems:
            raise ValueError(f"options['problem'] must be an int in [0, {self.num_problems}), got {k!r}; pick one")
        cached = self._starts.get(k)
        if cached is None:
            problem = self.task[k]
            cached = self._starts[k] = self._encoded(problem, f"problem {k}")
        return cached

    def start_prompt(self, prompt: Any) -> Start:
        """The same for a prompt of the user's own."""
        if not isinstance(prompt, str):
            raise TypeError(f"options['prompt'] must be a string, got {type(prompt).__name__}; pass one text")
        return self._encoded(self.problem(prompt), "options['prompt']")

    def problem(self, prompt: str) -> Problem:
        """The problem that a prompt poses: read by the task where it can, else the task's own with that prompt.

        Raises:
            ValueError: the task cannot read such a prompt.
        """
        if type(self.task).problem is not Task.problem:
            return self.task.problem(prompt)
        if self._by_prompt is None:
            self._by_prompt = {}
            for k in range(len(self.task)):
                problem = self.task[k]
                self._by_prompt.setdefault(problem.prompt, problem)
        return self._by_prompt.get(prompt) or Problem(prompt)

    def _require(self, *, every: bool) -> None:
        """Refuse problems that the reward cannot score: all when it is not the task's own, else the first."""
        if type(self.reward).require is not Reward.require:
            for k in range(len(self.task) if every else 1):
                self._required(self.task[k], f"problem {k}")

    def _required(self, problem: Problem, where: str) -> None:
        try:
            self.reward.require(problem)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def _encoded(self, problem: Problem, where: str) -> Start:
        self._required(problem, where)
        prompt = problem.prompt
        ids = self.vocab.encode(prompt)
        limit = self.max_prompt_tokens
        if not 1 <= len(ids) <= limit:
            raise ValueError(
                f"a prompt must have 1 to {limit} tokens, got {len(ids)} in {where}: {prompt[:80]!r}; "
                + ("pass a larger max_prompt_tokens or a shorter prompt" if len(ids) else "give it at least one")
            )
        row = np.full(self.width, self.num_tokens, dtype=np.int64)
        row[limit - len(ids) : limit] = ids
        return Start(problem, row, self.vocab.decode(ids.tolist()))

    def _prompt_limit(self, given: int | None) -> int:
        """P: as given, or the task's own, or the length of its longest prompt."""
        if given is not None or self.task.max_prompt_tokens is not None:
            return _at_least_one("max_prompt_tokens", self.task.max_prompt_tokens if given is None else given)
        lengths = [len(self.vocab.encode(self.task[k].prompt)) for k in range(len(self.task))]
        return max(lengths)

    # ----------------------------------------------------------------------------------------------------- append

    def token(self, action: Any) -> int:
        """The token id of one action.

        Raises:
            InvalidAction: not an integer in [0, V).
        """
        if type(action) in _USUAL_INTS:
            token = index(action)
        else:
            if isinstance(action, np.ndarray) and action.ndim == 0:
                action = action[()]
            token = int(action) if isinstance(action, (int, np.integer)) and not isinstance(action, bool) else -1
        if not 0 <= token < self.num_tokens:
            raise InvalidAction(f"action must be an int in [0, {self.num_tokens}), got {action!r}; it is a token id")
        return token

    def close_turn(self, problem: Problem, row: IntArray, end: int, turn_ends: list[int]) -> tuple[int, str | None]:
        """What follows a token that ends a turn or fills the row: a reply is appended, or the episode ends.

        Args:
            problem: the running problem.
            row: (P + T,) the row; a reply is written into it.
            end: first unused slot.
            turn_ends: where turns ended so far, counted from slot P; what ends now is added.

        Returns:
            The first unused slot, and the finish reason, or None when the episode goes on.
        """
        token = row[end - 1]
        if not self.has_replies:
            return end, self.finish_reasons[token]
        response = row[self.max_prompt_tokens : end].tolist()
        turn_ends.append(len(response))
        if self.ends_turn[token]:
            bounds = zip([0, *turn_ends], turn_ends, strict=False)
            reply = self.task.reply(problem, [self.vocab.decode(response[a:b]) for a, b in bounds])
            if reply is not None:
                ids = self.vocab.encode(reply)
                if end + len(ids) > self.width:
                    return end, "length"
                row[end : end + len(ids)] = ids
                turn_ends.append(len(response) + len(ids))
                end += len(ids)
                return end, "length" if end == self.width else None
        return end, self.finish_reasons[token]

    def legal(self, problem: Problem, row: IntArray, end: int) -> NDArray[np.bool_]:
        """(V,) which tokens may come next; read-only."""
        if not self.task.has_masks:
            return self.all_legal
        legal = self.task.legal(problem, row[self.max_prompt_tokens : end].tolist())
        if legal is None:
            return self.all_legal
        if legal.shape != (self.num_tokens,) or not legal.any():
            raise ValueError(
                f"legal() must give a bool array ({self.num_tokens},) with a True, got shape {legal.shape} with "
                f"{int(legal.sum())} True for the prompt {problem.prompt[:80]!r}; allow at least one token"
            )
        return legal

    # ----------------------------------------------------------------------------------------------------- finish

    def demonstration(self, problem: Problem, *, whole: bool = False) -> list[int] | None:
        """What the agent's tokens are in the task's demonstration, each turn's end token among them.

        Cut at the budget unless `whole`; None where there is no demonstration.
        """
        turns = self.task.demonstration(problem)
        if turns is None:
            return None
        ids = [token for turn in turns for token in (*self.vocab.encode(turn).tolist(), self.vocab.eos_id)]
        return ids if whole else ids[: self.max_new_tokens]

    # ------------------------------------------------------------------------------------------------------ score

    def score(
        self,
        problems: Sequence[Problem],
        rows: IntArray,
        ends: IntArray,
        reasons: Sequence[str] | NDArray[np.object_],
        turn_ends: Sequence[Sequence[int]] = (),
    ) -> tuple[Scores, Responses]:
        """Score B rows.

        Args:
            problems: B problems.
            rows: (B, P + T) rows.
            ends: (B,) first unused slot of each.
            reasons: B finish reasons, "running" for a row that has not ended.
            turn_ends: B lists, where the task replies.

        Returns:
            What `judge` says, and the responses.

        Raises:
            ValueError, TypeError: the reward did not return B finite values.
        """
        reasons = np.asarray(reasons, dtype=object)
        lengths = ends - self.max_prompt_tokens - (reasons == _EOS)
        token_ids = keep_first(lengths, rows[:, self.max_prompt_tokens :])
        responses = Responses(token_ids, lengths, reasons.tolist(), self.vocab, turn_ends if self.has_replies else ())
        return self.judge(problems, responses), responses

    def score_one(
        self, problem: Problem, row: IntArray, end: int, reason: str, turn_ends: list[int]
    ) -> tuple[Scores, Responses]:
        """`score` of a single row (P + T,)."""
        length = end - self.max_prompt_tokens - (reason == "eos")
        token_ids = self._no_tokens.copy()
        token_ids[0, :length] = row[self.max_prompt_tokens : self.max_prompt_tokens + length]
        responses = Responses(
            token_ids, np.array([length]), [reason], self.vocab, [turn_ends] if self.has_replies else ()
        )
        return self.judge([problem], responses), responses

    def judge(self, problems: Sequence[Problem], responses: Responses) -> Scores:
        """What `textenvs.scoring.score_batch` says of B responses; the first fault with a cause is also a warning.

        Raises:
            ValueError, TypeError: the reward did not return B finite values.
        """
        scores = score_batch(self.reward, problems, responses)
        if self._warned or scores.status.count("ok") == len(responses):
            return scores
        faults = (cause for word, cause in zip(scores.status, scores.causes, strict=True) if word == "infra_fault")
        cause = next((cause for cause in faults if cause not in ("", UNKNOWN_CAUSE)), None)
        if cause is not None:
            self._warned = True
            warnings.warn(
                f"reward {self.reward.name} failed: {cause}; the episode is an infra_fault: not scored, truncated, "
                "reward 0; later ones are counted in silence",
                stacklevel=2,
            )
        return scores

    # ------------------------------------------------------------------------------------------------ observation

    def _observation_space(self) -> spaces.Space[Any]:
        space: spaces.Space[Any]
        if self.observation == "tokens":
            space = spaces.Box(0, self.num_tokens, (self.width,), np.int64)
        elif self.observation == "onehot":
            size = self.width * (self.num_tokens + 1)
            if size > MAX_ONEHOT_FLOATS:
                raise ValueError(
                    f"observation='onehot' must be at most {MAX_ONEHOT_FLOATS:,} floats, got {size:,} "
                    f"({self.width} slots x {self.num_tokens + 1}); use observation='tokens' and embed them"
                )
            space = spaces.Box(0, 1, (size,), np.float32)
        else:
            raise ValueError(f"observation must be 'tokens' or 'onehot', got {self.observation!r}")
        if self.mask_keys is None:
            return space
        if self.mask_keys not in tuple(MASK_KEYS):
            raise ValueError(f"mask_keys must be None or one of {', '.join(MASK_KEYS)}, got {self.mask_keys!r}")
        key, mask_key = MASK_KEYS[self.mask_keys]
        return spaces.Dict({key: space, mask_key: spaces.Box(0, 1, (self.num_tokens,), np.int8)})

    def observe(self, rows: IntArray, legal: Callable[[], NDArray[np.bool_]]) -> Any:
        """A fresh observation of one row (P + T,) or of a batch (N, P + T); `legal()` is its masks (V,) or (N, V)."""
        view: NDArray[Any]
        if self.observation == "tokens":
            view = rows.copy()
        else:
            view = np.zeros((*rows.shape, self.num_tokens + 1), dtype=np.float32)
            np.put_along_axis(view, rows[..., None], 1.0, axis=-1)
            view = view.reshape(*rows.shape[:-1], -1)
        if self.mask_keys is None:
            return view
        key, mask_key = MASK_KEYS[self.mask_keys]
        return {key: view, mask_key: legal().astype(np.int8)}


def _resolve_task(task: Task | type[Task] | str | None, prompts: Any, settings: dict[str, Any]) -> Task:
    if isinstance(task, Task):
        for name in settings:
            if hint := misspelt_setting(name, task):
                raise TypeError(
                    f"{name!r} is not a setting of the env (an unexpected keyword argument {name!r}); {hint}"
                )
        if prompts is not None or settings:
            names = [*(["prompts"] if prompts is not None else []), *settings]
            raise TypeError(
                f"{', '.join(names)} must be given to the Task itself when task is one, got a {type(task).__name__} "
                f"(and an unexpected keyword argument {names[0]!r})"
            )
        return task
    if task is not None and not (isinstance(task, str) or (isinstance(task, type) and issubclass(task, Task))):
        raise TypeError(f"task must be None, a name, a Task or a class of one, got {task!r}; pass one of these")
    if prompts is not None:
        settings = {**settings, "prompts": prompts}
    return make_task(task or "continuation", **settings)


def _at_least_one(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    return int(value)
