"""The environment: language generation, one token a step. Its batch form is `textenvs.vector_env`."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from textenvs.rules import OPTIONS, RenderModes, Rules
from textenvs.task import Problem
from textenvs.vocab import printable


class TextGenEnv(gym.Env[Any, Any]):
    """Language generation as a Markov decision process over tokens.

    ## Description
    An episode starts from a prompt. Each action is the id of the next token. The episode ends with the end token, a
    stop token, or the last token of the budget, and the whole response is then scored.

    ## Action Space
    `Discrete(V)`: the next token id. V counts the vocabulary's symbols and the end token. A token that
    `action_masks()` forbids is appended all the same, and can only be scored wrong.

    ## Observation Space
    `"tokens"`: `Box(0, V, (P + T,), int64)`. The prompt stands right-aligned in the first P slots, everything later
    from slot P on; unused slots hold V, so no token is mistaken for padding and the remaining budget is visible.
    `"onehot"`: the same as flat float32, `((P + T) * (V + 1),)`. `mask_keys` wraps either in a `Dict` with the mask.

    ## Starting State
    A problem drawn uniformly from the task's split with `self.np_random`. `reset(options={"problem": k})` picks one,
    `reset(options={"prompt": text})` gives one.

    ## Rewards
    0 until the end, then the score. With `dense=True` the difference of scores between successive prefixes, starting
    from 0, which sums to the same return.

    ## Episode End
    Termination: the end token, a stop token, or the T-th token; the budget is part of the task, and the reward is
    paid in full, so nothing must be bootstrapped. Truncation: only when the scorer's machinery failed
    (`status` is `"infra_fault"`, reward 0: the reward raised, or said so) or a wrapper cut the episode.

    ## Information
    At reset `problem`, its number (-1 for a prompt of your own). At the end `problem`, `prompt`, `response`
    (without the end token), `turns` where the task replies, `finish_reason` (`eos`, `stop`, `length` or `fault`),
    `is_success`, `status`, and the reward's named parts, or for an `infra_fault` its `cause`. Never the reference.

    ## Arguments
    Keyword only; JSON-able where they are names.

    Args:
        task: a name of `textenvs.TASKS`, a `Task` or its class, which gets `settings`, or None to continue prompts.
        prompts: a list of texts or a file of them, for the continuation task.
        reward: a name of `textenvs.REWARDS`, a function of (problem, text), a `Reward`, or None for the task's own.
        vocab: a tokenizer file, a `Vocab`, or None for the task's own.
        max_prompt_tokens: P; None for the task's own.
        max_new_tokens: T; None for the task's own.
        stop: ids or single-token strings that end a turn as the end token does.
        dense: pay the score as it grows.
        observation: "tokens" or "onehot".
        mask_keys: None, "pettingzoo", "rllib" or "tianshou": whose names the `Dict` observation uses.
        render_mode: None, "ansi" (`render` returns a line of text) or "human" (every step prints it).
        settings: the task's own, such as `length`, `alphabet` and `split`.

    ## References
    Ramamurthy et al., "Is Reinforcement Learning (Not) for Natural Language Processing?", ICLR 2023.

    ## Version History
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": RenderModes(("ansi", "human")), "render_fps": 4}  # type: ignore[misc]

    def __init__(self, *, render_mode: str | None = None, **kwargs: Any) -> None:
        if render_mode is not None and render_mode not in type(self).metadata["render_modes"]:
            # SB3 tries "rgb_array" first and goes on without it on a TypeError only.
            kind = TypeError if render_mode == "rgb_array" else ValueError
            raise kind(f"render_mode must be None, 'ansi' or 'human', got {render_mode!r}; there are no pixels")
        self.render_mode = render_mode
        self.rules = rules = Rules(**kwargs)
        self.metadata = {**type(self).metadata, "textgen": rules.metadata}  # type: ignore[misc]
        self.action_space = spaces.Discrete(rules.num_tokens)
        self.observation_space = rules.observation_space
        self._problem: Problem | None = None
        self._running = False
        self._outcome: tuple[str, float] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. See the class for `options`."""
        super().reset(seed=seed)
        rules, options = self.rules, options or {}
        if options and set(options) not in OPTIONS:
            raise ValueError(
                f"options must hold 'problem' or 'prompt', got {', '.join(map(repr, sorted(options, key=str)))}"
            )
        if "prompt" in options:
            number, start = -1, rules.start_prompt(options["prompt"])
        else:
            number = options["problem"] if "problem" in options else int(self.np_random.integers(rules.num_problems))
            start = rules.start(number)
        # Only now: a refused reset leaves the running episode as it was.
        self._number = int(number)
        self._problem, self._prompt, self._row = start.problem, start.prompt, start.row.copy()
        self._end = rules.max_prompt_tokens
        self._turn_ends: list[int] = []
        self._score = 0.0
        self._running, self._outcome = True, None
        if self.render_mode == "human":
            print(self.line())
        return rules.observe(self._row, self.action_masks), {"problem": self._number}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Append one token.

        Raises:
            ResetNeeded: no episode is running.
            InvalidAction: not an integer in [0, V).
        """
        if not self._running or self._problem is None:
            raise ResetNeeded("step() needs a running episode; call reset() first")
        rules = self.rules
        self._row[self._end] = token = rules.token(action)
        self._end += 1
        self._running = False  # whatever a task or a reward raises, nothing may be appended to what it was asked about
        reason: str | None = None
        if rules.ends_turn[token] or self._end == rules.width:
            self._end, reason = rules.close_turn(self._problem, self._row, self._end, self._turn_ends)
        reward, truncated = 0.0, False
        info: dict[str, Any] = {}
        if reason is not None or rules.dense:
            reward, truncated, info = self._scored(reason or "running")
        self._running = reason is None
        if self.render_mode == "human":
            print(self.line())
        observation = rules.observe(self._row, self.action_masks)
        return observation, reward, reason is not None and not truncated, truncated, info

    def _scored(self, reason: str) -> tuple[float, bool, dict[str, Any]]:
        """Reward, truncated and info of a row that has ended, or that `dense` scores on the way."""
        rules, problem = self.rules, self._problem
        assert problem is not None
        scores, responses = rules.score_one(problem, self._row, self._end, reason, self._turn_ends)
        value, status = float(scores.values[0]), scores.status[0]
        fault = status == "infra_fault"
        reward = 0.0 if fault else value - self._score if rules.dense else value
        if reason == "running":
            self._score += reward
            return reward, False, {}
        reason = "fault" if fault else reason
        info: dict[str, Any] = {
            "problem": self._number,
            "prompt": self._prompt,
            "response": responses.texts[0],
            "finish_reason": reason,
            "is_success": not fault and value >= rules.task.threshold,
            "status": status,
        }
        if rules.has_replies:
            info["turns"] = responses.turns[0]
        if fault:  # what failed to be judged has a cause and no parts
            info["cause"] = scores.causes[0]
        else:
            for name, column in scores.parts.items():
                info[name] = float(column[0])
        self._outcome = (reason, value)
        return reward, fault, info

    def action_masks(self) -> NDArray[np.bool_]:
        """(V,) bool, read-only: which tokens may come next, at least one; all where the task has no grammar."""
        if self._problem is None or not self._running:
            return self.rules.all_legal
        return self.rules.legal(self._problem, self._row, self._end)

    def demonstration(self) -> list[int] | None:
        """Token ids that solve the running problem, end token included, or None where nobody wrote a reference."""
        if self._problem is None:
            raise ResetNeeded("demonstration() needs a running episode; call reset() first")
        return self.rules.demonstration(self._problem)

    def render(self) -> str | None:
        """What `line` says; None unless `render_mode` is "ansi"."""
        return self.line() if self.render_mode == "ansi" else None

    def line(self) -> str:
        """The episode so far on one line, control characters escaped: prompt, response, tokens used, outcome."""
        if self._problem is None:
            raise ResetNeeded("render() needs a running episode; call reset() first")
        used = self._end - self.rules.max_prompt_tokens
        text = f"{printable(self._prompt)} > {printable(self._response())}"
        outcome = " [{}, score {:.3f}]".format(*self._outcome) if self._outcome else ""
        return f"{text} ({used}/{self.rules.max_new_tokens}){outcome}"

    def text(self) -> str:
        """The episode so far as its tokens spell it: the prompt, then the response with its replies."""
        if self._problem is None:
            raise ResetNeeded("text() needs a running episode; call reset() first")
        return self._prompt + self._response()

    def _response(self) -> str:
        return self.rules.vocab.decode(self._row[self.rules.max_prompt_tokens : self._end].tolist())
