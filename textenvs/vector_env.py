"""The batch env: N rows under the rules of the scalar env, one array operation a step.

Seeded s it equals a `SyncVectorEnv` of N scalar envs seeded s, bit for bit: observations, rewards, flags, infos,
masks and final observations, in all three autoreset modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textenvs.infos import Infos, fill
from textenvs.rewards.problem_rows import ProblemRows
from textenvs.rules import OPTIONS, Rules, Start
from textenvs.starts import Starts, Streams

BoolArray = NDArray[np.bool_]


class TextGenVectorEnv(VectorEnv[Any, Any, Any]):
    """N episodes of `TextGenEnv` side by side; the same spaces, rewards and infos, with arrays for scalars.

    Args:
        num_envs: N, number of rows.
        autoreset_mode: what happens to an ended row: it is reset by the next step, whose action it ignores
            (NEXT_STEP), within the same step (SAME_STEP), or by `reset(options={"reset_mask": rows})` (DISABLED).
        max_episode_steps: cut episodes after so many steps (`truncated`), as a TimeLimit does.
        kwargs: see `TextGenEnv`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # type: ignore[misc]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: None = None,
        **kwargs: Any,
    ) -> None:
        if render_mode is not None:
            raise ValueError(f"render_mode must be None in a batch, got {render_mode!r}; render one env of gym.make")
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise ValueError(f"num_envs must be an int of at least 1, got {num_envs!r}")
        self.rules = rules = Rules(**kwargs)
        self.num_envs = num_envs = int(num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode, "textgen": rules.metadata}  # type: ignore[misc]
        self.single_observation_space = rules.observation_space
        self.single_action_space = spaces.Discrete(rules.num_tokens)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = None
        self._max_episode_steps = max_episode_steps
        self._all_rows = np.arange(num_envs)
        #: All rows one after the other, for one index is faster than two, and a slot for what ended rows are sent.
        self._slots = np.full(num_envs * rules.width + 1, rules.num_tokens, dtype=np.int64)
        self._rows = self._slots[:-1].reshape(num_envs, rules.width)  # the same memory
        self._first_slots = self._all_rows * rules.width
        self._row_ends = self._first_slots + rules.width
        self._response_slots = self._first_slots + rules.max_prompt_tokens
        self._next_slots = self._response_slots.copy()
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._scores = np.zeros(num_envs)
        self._ended = np.ones(num_envs, dtype=bool)
        self._started = False
        #: What each row started from: a line of the table, or, for a prompt of the user's own, what stands here.
        self._lines = np.zeros(num_envs, dtype=np.int64)
        self._own: dict[int, Start] = {}
        self._starts = Starts(rules)
        self._turn_ends: list[list[int]] = [[] for _ in range(num_envs)]
        self._streams = Streams(self.num_envs, len(rules.task))

    # ------------------------------------------------------------------------------------------------------ reset

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every row, or in those of `options["reset_mask"]` (N,) bool.

        Args:
            seed: None, an int s for rows seeded s, s + 1, ..., or one int or None a row.
            options: "problem" (an int or N ints), "prompt" (a text), "reset_mask".
        """
        options = dict(options or {})
        rows = self._reset_rows(options.pop("reset_mask", None))
        seeds: Sequence[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, (int, np.integer)):
            seeds = range(int(seed), int(seed) + self.num_envs)
        elif len(seed) == self.num_envs:
            seeds = seed
        else:
            raise ValueError(f"seed must be an int or {self.num_envs} of them, one a row, got {len(seed)}")
        if set(options) not in OPTIONS:
            names = ", ".join(map(repr, sorted(options)))
            raise ValueError(f"options must hold 'problem', 'prompt' or 'reset_mask', got {names}")
        for i in rows.tolist():
            if (row_seed := seeds[i]) is not None:
                self._streams.seed(i, int(row_seed))
        infos = Infos()
        self._start(rows, options, infos)
        self._started = True
        return self._observe(), dict(infos)

    def _reset_rows(self, mask: Any) -> NDArray[np.int64]:
        if mask is None:
            return self._all_rows
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise TypeError(f"options['reset_mask'] must be a bool array ({self.num_envs},), got {mask!r}")
        if not mask.any():
            raise ValueError("options['reset_mask'] must have a True, got none; leave it out to reset every row")
        return np.flatnonzero(mask)

    def _start(self, rows: NDArray[np.int64], options: dict[str, Any], infos: Infos) -> None:
        """Write fresh prompts into `rows` (M,), and their infos."""
        rules = self.rules
        if "prompt" in options:
            start, numbers = rules.start_prompt(options["prompt"]), np.full(len(rows), -1)
            self._own |= dict.fromkeys(rows.tolist(), start)
            self._rows[rows] = start.row
        else:
            if "problem" in options:
                numbers = np.broadcast_to(options["problem"], (self.num_envs,))[rows]
                if numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= len(rules.task):
                    for number in numbers.tolist():
                        rules.start(number)  # raises for the first that is none
            else:
                numbers = self._streams.draw(rows)
            lines = self._starts.lines(numbers)
            # Only now: a refused reset leaves the running episodes as they were.
            for i in rows.tolist() if self._own else ():
                self._own.pop(i, None)
            self._rows[rows] = self._starts.rows.take(lines, 0)
            self._lines[rows] = lines
        if rules.has_replies:
            for i in rows.tolist():
                self._turn_ends[i] = []
        self._next_slots[rows] = self._response_slots[rows]
        if self._max_episode_steps is not None:
            self._steps[rows] = 0
        if rules.dense:
            self._scores[rows] = 0.0
        self._ended[rows] = False
        infos.defer(lambda infos: fill(infos, self.num_envs, rows, {"problem": numbers}))

    # ------------------------------------------------------------------------------------------------------- step

    def step(self, actions: Any) -> tuple[Any, NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]:
        """Append one token to every running row.

        Args:
            actions: (N,) integers in [0, V).

        Raises:
            ResetNeeded: before `reset`, or, in DISABLED mode, while an ended row waits for its reset.
            InvalidAction: not N integers in [0, V).
        """
        if not self._started:
            raise ResetNeeded("step() needs running episodes; call reset() first")
        tokens = self._tokens(actions)
        (resetting,) = self._ended.nonzero()
        if len(resetting) and self.autoreset_mode == AutoresetMode.DISABLED:
            waiting = resetting[:8].tolist()
            raise ResetNeeded(f"rows {waiting} have ended; call reset(options={{'reset_mask': ended}}) first")
        try:
            return self._append(tokens, resetting)
        except BaseException:  # of a task or a reward, half way through: no row is what it was, or what it is to be
            self._started = False
            self._ended = np.ones(self.num_envs, dtype=bool)
            self._next_slots[:] = len(self._slots) - 1
            raise

    def _append(
        self, tokens: NDArray[np.int64], resetting: NDArray[np.int64]
    ) -> tuple[Any, NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]:
        """Start the rows `resetting` (M,) and append `tokens` (N,) to the others."""
        rules = self.rules
        self._slots[self._next_slots] = tokens
        self._next_slots += 1
        if self._max_episode_steps is not None:
            self._steps += 1
        closes = rules.ends_turn[tokens] | (self._next_slots == self._row_ends)
        closes[resetting] = False
        (closing,) = closes.nonzero()
        infos = Infos()
        final = Infos() if self.autoreset_mode == AutoresetMode.SAME_STEP else infos
        if len(resetting):
            self._start(resetting, {}, infos)
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=bool)
        truncated = np.zeros(self.num_envs, dtype=bool)
        finished, reasons = self._close(closing, tokens)
        if rules.dense:
            running = np.ones(self.num_envs, dtype=bool)
            running[resetting] = running[finished] = False
            self._pay_dense(np.flatnonzero(running), rewards)
        if len(finished):
            terminated[finished] = True
            self._finish(finished, reasons, rewards, terminated, truncated, final)
            self._next_slots[finished] = len(self._slots) - 1
        if self._max_episode_steps is not None:
            truncated |= self._steps >= self._max_episode_steps
        self._ended = terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP and np.count_nonzero(self._ended):
            self._restart(np.flatnonzero(self._ended), infos, final)
        return self._observe(), rewards, terminated, truncated, infos

    def _tokens(self, actions: Any) -> NDArray[np.int64]:
        tokens = np.asarray(actions)
        if tokens.shape != (self.num_envs,) or tokens.dtype.kind not in "iu":
            raise InvalidAction(f"actions must be {self.num_envs} ints, got shape {tokens.shape} of {tokens.dtype}")
        tokens = tokens.astype(np.int64, copy=False)
        bad = tokens.view(np.uint64) >= self.rules.num_tokens  # a negative one is a large one
        if np.count_nonzero(bad):
            raise InvalidAction(
                f"actions must be ints in [0, {self.rules.num_tokens}), got {np.asarray(actions)[bad][0]}; they are "
                "token ids"
            )
        return tokens

    def _close(
        self, closing: NDArray[np.int64], tokens: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        """Close the turns of `closing` (M,), which `tokens` (N,) ended; who ended the episode too, and why."""
        if not self.rules.has_replies:
            return closing, self.rules.finish_reasons[tokens[closing]]
        finished, reasons = [], []
        for i, problem in zip(closing.tolist(), self._problems(closing), strict=True):
            end, reason = self.rules.close_turn(problem, self._rows[i], self._end(i), self._turn_ends[i])
            self._next_slots[i] = self._first_slots[i] + end
            if reason is not None:
                finished.append(i)
                reasons.append(reason)
        return np.array(finished, dtype=np.int64), np.array(reasons, dtype=object)

    def _pay_dense(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Pay the running `rows` (M,) the growth of their score."""
        if len(rows):
            scores, _ = self._score(rows, np.full(len(rows), "running", dtype=object))
            fault = scores.faulty
            rewards[rows] = np.where(fault, 0.0, scores.values - self._scores[rows])
            self._scores[rows] += rewards[rows]

    def _finish(
        self,
        rows: NDArray[np.int64],
        reasons: NDArray[np.object_],
        rewards: NDArray[np.float64],
        terminated: BoolArray,
        truncated: BoolArray,
        infos: Infos,
    ) -> None:
        """Score the ended `rows` (M,); write their rewards (N,), what faults make of their flags (N,), and infos."""
        rules = self.rules
        scores, responses = self._score(rows, reasons)
        fault = scores.faulty
        rewards[rows] = scores.values - np.where(fault, 0.0, self._scores[rows]) if rules.dense else scores.values
        if np.count_nonzero(fault):
            terminated[rows], truncated[rows] = ~fault, fault
        lines, own, table = self._lines[rows], dict(self._own), self._starts

        def write(infos: dict[str, Any]) -> None:
            starts = list(zip(rows.tolist(), lines.tolist(), strict=True))
            columns = {
                "problem": np.array([-1 if i in own else table.numbers[line] for i, line in starts]),
                "prompt": [own[i].prompt if i in own else table.prompts[line] for i, line in starts],
                "response": responses.texts,
                "finish_reason": np.where(fault, "fault", reasons).tolist(),
                "is_success": (scores.values >= rules.task.threshold) & ~fault,
                "status": scores.status,
            }
            if rules.has_replies:
                columns["turns"] = responses.turns
            fill(infos, self.num_envs, rows, columns)
            # What failed to be judged has a cause and no parts.
            fill(infos, self.num_envs, rows[~fault], {name: part[~fault] for name, part in scores.parts.items()})
            fill(infos, self.num_envs, rows[fault], {"cause": [scores.causes[j] for j in np.flatnonzero(fault)]})

        infos.defer(write)

    def _score(self, rows: NDArray[np.int64], reasons: NDArray[np.object_]) -> Any:
        turn_ends = [self._turn_ends[i] for i in rows.tolist()] if self.rules.has_replies else ()
        ends = self._next_slots[rows] - self._first_slots[rows]
        return self.rules.score(self._problems(rows), self._rows.take(rows, 0), ends, reasons, turn_ends)

    def _end(self, i: int) -> int:
        """First unused slot of row i."""
        return int(self._next_slots[i] - self._first_slots[i])

    def _problems(self, rows: NDArray[np.int64]) -> Sequence[Any]:
        """The problems of `rows` (M,)."""
        problems, own = ProblemRows(self._starts, self._lines[rows]), self._own
        if not own:
            return problems
        return [own[i].problem if i in own else problems[j] for j, i in enumerate(rows.tolist())]

    def _restart(self, rows: NDArray[np.int64], infos: Infos, final_info: Infos) -> None:
        """SAME_STEP: put what ended into `final_obs` and `final_info`, then start the rows again."""
        final = self.rules.observe(self._rows[rows], lambda: self.action_masks()[rows])

        def write(infos: dict[str, Any]) -> None:
            observations = np.full(self.num_envs, None, dtype=object)
            for j, i in enumerate(rows):
                observations[i] = {k: value[j] for k, value in final.items()} if isinstance(final, dict) else final[j]
            ended = np.zeros(self.num_envs, dtype=bool)
            ended[rows] = True
            infos |= {"final_obs": observations, "final_info": final_info}
            infos |= {"_final_obs": ended, "_final_info": ended.copy()}

        infos.defer(write)
        self._start(rows, {}, infos)

    # ------------------------------------------------------------------------------------------------------ views

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's two views of its slots are the same memory again."""
        self.__dict__.update(state)
        self._rows = self._slots[:-1].reshape(self.num_envs, self.rules.width)

    def _observe(self) -> Any:
        return self.rules.observe(self._rows, self.action_masks)

    def action_masks(self) -> BoolArray:
        """(N, V) bool, read-only without grammar: which tokens may come next in each row, at least one."""
        rules = self.rules
        if not rules.task.has_masks:
            return np.broadcast_to(rules.all_legal, (self.num_envs, rules.num_tokens))
        masks = np.ones((self.num_envs, rules.num_tokens), dtype=bool)
        running = np.flatnonzero(~self._ended)
        for i, problem in zip(running.tolist(), self._problems(running), strict=True):
            masks[i] = rules.legal(problem, self._rows[i], self._end(i))
        return masks

    def demonstration(self) -> list[list[int] | None]:
        """Per row what `TextGenEnv.demonstration` says."""
        if not self._started:
            raise ResetNeeded("demonstration() needs running episodes; call reset() first")
        return [self.rules.demonstration(problem) for problem in self._problems(self._all_rows)]

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """One random stream a row."""
        return tuple(map(self._streams.lend, range(self.num_envs)))
