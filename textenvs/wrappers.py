"""Other views of an env. Here: whole utterances, for agents that write text and know nothing of tokens."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils import RecordConstructorArgs

from textenvs.env import TextGenEnv


class AnyText(spaces.Text):
    """Texts of any characters, up to a length; `characters` are only what samples are made of."""

    def contains(self, x: Any) -> bool:
        """Whether `x` is a text of at most `max_length` characters."""
        return isinstance(x, str) and len(x) <= self.max_length


class Utterances(gym.Wrapper[str, str, Any, Any], RecordConstructorArgs):
    """Acts in whole turns: the action is a text, the observation the text so far; one step is one turn.

    `Utterances(gym.make(id))` plays the same episodes, for the same rewards, as the env that it wraps: a text is
    encoded, its tokens and the end token are stepped through the env until the turn or the episode ends.

    Action space: `AnyText` of at most T x the longest token's characters. Nothing tells beforehand how many tokens a
    text takes: what no longer fits the budget is not sent, as an API cuts at `max_tokens`, and the episode ends with
    `finish_reason` `length`; what comes after a token that ends the turn (`stop=`) is not sent either. Samples are
    made of the characters that single tokens spell; a text of other characters is fine wherever the vocabulary can
    spell it. One that it cannot spell ends the episode as `textenvs score` judges it: the return is the reward's least
    value (0 where that is not finite), and `info` has the text in `response`, `status` `model_fault`, no parts, and in
    `cause` the character. No task sees such a text, not even one that replies to any.

    Observation space: `AnyText`; the prompt, then all turns and replies, as the tokens so far spell them; the end token
    and a text that no tokens spell show nothing.

    Args:
        env: an env of this package with token observations, as `gym.make(id)` gives it.

    Raises:
        TypeError: for any other env.
    """

    env: gym.Env[Any, Any]

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        inner = env.unwrapped
        if not isinstance(inner, TextGenEnv):
            raise TypeError(f"env must be a TextGenEnv, got {type(inner).__name__}; wrap gym.make(an id of textenvs)")
        self._inner = inner
        rules = inner.rules
        texts = [rules.vocab.decode([token]) for token in range(rules.num_tokens)]
        characters = "".join(sorted(set("".join(texts))))
        longest = max(map(len, texts))
        self.action_space = AnyText(rules.max_new_tokens * longest, min_length=0, charset=characters)
        self.observation_space = AnyText(rules.width * longest, min_length=0, charset=characters)
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode; `options` as for the env."""
        _, info = self.env.reset(seed=seed, options=options)
        self._start = {"problem": info["problem"], "prompt": self._inner.text()}
        self._turns: list[str] = []
        self._running, self._paid = True, 0.0
        return self._inner.text(), info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one turn.

        Args:
            action: what to say; the turn's end is added.

        Returns:
            As for the env; the reward is the sum of what its tokens earn.

        Raises:
            ResetNeeded: no episode is running.
            InvalidAction: not a text.
        """
        if not self._running:
            raise ResetNeeded("step() needs a running episode; call reset() first")
        if not isinstance(action, str):
            raise InvalidAction(f"action must be a text, got {action!r}; tokens are for the env that this wraps")
        rules, total = self._inner.rules, 0.0
        try:
            tokens = [*rules.vocab.encode(action).tolist(), rules.vocab.eos_id]
        except ValueError as error:
            return self._unspelt(action, str(error))
        before, sent = len(self._inner.text()), []
        for token in tokens:
            sent.append(token)
            _, reward, terminated, truncated, info = self.env.step(token)
            total += float(reward)
            if terminated or truncated or rules.ends_turn[token]:
                break
        self._running = not (terminated or truncated)
        self._paid += total
        text, turn = self._inner.text(), rules.vocab.decode(sent)
        self._turns += [turn, text[before + len(turn) :]]  # and the reply to it
        return text, total, terminated, truncated, info

    def _unspelt(self, action: str, cause: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """The end of an episode by a turn of which the env can have no tokens, worth what `textenvs score` says."""
        rules, value = self._inner.rules, self._inner.rules.reward.least
        self._running = False
        info: dict[str, Any] = {
            **self._start,
            "response": "".join([*self._turns, action]),
            "finish_reason": "eos",
            "is_success": value >= rules.task.threshold,
            "status": "model_fault",
            "cause": cause,
        }
        if rules.has_replies:
            info["turns"] = [*self._turns, action]
        return self._inner.text(), value - self._paid, True, False, info
