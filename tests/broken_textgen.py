"""Envs that each break one of TextGen's own clauses: rows, rewards, ends and actions, masks, info, the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from broken_envs import Changed, breaks
from gymnasium import spaces
from gymnasium.error import InvalidAction
from tasks_for_tests import GuessingGame

# --------------------------------------------------------------------------------------------------------- rows


@breaks("metadata")
class NoFingerprint(Changed):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        del self.metadata["textgen"]["vocab_sha256"]


@breaks("metadata")
class EndTokenOffByOne(Changed):
    """The end id of the metadata is V, as if ids began at 1."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.metadata["textgen"]["eos_id"] = self.rules.num_tokens


@breaks("observation_space")
class FloatTokens(Changed):
    """Token ids as float32, which cannot tell large ids apart."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = spaces.Box(0, self.rules.num_tokens, (self.rules.width,), np.float32)

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return observation.astype(np.float32), info

    def after(self, action: Any, values: Any) -> Any:
        return values[0].astype(np.float32), *values[1:]


@breaks("prompt_right_aligned")
class PadIsEnd(Changed):
    """Unused slots hold the end token."""

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return np.minimum(observation, self.rules.vocab.eos_id), info


@breaks("prompt_right_aligned", task="count")
class LeftAligned(Changed):
    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        prompt = observation[: self.rules.max_prompt_tokens]
        prompt[:] = np.roll(prompt, -int((prompt == self.rules.num_tokens).sum()))
        return observation, info


@breaks("token_appended")
class SlidingWindow(Changed):
    """The row moves left by one at each step."""

    def after(self, action: Any, values: Any) -> Any:
        return np.roll(values[0], -1), *values[1:]


@breaks("token_appended")
class OneStepLate(Changed):
    """The observation shows the row before the action."""

    def step(self, action: Any) -> Any:
        before = self._row.copy()
        return before, *super().step(action)[1:]


@breaks("token_appended")
class EndTokenHidden(Changed):
    def after(self, action: Any, values: Any) -> Any:
        values[0][values[0] == self.rules.vocab.eos_id] = self.rules.num_tokens
        return values


@breaks("token_appended", observation="onehot")
class TwoHot(Changed):
    """One-hot slots that still hold what stood there before."""

    def after(self, action: Any, values: Any) -> Any:
        slots = values[0].reshape(self.rules.width, -1)
        slots[self.rules.max_prompt_tokens :, -1] = 1
        return values


# ----------------------------------------------------------------------------------------- rewards, ends, actions


@breaks("reward_float")
class IntReward(Changed):
    def after(self, action: Any, values: Any) -> Any:
        return values[0], int(values[1] == 1), *values[2:]


@breaks("paid_at_the_end")
class PaysEarly(Changed):
    """A bonus at every step without dense=True."""

    def after(self, action: Any, values: Any) -> Any:
        return values[0], values[1] + 0.01, *values[2:]


@breaks("dense_same_return", dense=True)
class PaysTwice(Changed):
    """Dense pays the growth of the score, and the whole score at the end once more."""

    def after(self, action: Any, values: Any) -> Any:
        bonus = values[4].get("position_match", 0.0) if self.rules.dense else 0.0
        return values[0], values[1] + bonus, *values[2:]


@breaks("end_token_ends")
class EndGoesOn(Changed):
    """The end token is a token like any other."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rules.ends_turn[self.rules.vocab.eos_id] = False


@breaks("stop_tokens_end")
class StopForgotten(Changed):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rules.ends_turn[list(self.rules.stop_ids)] = False


@breaks("budget_ends")
class BudgetOneShort(Changed):
    """`>=` where `>` was meant: the last token of the budget cannot be used."""

    def after(self, action: Any, values: Any) -> Any:
        full = self._end >= self.rules.width - 1
        return *values[:2], values[2] or full, *values[3:]


@breaks("ends_terminate")
class BudgetTruncates(Changed):
    """The budget truncates, so that learners bootstrap from a state that was already paid for."""

    def after(self, action: Any, values: Any) -> Any:
        cut = values[4].get("finish_reason") == "length"
        return *values[:2], values[2] and not cut, cut, values[4]


@breaks("ends_terminate")
class BothFlags(Changed):
    def after(self, action: Any, values: Any) -> Any:
        return *values[:3], values[2], values[4]


@breaks("step_after_end_refused")
class StepsAfterEnd(Changed):
    """After the end the last observation comes again, with reward 0."""

    def step(self, action: Any) -> Any:
        if self._problem is not None and not self._running:
            return self.rules.observe(self._row, self.action_masks()), 0.0, True, False, {}
        return super().step(action)


@breaks("bad_actions_refused")
class Clamps(Changed):
    def step(self, action: Any) -> Any:
        return super().step(int(np.clip(action, 0, self.rules.num_tokens - 1)))


@breaks("bad_actions_refused")
class CountsFromTheEnd(Changed):
    """-1 is the last token, as in a Python list."""

    def step(self, action: Any) -> Any:
        return super().step(action + self.rules.num_tokens if action == -1 else action)


@breaks("bad_actions_refused")
class RefusesTooLate(Changed):
    """A bad action raises, and has taken a slot of the budget."""

    def step(self, action: Any) -> Any:
        try:
            return super().step(action)
        except InvalidAction:
            self._end += 1
            raise


@breaks("numpy_actions")
class PythonIntsOnly(Changed):
    def step(self, action: Any) -> Any:
        if type(action) is not int:
            raise InvalidAction(f"action must be an int, got {action!r}")
        return super().step(action)


# ------------------------------------------------------------------------------------------ masks, info, the rest


@breaks("mask_owned")
class OwnMask(Changed):
    """The env's own mask, writable."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask = np.ones(self.rules.num_tokens, dtype=bool)

    def action_masks(self) -> Any:
        return self.mask


@breaks("mask_in_observation", task=GuessingGame(), mask_keys="pettingzoo")
class StaleMask(Changed):
    """The observation shows the mask from before the step."""

    def step(self, action: Any) -> Any:
        before = self.action_masks().astype(np.int8)
        values = super().step(action)
        values[0]["action_mask"] = before
        return values


@breaks("masked_token_accepted", task=GuessingGame())
class MaskedRaises(Changed):
    def step(self, action: Any) -> Any:
        if self._running and isinstance(action, int) and 0 <= action < 9 and not self.action_masks()[action]:
            raise InvalidAction(f"token {action} is masked")
        return super().step(action)


@breaks("info_keys")
class NoStatus(Changed):
    def after(self, action: Any, values: Any) -> Any:
        values[4].pop("status", None)
        return values


@breaks("info_small")
class MaskInInfo(Changed):
    """`info["action_mask"]`, which SB3 copies at every step."""

    def after(self, action: Any, values: Any) -> Any:
        return *values[:4], {**values[4], "action_mask": self.action_masks().astype(np.int8)}


@breaks("info_hides_reference")
class AnswerInInfo(Changed):
    """The answer, for the log."""

    def after(self, action: Any, values: Any) -> Any:
        if values[2]:
            values[4]["log"] = {"answer": self._problem.references[0]}
        return values


@breaks("info_hides_reference")
class AnswerIdsInInfo(Changed):
    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return observation, {**info, "target": self.demonstration()}


@breaks("finish_reason")
class AlwaysLength(Changed):
    def after(self, action: Any, values: Any) -> Any:
        if values[2]:
            values[4]["finish_reason"] = "length"
        return values


@breaks("is_success")
class SuccessIsPositive(Changed):
    """Ending with the end token counts as a success."""

    def after(self, action: Any, values: Any) -> Any:
        if values[2]:
            values[4]["is_success"] = values[4]["finish_reason"] == "eos"
        return values


@breaks("demonstration")
class OldDemonstration(Changed):
    """The demonstration of problem 0, whatever runs."""

    def demonstration(self) -> Any:
        return self.rules.demonstration(self.rules.task[0])


@breaks("demonstration")
class NoRoomForTheEnd(Changed):
    """One token too many: the demonstration goes on after the end."""

    def demonstration(self) -> Any:
        return [*super().demonstration(), 0]


@breaks("problem_option")
class ProblemIgnored(Changed):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        if options and "problem" in options:
            return super().reset()[0], info
        return observation, info


@breaks("prompt_option")
class PromptIgnored(Changed):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        return (super().reset()[0], {"problem": -1}) if options and "prompt" in options else (observation, info)


@breaks("bad_options_refused")
class OptionsIgnored(Changed):
    """What it does not know it ignores, typing errors too."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        known = {key: value for key, value in (options or {}).items() if key in ("problem", "prompt")}
        return super().reset(seed=seed, options=known)


@breaks("spec_json", order={0: 1, 1: 0})
class IntegerKeys(Changed):
    """A kwarg whose integer keys JSON turns into strings."""

    def __init__(self, *, order: dict[Any, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order = order

    def step(self, action: Any) -> Any:
        return super().step(self.order.get(action, action))


@breaks("render_ansi")
class Coloured(Changed):
    def render(self) -> Any:
        return f"\x1b[32m{super().render()}\x1b[0m"
