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

from textenvs.rules import OPTIONS, Rules, Start
from textenvs.starts import Starts, Streams
from textenvs.task import Problem

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
        self.num_envs = int(num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode, "textgen": rules.metadata}  # type: ignore[misc]
        self.single_observation_space = rules.observation_space
        self.single_action_space = spaces.Discrete(rules.num_tokens)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = None
        self._max_episode_steps = max_episode_steps
        self._all_rows = np.arange(num_envs)
        self._rows = np.full((num_envs, rules.width), rules.num_tokens, dtype=np.int64)
        self._slots = self._rows.reshape(-1)  # the same memory: one index is faster than two
        self._first_slots = self._all_rows * rules.width
        self._ends = np.full(num_envs, rules.max_prompt_tokens, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._scores = np.zeros(num_envs)
        self._ended = np.ones(num_envs, dtype=bool)
        self._started = False
        self._numbers = np.full(num_envs, -1, dtype=np.int64)
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
        infos = self._start(rows, options)
        self._started = True
        return self._observe(), infos

    def _reset_rows(self, mask: Any) -> NDArray[np.int64]:
        if mask is None:
            return self._all_rows
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise TypeError(f"options['reset_mask'] must be a bool array ({self.num_envs},), got {mask!r}")
        if not mask.any():
            raise ValueError("options['reset_mask'] must have a True, got none; leave it out to reset every row")
        return np.flatnonzero(mask)

    def _start(self, rows: NDArray[np.int64], options: dict[str, Any]) -> dict[str, Any]:
        """Write fresh prompts into `rows` (M,) and return their infos."""
        rules = self.rules
        if "prompt" in options:
            start, numbers = rules.start_prompt(options["prompt"]), np.full(len(rows), -1)
            self._own |= dict.fromkeys(rows.tolist(), start)
            self._rows[rows] = start.row
        else:
            for i in rows.tolist() if self._own else ():
                self._own.pop(i, None)
            if "problem" in options:
                numbers = np.broadcast_to(options["problem"], (self.num_envs,))[rows]
            else:
                numbers = self._streams.draw(rows)
            lines = self._starts.lines(numbers)
            self._rows[rows] = self._starts.rows[lines]
            self._lines[rows] = lines
        if rules.has_replies:
            for i in rows.tolist():
                self._turn_ends[i] = []
        self._numbers[rows] = numbers
        self._ends[rows] = rules.max_prompt_tokens
        self._steps[rows] = 0
        self._scores[rows] = 0.0
        self._ended[rows] = False
        infos: dict[str, Any] = {}
        self._fill(infos, rows, {"problem": numbers})
        return infos

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
        rules = self.rules
        tokens = self._tokens(actions)
        resetting = np.flatnonzero(self._ended)
        if len(resetting) and self.autoreset_mode == AutoresetMode.DISABLED:
            waiting = resetting[:8].tolist()
            raise ResetNeeded(f"rows {waiting} have ended; call reset(options={{'reset_mask': ended}}) first")
        # An ended row is written too: it is about to be started again as a whole.
        self._slots[self._first_slots + np.minimum(self._ends, rules.width - 1)] = tokens
        self._ends += 1
        self._steps += 1
        running = ~self._ended
        closing = np.flatnonzero(running & (rules.ends_turn[tokens] | (self._ends == rules.width)))
        infos = self._start(resetting, {}) if len(resetting) else {}
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=bool)
        truncated = np.zeros(self.num_envs, dtype=bool)
        finished, reasons = self._close(closing)
        if rules.dense:
            running[finished] = False
            self._pay_dense(np.flatnonzero(running), rewards)
        if len(finished):
            target = infos if self.autoreset_mode != AutoresetMode.SAME_STEP else infos.setdefault("final_info", {})
            self._finish(finished, reasons, rewards, truncated, target)
            terminated[finished] = ~truncated[finished]
        if self._max_episode_steps is not None:
            truncated |= self._steps >= self._max_episode_steps
        self._ended = terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            self._restart(np.flatnonzero(self._ended), infos)
        return self._observe(), rewards, terminated, truncated, infos

    def _tokens(self, actions: Any) -> NDArray[np.int64]:
        tokens = np.asarray(actions)
        if tokens.shape != (self.num_envs,) or tokens.dtype.kind not in "iu":
            raise InvalidAction(f"actions must be {self.num_envs} ints, got shape {tokens.shape} of {tokens.dtype}")
        if tokens.min() < 0 or tokens.max() >= self.rules.num_tokens:
            bad = tokens[(tokens < 0) | (tokens >= self.rules.num_tokens)][0]
            raise InvalidAction(f"actions must be ints in [0, {self.rules.num_tokens}), got {bad}; they are token ids")
        return tokens.astype(np.int64, copy=False)

    def _close(self, closing: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
        """Close the turns of `closing` (M,); which of them ended their episode, and why."""
        if not self.rules.has_replies:
            last = self._slots[self._first_slots[closing] + self._ends[closing] - 1]
            return closing, self.rules.finish_reasons[last].tolist()
        finished, reasons = [], []
        for i, problem in zip(closing.tolist(), self._problems(closing), strict=True):
            end, reason = self.rules.close_turn(problem, self._rows[i], int(self._ends[i]), self._turn_ends[i])
            self._ends[i] = end
            if reason is not None:
                finished.append(i)
                reasons.append(reason)
        return np.array(finished, dtype=np.int64), reasons

    def _pay_dense(self, rows: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Pay the running `rows` (M,) the growth of their score."""
        if len(rows):
            scores, _ = self._score(rows, ["running"] * len(rows))
            fault = scores.faulty
            rewards[rows] = np.where(fault, 0.0, scores.values - self._scores[rows])
            self._scores[rows] += rewards[rows]

    def _finish(
        self,
        rows: NDArray[np.int64],
        reasons: list[str],
        rewards: NDArray[np.float64],
        truncated: BoolArray,
        infos: dict[str, Any],
    ) -> None:
        """Score the ended `rows` (M,); write their rewards (N,), faults (N,) and infos."""
        rules = self.rules
        scores, responses = self._score(rows, reasons)
        fault = scores.faulty
        rewards[rows] = np.where(fault, 0.0, scores.values - self._scores[rows] if rules.dense else scores.values)
        truncated[rows] = fault
        final: dict[str, Any] = {
            "problem": self._numbers[rows],
            "prompt": self._column(self._starts.prompts, "prompt", rows),
            "response": responses.texts,
            "finish_reason": reasons,
            "is_success": scores.values >= rules.task.threshold,
            "status": scores.status,
        }
        if rules.has_replies:
            final["turns"] = responses.turns
        if not fault.any():
            self._fill(infos, rows, final | dict(scores.parts))
            return
        final["finish_reason"] = ["fault" if bad else reason for bad, reason in zip(fault, reasons, strict=True)]
        final["is_success"] &= ~fault
        self._fill(infos, rows, final)
        # What failed to be judged has a cause and no parts.
        self._fill(infos, rows[~fault], {name: column[~fault] for name, column in scores.parts.items()})
        self._fill(infos, rows[fault], {"cause": [scores.causes[j] for j in np.flatnonzero(fault)]})

    def _score(self, rows: NDArray[np.int64], reasons: list[str]) -> Any:
        turn_ends = [self._turn_ends[i] for i in rows.tolist()] if self.rules.has_replies else ()
        return self.rules.score(self._problems(rows), self._rows[rows], self._ends[rows], reasons, turn_ends)

    def _problems(self, rows: NDArray[np.int64]) -> list[Problem]:
        return self._column(self._starts.problems, "problem", rows)

    def _column(self, column: NDArray[np.object_], name: str, rows: NDArray[np.int64]) -> list[Any]:
        """What the `rows` (M,) started from: a column of the table, and the field of that name of the user's own."""
        values: list[Any] = column[self._lines[rows]].tolist()
        for j, i in enumerate(rows.tolist()) if self._own else ():
            if i in self._own:
                values[j] = getattr(self._own[i], name)
        return values

    def _restart(self, rows: NDArray[np.int64], infos: dict[str, Any]) -> None:
        """SAME_STEP: put what ended into `final_obs` and `final_info`, then start the rows again."""
        final = self.rules.observe(self._rows[rows], lambda: self.action_masks()[rows])
        observations = np.full(self.num_envs, None, dtype=object)
        for j, i in enumerate(rows):
            observations[i] = {key: value[j] for key, value in final.items()} if isinstance(final, dict) else final[j]
        ended = np.zeros(self.num_envs, dtype=bool)
        ended[rows] = True
        infos.setdefault("final_info", {})
        infos |= {"final_obs": observations, "_final_obs": ended, "_final_info": ended.copy()}
        infos |= self._start(rows, {})

    def _fill(self, infos: dict[str, Any], rows: NDArray[np.int64], columns: dict[str, Any]) -> None:
        """Put `columns` (M,) of `rows` (M,) into `infos` as Gymnasium does: (N,) arrays beside `_key` masks."""
        if not len(rows):
            return
        filled = np.zeros(self.num_envs, dtype=bool)
        filled[rows] = True
        for key, values in columns.items():
            if key not in infos:
                numbers = isinstance(values, np.ndarray)
                infos[key] = np.zeros(self.num_envs, values.dtype) if numbers else np.empty(self.num_envs, object)
            mask = f"_{key}"
            infos[mask] = infos[mask] | filled if mask in infos else filled.copy()
            if key == "turns":  # NumPy would take a list of lists for a second axis
                for i, value in zip(rows.tolist(), values, strict=True):
                    infos[key][i] = value
            else:
                infos[key][rows] = values

    # ------------------------------------------------------------------------------------------------------ views

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
            masks[i] = rules.legal(problem, self._rows[i], int(self._ends[i]))
        return masks

    def demonstration(self) -> list[list[int] | None]:
        """Per row what `TextGenEnv.demonstration` says."""
        if not self._started:
            raise ResetNeeded("demonstration() needs running episodes; call reset() first")
        return [self.rules.demonstration(problem) for problem in self._problems(self._all_rows)]

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """One random stream a row."""
        return tuple(map(self._streams.generator, range(self.num_envs)))
